/** `npm run test:devdax`: see tools/devdax/main.ts. */
import { setupOrExit } from './setup.mjs'
import { installPackages, SetupError, which } from './setup-system.mjs'

/** What the guest needs from Debian, and how to see that it is there. */
const NEEDED = [
  { name: 'qemu-system-x86', program: 'qemu-system-x86_64' },
  { name: 'busybox-static', program: 'busybox' },
  { name: 'kmod', program: 'depmod' },
  { name: 'xz-utils', program: 'xz' },
  { name: 'zstd', program: 'zstd' },
]

const args = process.argv.slice(2)
try {
  const missing = NEEDED.filter(({ program }) => which(program) === undefined)
  const say = (line) => process.stderr.write(`devdax: ${line}\n`)
  // qemu-system-x86 only recommends the firmware that it boots with.
  if (missing.length > 0) await installPackages([...missing, { name: 'seabios' }], say)
} catch (error) {
  if (!(error instanceof SetupError)) throw error
  const reason = `a guest cannot be run here: ${error.message.replaceAll('\n', ' ')}`
  const optional = args.includes('--optional')
  process.stdout.write(optional ? `${reason}\n0 passed, 0 failed, skipped\n` : `${reason}\n`)
  process.exit(optional ? 0 : 1)
}
await setupOrExit('test')
const { register } = await import('tsx/esm/api')
register()
const { main } = await import('./devdax/main.ts')
process.exit(await main(args))
