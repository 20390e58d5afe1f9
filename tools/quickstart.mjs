/**
 * `npm start`: set-up where something is missing, then a mounted filesystem on ./mnt until Ctrl-C;
 * `npm start -- --demo` runs the whole tour unattended instead.
 */
import { setupOrExit } from './setup.mjs'

const HELP = `usage: npm start [-- OPTION…]
  --demo              run the whole tour unattended in a temporary directory, then exit
  --region FILE       the region to mount (default ./demo.holdfast, made when missing)
  --size SIZE         its size when it is made (default 1G)
  --mountpoint DIR    where to mount it (default ./mnt)
  -o OPTION,…         mount options, as for \`holdfast mount\`
`

const args = process.argv.slice(2)
if (args.includes('--help') || args.includes('-h')) {
  process.stdout.write(HELP)
  process.exit(0)
}
await setupOrExit('start')
const { register } = await import('tsx/esm/api')
register()
const { main } = await import(args.includes('--demo') ? './demo/main.ts' : './quickstart/main.ts')
process.exit(await main(args.filter((arg) => arg !== '--demo')))
