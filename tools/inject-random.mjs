/** `node tools/inject-random.mjs`: see tools/inject-random/main.ts. */
import { setupOrExit } from './setup.mjs'

await setupOrExit('start')
const { register } = await import('tsx/esm/api')
register()
const { main } = await import('./inject-random/main.ts')
process.exit(await main(process.argv.slice(2)))
