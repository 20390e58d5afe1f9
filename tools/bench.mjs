/** `npm run bench`: see tools/bench/main.ts. */
import { setupOrExit } from './setup.mjs'

await setupOrExit('bench')
const { register } = await import('tsx/esm/api')
register()
const { main } = await import('./bench/main.ts')
process.exit(await main(process.argv.slice(2)))
