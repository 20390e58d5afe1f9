/** The clock of the filesystem: nanoseconds since the epoch, as inodes store them. */
import type { InodeRow } from '../media/change.ts'

export interface Time {
  readonly seconds: number
  readonly nanoseconds: number
}

let origin = performance.timeOrigin

/**
 * The monotonic clock gives the digits below a millisecond; the wall clock corrects it when set.
 */
export function now(): Time {
  let milliseconds = origin + performance.now()
  const wall = Date.now()
  if (Math.abs(wall - milliseconds) > 2) {
    origin += wall - milliseconds
    milliseconds = wall
  }
  const seconds = Math.floor(milliseconds / 1000)
  return { seconds, nanoseconds: Math.floor((milliseconds - seconds * 1000) * 1e6) }
}

/** What inodes cannot store becomes the nearest that they can, as on ext4. */
function storable({ seconds, nanoseconds }: Time): Time {
  if (Math.abs(seconds) < Number.MAX_SAFE_INTEGER) return { seconds, nanoseconds }
  return { seconds: Math.sign(seconds) * Number.MAX_SAFE_INTEGER, nanoseconds: 0 }
}

export function setAtime(row: InodeRow, time: Time): void {
  const { seconds, nanoseconds } = storable(time)
  row.atime = seconds
  row.atimeNs = nanoseconds
}

export function setMtime(row: InodeRow, time: Time): void {
  const { seconds, nanoseconds } = storable(time)
  row.mtime = seconds
  row.mtimeNs = nanoseconds
}

export function setCtime(row: InodeRow, time: Time): void {
  const { seconds, nanoseconds } = storable(time)
  row.ctime = seconds
  row.ctimeNs = nanoseconds
}

/** Content changed: both of them. */
export function setModified(row: InodeRow, time: Time): void {
  setMtime(row, time)
  setCtime(row, time)
}
