/**
 * -o on_failure=sigbus: the processes that map the failed part of a file are signalled at once, not
 * only when they touch it. The si_code is SI_QUEUE: the kernel keeps BUS_MCEERR_* for itself.
 */
import { closeSync } from 'node:fs'
import { readFile } from 'node:fs/promises'
import { constants } from 'node:os'
import { mountAt } from '../control/mountinfo.ts'
import type { FilesystemEvent } from '../fs/administration.ts'
import type { Filesystem } from '../fs/filesystem.ts'
import { native } from '../native/binding.ts'
import type { LineLogger } from './logger.ts'
import { deviceField, lookAtProcesses, type Seen } from './processes.ts'

/** For who is in the middle of an unmap to be done with it; others are signalled meanwhile. */
const PATIENCE_MS = 5000

type Kill = Extract<FilesystemEvent, { event: 'kill' }>

/** Returns the function that ends it. */
export function signalMappers(fs: Filesystem, mountpoint: string, logger: LineLogger): () => void {
  const device = mountAt(mountpoint)?.device
  if (device === undefined) return () => {}
  /** What failed since the last look began. */
  const failed: Kill[] = []
  let looking = false
  const look = async (): Promise<void> => {
    if (looking) return
    looking = true
    try {
      while (failed.length > 0) await signalAll(device, failed.splice(0), logger)
    } catch (error) {
      logger.warn(`who maps what failed could not be found: ${(error as Error).message}`)
    } finally {
      looking = false
    }
  }
  return fs.administration.subscribe((event) => {
    // Dead handles count: what they map may be hit another time.
    if (event.event !== 'kill' || !fs.volume.handles.isOpen(event.inode)) return
    failed.push(event)
    void look()
  })
}

async function signalAll(device: string, kills: Kill[], logger: LineLogger): Promise<void> {
  const signals: Promise<void>[] = []
  const all = await lookAtProcesses({ device }, PATIENCE_MS, (seen) => {
    const hit = kills.filter((kill) => seen.maps.some((line) => mapsRange(line, device, kill)))
    if (hit.length > 0) signals.push(signal(seen, hit, logger))
  })
  await Promise.all(signals)
  if (!all) logger.warn('not all who map what failed could be found: some were busy unmapping')
}

async function signal({ pid, startTime }: Seen, kills: Kill[], logger: LineLogger): Promise<void> {
  let pidfd: number | undefined
  try {
    pidfd = native.openProcess(pid)
    // The pidfd stands for whoever has the number now. Not on this thread: see processes.ts.
    if (startTimeIn(await readFile(`/proc/${pid}/stat`, 'utf8')) !== startTime) return
    native.signalProcess(pidfd, constants.signals.SIGBUS, 0)
    for (const { inode } of kills) {
      logger.warn(`sent SIGBUS to pid ${pid}, which maps what failed of inode ${inode}`)
    }
  } catch {
    // It has ended in the meantime, or is none of ours.
  } finally {
    if (pidfd !== undefined) closeSync(pidfd)
  }
}

/** The 22nd field; the second, the name, may hold spaces and parentheses. */
function startTimeIn(stat: string): number {
  return Number(stat.slice(stat.lastIndexOf(')') + 2).split(' ')[22 - 3])
}

/** `start-end perms offset major:minor inode path`, all but the inode hexadecimal. */
function mapsRange(line: string, device: string, { inode, ranges }: Kill): boolean {
  if (!line.includes(`${deviceField(device)}${inode} `)) return false
  const [, start, end, from] = /^([\da-f]+)-([\da-f]+) \S+ ([\da-f]+)/.exec(line) ?? []
  const first = Number(`0x${from}`)
  const last = first + Number(BigInt(`0x${end}`) - BigInt(`0x${start}`))
  return (
    ranges === undefined ||
    ranges.some(({ fileOffset, length }) => fileOffset < last && first < fileOffset + length)
  )
}
