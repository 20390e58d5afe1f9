/** `node tools/failure-matrix.mjs`: see tools/failure-matrix/main.ts. */
import { setupOrExit } from './setup.mjs'

await setupOrExit('start')
const { register } = await import('tsx/esm/api')
register()
const { main } = await import('./failure-matrix/main.ts')
process.exit(await main(process.argv.slice(2)))
