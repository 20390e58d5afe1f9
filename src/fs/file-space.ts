/** The shape of a file: truncate, fallocate, copy_file_range. */
import { JournalFullError } from '../journal/errors.ts'
import { BLOCK_SIZE } from '../media/geometry.ts'
import { EFBIG, EINVAL, EIO, ENOSPC, EOPNOTSUPP, FsError, isNoSpace } from './errors.ts'
import {
  clearBeyondEnd,
  freeHoles,
  holesOf,
  preallocate,
  removeBlocks,
  zeroBytes,
} from './file-blocks.ts'
import { createPieces, locate } from './file-read.ts'
import { FILE_SIZE_MAX, write } from './file-write.ts'
import type { CachedInode } from './inode-cache.ts'
import { now, setModified } from './time.ts'
import type { Transaction } from './transaction.ts'
import type { Volume } from './volume.ts'

/** fallocate modes, as in <linux/falloc.h>. */
export const FALLOC_FL_KEEP_SIZE = 0x01
export const FALLOC_FL_PUNCH_HOLE = 0x02
export const FALLOC_FL_ZERO_RANGE = 0x10

/** Bytes copied in one transaction. */
export const COPY_PIECE = 1024 * 1024

/**
 * Sets the size within the caller's transaction. What was allocated beyond the end stays when a
 * file grows, and goes otherwise: what fits one transaction here, the rest with freeBeyondEnd(). A
 * crash in between leaves blocks past the end, which is harmless: bytes past the end are undefined
 * and zeroed before they can be seen.
 */
export function resize(
  volume: Volume,
  transaction: Transaction,
  inode: CachedInode,
  size: number,
): void {
  if (size > FILE_SIZE_MAX) throw new FsError(EFBIG)
  if (size > inode.row.size) {
    zeroBytes(volume, transaction, inode, inode.row.size, size)
  } else {
    const firstBlock = Math.ceil(size / BLOCK_SIZE)
    removeBlocks(volume, transaction, inode, firstBlock, Number.MAX_SAFE_INTEGER - firstBlock)
  }
  inode.row.size = size
  setModified(inode.row, now())
  transaction.touch(inode)
}

/**
 * Frees the blocks after the end of the file, a bounded piece per transaction. Those that find no
 * room for their record stay, as after a crash: the size is what was asked for.
 */
export function freeBeyondEnd(volume: Volume, inode: CachedInode): void {
  try {
    freeAllBeyondEnd(volume, inode)
  } catch (error) {
    if (!isNoSpace(error)) throw error
  }
}

function freeAllBeyondEnd(volume: Volume, inode: CachedInode): void {
  const firstBlock = Math.ceil(inode.row.size / BLOCK_SIZE)
  // Asked for anew each time: a transaction that was undone has read them again.
  while (volume.inodes.extents(inode).end > firstBlock) {
    volume.transact((transaction) => {
      removeBlocks(volume, transaction, inode, firstBlock, Number.MAX_SAFE_INTEGER - firstBlock)
    }, true)
  }
}

export function fallocate(
  volume: Volume,
  inode: CachedInode,
  mode: number,
  offset: number,
  length: number,
): void {
  if (offset < 0 || length <= 0) throw new FsError(EINVAL)
  if (offset + length > FILE_SIZE_MAX) throw new FsError(EFBIG)
  const keepSize = (mode & FALLOC_FL_KEEP_SIZE) !== 0
  switch (mode & ~FALLOC_FL_KEEP_SIZE) {
    case 0:
      reserve(volume, inode, offset, length, keepSize)
      break
    case FALLOC_FL_PUNCH_HOLE:
      if (!keepSize) throw new FsError(EOPNOTSUPP)
      punch(volume, inode, offset, offset + length)
      break
    case FALLOC_FL_ZERO_RANGE:
      punch(volume, inode, offset, offset + length)
      reserve(volume, inode, offset, length, keepSize)
      break
    default:
      throw new FsError(EOPNOTSUPP)
  }
}

/** Holes of the range become unwritten extents. All or nothing: ENOSPC gives back what it took. */
function reserve(
  volume: Volume,
  inode: CachedInode,
  offset: number,
  length: number,
  keepSize: boolean,
): void {
  const end = offset + length
  const first = Math.floor(offset / BLOCK_SIZE)
  const last = Math.ceil(end / BLOCK_SIZE)
  const grows = !keepSize && end > inode.row.size
  const complete = (transaction: Transaction) => {
    if (grows) zeroBytes(volume, transaction, inode, inode.row.size, end)
    if (grows) inode.row.size = end
    setModified(inode.row, now())
    transaction.touch(inode)
  }
  if (grows) clearBeyondEnd(volume, inode, end)
  volume.withSpace(() => allocateHoles(volume, inode, first, last, complete))
}

/** In one transaction, or many if there are no large pieces free; `complete` is part of the last. */
function allocateHoles(
  volume: Volume,
  inode: CachedInode,
  first: number,
  last: number,
  complete: (transaction: Transaction) => void,
): void {
  const { allocator, journal } = volume
  const holes = holesOf(volume, inode, first, last - first)
  const wanted = holes.reduce((sum, hole) => sum + hole.blocks, 0)
  if (wanted > allocator.freeBlocks) throw new FsError(ENOSPC)
  let at = first
  const allocateSome = (transaction: Transaction): number => {
    // What is taken must find room in the journal to be given back: better a checkpoint now.
    if (at > first && journal.used > journal.size / 2) throw new JournalFullError(0)
    const reached = preallocate(volume, transaction, inode, at, last - at)
    if (reached >= last) complete(transaction)
    return reached
  }
  try {
    while (at < last) at = volume.transact(allocateSome)
  } catch (error) {
    const taken = holes.filter(({ fileBlock }) => fileBlock < at)
    if (volume.shutdown === undefined) freeHoles(volume, inode, taken)
    throw error
  }
}

/** Whole blocks are given back (poisoned ones are thereby healed), partial ones zeroed. */
function punch(volume: Volume, inode: CachedInode, from: number, to: number): void {
  const firstWhole = Math.ceil(from / BLOCK_SIZE)
  // A last partial block beyond the end of the file holds nothing to keep.
  const lastWhole = to >= inode.row.size ? Math.ceil(to / BLOCK_SIZE) : Math.floor(to / BLOCK_SIZE)
  for (let done = false; !done; ) {
    volume.transact((transaction) => {
      zeroBytes(volume, transaction, inode, from, Math.min(to, firstWhole * BLOCK_SIZE))
      zeroBytes(volume, transaction, inode, Math.max(from, lastWhole * BLOCK_SIZE), to)
      const whole = lastWhole - firstWhole
      done = whole <= 0 || removeBlocks(volume, transaction, inode, firstWhole, whole)
      setModified(inode.row, now())
      transaction.touch(inode)
    }, true)
  }
}

/**
 * Copies up to `length` bytes; returns how many: short at the end of the source, or before the
 * first that cannot be copied.
 */
export function copyRange(
  volume: Volume,
  from: CachedInode,
  fromOffset: number,
  to: CachedInode,
  toOffset: number,
  length: number,
): number {
  // Its end as it is now: a copy within one file must not run after what it appends.
  const available = Math.min(length, from.row.size - fromOffset)
  const overlap =
    from === to && fromOffset < toOffset + available && toOffset < fromOffset + available
  if (overlap) throw new FsError(EINVAL)
  const buffer = new Uint8Array(Math.max(0, Math.min(COPY_PIECE, available)))
  let copied = 0
  while (copied < available) {
    const wanted = Math.min(buffer.length, available - copied)
    try {
      const count = readInto(volume, from, fromOffset + copied, buffer, 0, wanted)
      const written = write(volume, to, toOffset + copied, buffer, 0, count)
      copied += written
      if (written < count) break
    } catch (error) {
      if (copied === 0 || !(error instanceof FsError)) throw error
      break
    }
  }
  return copied
}

const copyPieces = createPieces(512)

/** Copies bytes of a file out of the region. Returns how many; EIO when the first is poisoned. */
export function readInto(
  volume: Volume,
  inode: CachedInode,
  offset: number,
  target: Uint8Array,
  targetOffset: number,
  length: number,
): number {
  let done = 0
  while (done < length) {
    let covered: number
    try {
      covered = locate(volume, inode, offset + done, length - done, copyPieces)
    } catch (error) {
      if (done > 0 && error instanceof FsError && error.errno === EIO) return done
      throw error
    }
    if (covered === 0) break
    let at = targetOffset + done
    for (let index = 0; index < copyPieces.count; index++) {
      const regionOffset = copyPieces.list[index * 2]!
      const bytes = copyPieces.list[index * 2 + 1]!
      if (regionOffset < 0) target.fill(0, at, at + bytes)
      else volume.memory.read(regionOffset, target, at, bytes)
      at += bytes
    }
    done += covered
  }
  return done
}
