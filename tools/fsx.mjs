/** `npm run test:fsx`: see tools/fsx/main.ts. */
import { setupOrExit } from './setup.mjs'

await setupOrExit('test')
const { register } = await import('tsx/esm/api')
register()
const { main } = await import('./fsx/main.ts')
process.exit(await main(process.argv.slice(2)))
