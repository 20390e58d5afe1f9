/** Reading: where the bytes are, never the bytes themselves. */
import { BLOCK_SIZE } from '../media/geometry.ts'
import { EIO, ENXIO, FsError } from './errors.ts'
import { isUnwritten } from './file-extents.ts'
import type { CachedInode } from './inode-cache.ts'
import type { Pieces } from './operations.ts'
import { now, setAtime } from './time.ts'
import type { Volume } from './volume.ts'

const HOLE = -1
export const SEEK_DATA = 3
export const SEEK_HOLE = 4

/** Relatime: an access time is renewed when it is older than the last change, or than a day. */
const ATIME_MAX_AGE_SECONDS = 24 * 3600

export function createPieces(capacity: number): Pieces {
  return { list: new Float64Array(capacity * 2), count: 0 }
}

/**
 * Fills `pieces` for [offset, offset + length) of the file. Returns the bytes they cover: short at
 * the end of the file, where the pieces are used up, or before the first poisoned byte; EIO when
 * the first byte is poisoned.
 */
export function locate(
  volume: Volume,
  inode: CachedInode,
  offset: number,
  length: number,
  pieces: Pieces,
): number {
  pieces.count = 0
  const end = Math.min(offset + length, inode.row.size)
  if (offset >= end) return 0
  const { list } = volume.inodes.extents(inode)
  const capacity = pieces.list.length / 2
  let index = volume.inodes.extents(inode).indexAt(Math.floor(offset / BLOCK_SIZE))
  let at = offset
  while (at < end && pieces.count < capacity) {
    const extent = list[index]
    const start = extent === undefined ? end : Math.min(end, extent.fileBlock * BLOCK_SIZE)
    if (at < start || extent === undefined) {
      addPiece(pieces, HOLE, start - at)
      at = start
      continue
    }
    const stop = Math.min(end, (extent.fileBlock + extent.blocks) * BLOCK_SIZE)
    index++
    if (isUnwritten(extent)) {
      addPiece(pieces, HOLE, stop - at)
      at = stop
      continue
    }
    const regionOffset = extent.block * BLOCK_SIZE + at - extent.fileBlock * BLOCK_SIZE
    const bad = volume.device.badRanges.firstIn(regionOffset, stop - at)
    if (bad === -1) {
      addPiece(pieces, regionOffset, stop - at)
      at = stop
      continue
    }
    if (bad > regionOffset) addPiece(pieces, regionOffset, bad - regionOffset)
    at += bad - regionOffset
    break
  }
  if (at === offset) throw new FsError(EIO)
  return at - offset
}

function addPiece(pieces: Pieces, regionOffset: number, length: number): void {
  const at = pieces.count * 2
  const before = pieces.list[at - 2]
  if (pieces.count > 0 && regionOffset === HOLE && before === HOLE) {
    pieces.list[at - 1]! += length
    return
  }
  pieces.list[at] = regionOffset
  pieces.list[at + 1] = length
  pieces.count++
}

export function touchAtime(volume: Volume, inode: CachedInode): void {
  if (volume.options.noatime === true || volume.options.readOnly) return
  const { row } = inode
  const behind =
    row.atime < row.mtime ||
    (row.atime === row.mtime && row.atimeNs <= row.mtimeNs) ||
    row.atime <= row.ctime
  const time = now()
  if (!behind && time.seconds - row.atime < ATIME_MAX_AGE_SECONDS) return
  // The clock of a change and of the read after it may show the same nanosecond.
  if (row.atime === time.seconds && row.atimeNs === time.nanoseconds) return
  if (row.atime === time.seconds && row.atime > row.mtime && row.atime >= row.ctime) return
  setAtime(row, time)
  volume.dirtyTimes(inode)
}

/** lseek with SEEK_DATA or SEEK_HOLE: unwritten extents are holes, the end of the file is one. */
export function seek(volume: Volume, inode: CachedInode, offset: number, whence: number): number {
  const { size } = inode.row
  if (offset < 0 || offset >= size) throw new FsError(ENXIO)
  const extents = volume.inodes.extents(inode)
  let index = extents.indexAt(Math.floor(offset / BLOCK_SIZE))
  let at = offset
  for (;;) {
    const extent = extents.list[index++]
    const start = extent === undefined ? size : extent.fileBlock * BLOCK_SIZE
    if (extent === undefined || start >= size) break
    if (isUnwritten(extent)) continue
    if (whence === SEEK_DATA) return Math.max(at, start)
    if (start > at) return at
    at = Math.max(at, (extent.fileBlock + extent.blocks) * BLOCK_SIZE)
    if (at >= size) return size
  }
  if (whence === SEEK_DATA) throw new FsError(ENXIO)
  return Math.min(at, size)
}
