/**
 * Writing: in place where blocks hold data, through a transaction where the file's shape changes.
 */
import { BLOCK_SIZE } from '../media/geometry.ts'
import { EFBIG, EIO, ENOSPC, FsError } from './errors.ts'
import {
  addExtent,
  allocateBlocks,
  clearBeyondEnd,
  markWritten,
  removeBlocks,
  zeroBytes,
} from './file-blocks.ts'
import { type Extent, isUnwritten } from './file-extents.ts'
import type { CachedInode } from './inode-cache.ts'
import { now, setModified } from './time.ts'
import type { Transaction } from './transaction.ts'
import type { Volume } from './volume.ts'

/** Offsets stay safe integers, and file blocks fit SQLite's. */
export const FILE_SIZE_MAX = 2 ** 52

/** Where the bytes of a write come from. */
interface Source {
  readonly bytes: Uint8Array
  readonly at: number
}

/** Writes `length` bytes at `offset`; returns how many were written (short when space ran out). */
export function write(
  volume: Volume,
  inode: CachedInode,
  offset: number,
  source: Uint8Array,
  sourceOffset: number,
  length: number,
): number {
  if (length === 0) return 0
  if (offset + length > FILE_SIZE_MAX) throw new FsError(EFBIG)
  if (overwrite(volume, inode, offset, source, sourceOffset, length)) return length
  clearBeyondEnd(volume, inode, offset)
  const from = { bytes: source, at: sourceOffset }
  return volume.withSpace(() =>
    volume.transact((transaction) => extend(volume, transaction, inode, offset, from, length)),
  )
}

/**
 * The common case: every block is there, holds data and is healthy, and the file does not grow. A
 * store into memory and new times; no record. Returns false when it is not that case.
 */
function overwrite(
  volume: Volume,
  inode: CachedInode,
  offset: number,
  source: Uint8Array,
  sourceOffset: number,
  length: number,
): boolean {
  const end = offset + length
  if (end > inode.row.size) return false
  const extents = volume.inodes.extents(inode)
  const first = extents.indexAt(Math.floor(offset / BLOCK_SIZE))
  if (!isOverwritable(volume, extents.list, first, offset, end)) return false
  for (let index = first, at = offset; at < end; index++) {
    const extent = extents.list[index]!
    const stop = Math.min(end, (extent.fileBlock + extent.blocks) * BLOCK_SIZE)
    const regionOffset = extent.block * BLOCK_SIZE + at - extent.fileBlock * BLOCK_SIZE
    volume.memory.write(regionOffset, source, sourceOffset + at - offset, stop - at)
    at = stop
  }
  setModified(inode.row, now())
  volume.dataDirty = true
  volume.dirtyTimes(inode)
  return true
}

function isOverwritable(
  volume: Volume,
  list: readonly Extent[],
  first: number,
  offset: number,
  end: number,
): boolean {
  for (let index = first, at = offset; at < end; index++) {
    const extent = list[index]
    if (extent === undefined || isUnwritten(extent)) return false
    const start = extent.fileBlock * BLOCK_SIZE
    if (start > at) return false
    const stop = Math.min(end, start + extent.blocks * BLOCK_SIZE)
    const regionOffset = extent.block * BLOCK_SIZE + at - start
    if (volume.device.badRanges.firstIn(regionOffset, stop - at) !== -1) return false
    at = stop
  }
  return true
}

function extend(
  volume: Volume,
  transaction: Transaction,
  inode: CachedInode,
  offset: number,
  source: Source,
  length: number,
): number {
  if (offset > inode.row.size) zeroBytes(volume, transaction, inode, inode.row.size, offset)
  const end = offset + length
  let at = offset
  while (at < end) {
    const from = { bytes: source.bytes, at: source.at + at - offset }
    const written = writePiece(volume, transaction, inode, at, from, end - at)
    if (written === 0) break
    at += written
  }
  if (at === offset) throw new FsError(ENOSPC)
  if (at > inode.row.size) inode.row.size = at
  setModified(inode.row, now())
  transaction.touch(inode)
  return at - offset
}

/** Writes from `at` to the end of the extent or hole it is in; 0 when there is no space. */
function writePiece(
  volume: Volume,
  transaction: Transaction,
  inode: CachedInode,
  at: number,
  source: Source,
  length: number,
): number {
  const fileBlock = Math.floor(at / BLOCK_SIZE)
  const extents = volume.inodes.extents(inode)
  const next = extents.list[extents.indexAt(fileBlock)]
  if (next === undefined || next.fileBlock > fileBlock) {
    const lastBlock = Math.ceil((at + length) / BLOCK_SIZE)
    const hole = Math.min(lastBlock, next === undefined ? lastBlock : next.fileBlock) - fileBlock
    return fillHole(volume, transaction, inode, fileBlock, hole, at, source, length)
  }
  const stop = Math.min(at + length, (next.fileBlock + next.blocks) * BLOCK_SIZE)
  const regionOffset = next.block * BLOCK_SIZE + at - next.fileBlock * BLOCK_SIZE
  const bad = volume.device.badRanges.firstIn(regionOffset, stop - at)
  if (bad !== -1) {
    const healthy = bad - regionOffset
    if (healthy > 0) return writePiece(volume, transaction, inode, at, source, healthy)
    return heal(volume, transaction, inode, at, source, stop - at)
  }
  if (isUnwritten(next)) {
    return fillUnwritten(volume, transaction, inode, next, at, source, stop - at)
  }
  volume.memory.write(regionOffset, source.bytes, source.at, stop - at)
  volume.dataDirty = true
  return stop - at
}

/**
 * Stores the bytes [at, at + length) into blocks that nobody can see yet, and zeros around them up
 * to block boundaries. `regionBlock` is where file block `fileBlock` lies.
 */
function fillBlocks(
  volume: Volume,
  regionBlock: number,
  fileBlock: number,
  at: number,
  source: Source,
  length: number,
): void {
  const base = regionBlock * BLOCK_SIZE - fileBlock * BLOCK_SIZE
  const head = at - Math.floor(at / BLOCK_SIZE) * BLOCK_SIZE
  const end = at + length
  const tail = Math.ceil(end / BLOCK_SIZE) * BLOCK_SIZE - end
  if (head > 0) volume.memory.zero(base + at - head, head)
  volume.memory.write(base + at, source.bytes, source.at, length)
  if (tail > 0) volume.memory.zero(base + end, tail)
  volume.dataDirty = true
}

function fillHole(
  volume: Volume,
  transaction: Transaction,
  inode: CachedInode,
  fileBlock: number,
  blocks: number,
  at: number,
  source: Source,
  length: number,
): number {
  const extent = allocateBlocks(volume, transaction, inode, fileBlock, blocks)
  if (extent === undefined) return 0
  const bytes = Math.min(length, (extent.fileBlock + extent.blocks) * BLOCK_SIZE - at)
  fillBlocks(volume, extent.block, extent.fileBlock, at, source, bytes)
  addExtent(volume, transaction, inode, extent)
  return bytes
}

function fillUnwritten(
  volume: Volume,
  transaction: Transaction,
  inode: CachedInode,
  extent: Extent,
  at: number,
  source: Source,
  length: number,
): number {
  fillBlocks(volume, extent.block, extent.fileBlock, at, source, length)
  const first = Math.floor(at / BLOCK_SIZE)
  const blocks = Math.ceil((at + length) / BLOCK_SIZE) - first
  markWritten(volume, transaction, inode, extent, first, blocks)
  return length
}

/**
 * Overwriting whole poisoned blocks moves the file onto new ones; the bad blocks stay quarantined.
 * A write that would need the old bytes of a poisoned block is EIO.
 */
function heal(
  volume: Volume,
  transaction: Transaction,
  inode: CachedInode,
  at: number,
  source: Source,
  length: number,
): number {
  const fileBlock = Math.floor(at / BLOCK_SIZE)
  const atBlockStart = at % BLOCK_SIZE === 0
  const coversBlock = length >= BLOCK_SIZE || at + length >= inode.row.size
  if (!atBlockStart || !coversBlock) throw new FsError(EIO)
  // Before the bad block is given up: a hole in its place would read as zeros.
  const extent = allocateBlocks(volume, transaction, inode, fileBlock, 1)
  if (extent === undefined) return 0
  removeBlocks(volume, transaction, inode, fileBlock, 1)
  const bytes = Math.min(length, BLOCK_SIZE)
  fillBlocks(volume, extent.block, fileBlock, at, source, bytes)
  addExtent(volume, transaction, inode, extent)
  return bytes
}
