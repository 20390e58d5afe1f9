/** `node tools/mce-tour.mjs`: see tools/mce-tour/main.ts. */
import { installForGuest } from './devdax/packages.mjs'
import { setupOrExit } from './setup.mjs'

const args = process.argv.slice(2)
const say = (line) => process.stderr.write(`mce-tour: ${line}\n`)
const help = args.includes('--help') || args.includes('-h')
const reason = help ? undefined : await installForGuest(say)
if (reason !== undefined) {
  say(reason)
  process.exit(1)
}
await setupOrExit('test')
const { register } = await import('tsx/esm/api')
register()
const { main } = await import('./mce-tour/main.ts')
process.exit(await main(args))
