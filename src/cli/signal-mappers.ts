/**
 * -o on_failure=sigbus: the processes that map the failed part of a file are signalled at once, not
 * only when they touch it. The si_code is SI_QUEUE: the kernel keeps BUS_MCEERR_* for itself.
 */
import { closeSync } from 'node:fs'
import { readdir, readFile } from 'node:fs/promises'
import { constants } from 'node:os'
import { mountAt } from '../control/mountinfo.ts'
import type { FilesystemEvent } from '../fs/administration.ts'
import type { Filesystem } from '../fs/filesystem.ts'
import { native } from '../native/binding.ts'
import type { LineLogger } from './logger.ts'

type Kill = Extract<FilesystemEvent, { event: 'kill' }>

/** Returns the function that ends it. */
export function signalMappers(fs: Filesystem, mountpoint: string, logger: LineLogger): () => void {
  const device = mountAt(mountpoint)?.device
  if (device === undefined) return () => {}
  let last = Promise.resolve()
  return fs.administration.subscribe((event) => {
    // Dead handles count: what they map may be hit another time.
    if (event.event !== 'kill' || !fs.volume.handles.isOpen(event.inode)) return
    last = last
      .then(() => signalAll(device, event, logger))
      .catch((error: Error) => logger.error(`looking for mappers: ${error.message}`))
  })
}

/**
 * Never synchronously: a process that unmaps dirty pages keeps its maps locked until this daemon
 * has taken them.
 */
async function signalAll(device: string, kill: Kill, logger: LineLogger): Promise<void> {
  for (const entry of await readdir('/proc')) {
    if (!/^\d+$/.test(entry) || Number(entry) === process.pid) continue
    try {
      if (!(await signalMapper(Number(entry), device, kill))) continue
      logger.warn(`sent SIGBUS to pid ${entry}, which maps what failed of inode ${kill.inode}`)
    } catch {
      // It has ended in the meantime.
    }
  }
}

/** The pidfd comes first: what is read then is of the process that it stands for, or it is dead. */
async function signalMapper(pid: number, device: string, kill: Kill): Promise<boolean> {
  const pidfd = native.openProcess(pid)
  try {
    const maps = await readFile(`/proc/${pid}/maps`, 'utf8')
    if (!mapsRange(maps, device, kill)) return false
    native.signalProcess(pidfd, constants.signals.SIGBUS, 0)
    return true
  } finally {
    closeSync(pidfd)
  }
}

/** Lines of maps: `start-end perms offset major:minor inode path`, all but the inode hexadecimal. */
export function mapsRange(
  maps: string,
  device: string,
  { inode, ranges }: Pick<Kill, 'inode' | 'ranges'>,
): boolean {
  const [major, minor] = device.split(':').map((part) => Number(part).toString(16).padStart(2, '0'))
  const wanted = ` ${major}:${minor} ${inode} `
  return maps.split('\n').some((line) => {
    if (!line.includes(wanted)) return false
    const [, start, end, from] = /^([\da-f]+)-([\da-f]+) \S+ ([\da-f]+)/.exec(line) ?? []
    const first = Number(`0x${from}`)
    const last = first + Number(BigInt(`0x${end}`) - BigInt(`0x${start}`))
    const hit = (range: { fileOffset: number; length: number }) =>
      range.fileOffset < last && first < range.fileOffset + range.length
    return ranges === undefined || ranges.some(hit)
  })
}
