/**
 * -o on_failure=sigbus: the processes that map a killed file are signalled at once, not only when
 * they touch it. The si_code is SI_QUEUE: the kernel keeps BUS_MCEERR_* for itself.
 */
import { readdirSync, readFileSync } from 'node:fs'
import { constants } from 'node:os'
import { mountAt } from '../control/mountinfo.ts'
import type { Filesystem } from '../fs/filesystem.ts'
import { native } from '../native/binding.ts'
import type { LineLogger } from './logger.ts'

/** Returns the function that ends it. */
export function signalMappers(fs: Filesystem, mountpoint: string, logger: LineLogger): () => void {
  const device = mountAt(mountpoint)?.device
  if (device === undefined) return () => {}
  return fs.administration.subscribe((event) => {
    if (event.event !== 'kill') return
    for (const pid of mappersOf(device, event.inode)) {
      try {
        native.signalProcess(pid, constants.signals.SIGBUS, 0)
        logger.warn(`sent SIGBUS to pid ${pid}, which maps inode ${event.inode}`)
      } catch {
        // It has ended in the meantime.
      }
    }
  })
}

/** Lines of maps: `range perms offset major:minor inode path`, the device in hexadecimal. */
function mappersOf(device: string, inode: number): number[] {
  const [major, minor] = device.split(':').map((part) => Number(part).toString(16).padStart(2, '0'))
  const wanted = ` ${major}:${minor} ${inode} `
  return readdirSync('/proc')
    .filter((entry) => /^\d+$/.test(entry) && Number(entry) !== process.pid)
    .filter((entry) => maps(entry).includes(wanted))
    .map(Number)
}

function maps(pid: string): string {
  try {
    return readFileSync(`/proc/${pid}/maps`, 'utf8')
  } catch {
    return ''
  }
}
