/** What a guest needs from Debian, and how to see that it is there. Plain Node, before the set-up. */
import { installPackages, SetupError, which } from '../setup-system.mjs'

const NEEDED = [
  { name: 'qemu-system-x86', program: 'qemu-system-x86_64' },
  { name: 'busybox-static', program: 'busybox' },
  { name: 'kmod', program: 'depmod' },
  { name: 'xz-utils', program: 'xz' },
  { name: 'zstd', program: 'zstd' },
]

/** Installs what is missing; returns the sentence that says why it could not, or undefined. */
export async function installForGuest(say) {
  try {
    const missing = NEEDED.filter(({ program }) => which(program) === undefined)
    // qemu-system-x86 only recommends the firmware that it boots with.
    if (missing.length > 0) await installPackages([...missing, { name: 'seabios' }], say)
    return undefined
  } catch (error) {
    if (!(error instanceof SetupError)) throw error
    return `no guest can be run here: ${error.message.replaceAll('\n', ' ')}`
  }
}
