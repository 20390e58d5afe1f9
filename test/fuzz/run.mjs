/** `npm run test:fuzz`: see main.ts. */
import { setupOrExit } from '../../tools/setup.mjs'

await setupOrExit('test')
const { register } = await import('tsx/esm/api')
register()
const { main } = await import('./main.ts')
process.exit(await main(process.argv.slice(2)))
