/** `npm run test:devdax`: see tools/devdax/main.ts. */
import { installForGuest } from './devdax/packages.mjs'
import { setupOrExit } from './setup.mjs'

const args = process.argv.slice(2)
const say = (line) => process.stderr.write(`devdax: ${line}\n`)
const help = args.includes('--help') || args.includes('-h')
const reason = help ? undefined : await installForGuest(say)
if (reason !== undefined) {
  const optional = args.includes('--optional')
  process.stdout.write(`${optional ? 'skipped' : 'FAILED'} everything: ${reason}\n`)
  process.stdout.write(`0 passed, ${optional ? '0 failed, 1 skipped' : '1 failed'}\n`)
  process.exit(optional ? 0 : 1)
}
await setupOrExit('test')
const { register } = await import('tsx/esm/api')
register()
const { main } = await import('./devdax/main.ts')
process.exit(await main(args))
