/** Taking a connection's mount away. */
import { spawn } from 'node:child_process'
import { setTimeout as pause } from 'node:timers/promises'
import { finished } from './mount.ts'

/** How long a mount may be busy before its user is told so. */
const BUSY_MS = 500
const PAUSE_MS = 20

/**
 * Tries again while `unmount` fails with EBUSY: a df, a `holdfast status` or a look into /proc by
 * anybody holds a mount for a moment.
 */
export async function unmountPatiently(unmount: () => Promise<void>): Promise<void> {
  const started = performance.now()
  for (;;) {
    try {
      return await unmount()
    } catch (error) {
      const busy = error instanceof Error && 'code' in error && error.code === 'EBUSY'
      if (!busy || performance.now() - started > BUSY_MS) throw error
    }
    await pause(PAUSE_MS)
  }
}

/**
 * Always another process: umount(2) waits for dirty pages to be written, and it is this process
 * that has to take them.
 */
export async function unmountConnection(mountpoint: string, lazy: boolean): Promise<void> {
  const sentence = `cannot unmount ${mountpoint}`
  const asRoot = process.geteuid?.() === 0
  const command = asRoot ? 'umount' : 'fusermount3'
  // -i: no /sbin/umount.fuse helper; -c: do not resolve the path, which would ask us for
  // attributes.
  const options = asRoot ? ['-i', '-c', ...(lazy ? ['-l'] : [])] : ['-u', ...(lazy ? ['-z'] : [])]
  await unmountPatiently(() => {
    const child = spawn(command, [...options, '--', mountpoint], {
      stdio: ['ignore', 'ignore', 'pipe'],
    })
    return finished(child, sentence)
  })
}
