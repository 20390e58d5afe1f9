/** What the kernel unpacks as its first root: modules of the kernel, busybox, our init. */
import { readFileSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { output } from './commands.ts'
import { CpioArchive } from './cpio.ts'
import { NoGuestError } from './errors.ts'
import type { Kernel } from './kernel.ts'

/** The kernel takes several archives one after the other for one. */
export function writeInitramfs(kernel: Kernel, path: string): void {
  const archive = new CpioArchive()
  archive.file('bin/busybox', readFileSync(staticBusybox()), 0o755)
  archive.file('init', readFileSync(fileURLToPath(new URL('init.sh', import.meta.url))), 0o755)
  writeFileSync(path, Buffer.concat([readFileSync(kernel.modules), archive.toBuffer()]))
}

/** A dynamic one would need libraries that are not there yet. */
function staticBusybox(): string {
  const path = output(['sh', '-c', 'command -v busybox']).toString().trim()
  // The interpreter's name stands near the start of a dynamic program.
  if (readFileSync(path).subarray(0, 4096).includes('ld-linux')) {
    throw new NoGuestError(`${path} is not static: install the Debian package busybox-static`)
  }
  return path
}
