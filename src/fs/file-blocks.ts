/**
 * Changing where a file's blocks are: every change to an extent goes to the index (through the
 * transaction) and to the file's cached extents together.
 */
import { EXTENT_UNWRITTEN } from '../media/change.ts'
import { BLOCK_SIZE } from '../media/geometry.ts'
import { ENOSPC, FsError } from './errors.ts'
import { type Extent, isUnwritten } from './file-extents.ts'
import type { CachedInode } from './inode-cache.ts'
import type { Transaction } from './transaction.ts'
import type { Volume } from './volume.ts'

/** Removals in one transaction; more work is done in several. */
const REMOVALS_MAX = 512
/** Extents added or changed in one transaction. */
const EXTENTS_MAX = 512

/** `blocks` blocks of a file from `fileBlock` on. */
export interface FileBlocks {
  readonly fileBlock: number
  readonly blocks: number
}

// INVARIANT: whoever changes cached extents has touched the inode: a rollback reads them again.

function putRow(transaction: Transaction, inode: CachedInode, extent: Extent): void {
  transaction.touch(inode)
  transaction.apply({ type: 'putExtent', extent: { ...extent, owner: inode.row.ino } })
}

function removeRow(transaction: Transaction, inode: CachedInode, extent: Extent): void {
  transaction.touch(inode)
  transaction.apply({
    type: 'removeExtent',
    block: extent.block,
    owner: inode.row.ino,
    fileBlock: extent.fileBlock,
  })
}

/** Adds an extent, joined to its left neighbour when both continue in file and region. */
export function addExtent(
  volume: Volume,
  transaction: Transaction,
  inode: CachedInode,
  extent: Extent,
): void {
  const extents = volume.inodes.extents(inode)
  const left = extents.list[extents.indexAt(extent.fileBlock) - 1]
  const joins =
    left !== undefined &&
    left.fileBlock + left.blocks === extent.fileBlock &&
    left.block + left.blocks === extent.block &&
    left.flags === extent.flags
  if (joins) {
    left.blocks += extent.blocks
    putRow(transaction, inode, left)
  } else {
    extents.insert(extent)
    putRow(transaction, inode, extent)
  }
}

/** Takes an extent's row out; its blocks stay allocated. */
function takeExtent(
  volume: Volume,
  transaction: Transaction,
  inode: CachedInode,
  extent: Extent,
): void {
  volume.inodes.extents(inode).remove(extent)
  removeRow(transaction, inode, extent)
}

/** Cuts [fileBlock, fileBlock + blocks) of `extent` out; what sticks out on either side stays. */
function cutExtent(
  volume: Volume,
  transaction: Transaction,
  inode: CachedInode,
  extent: Extent,
  fileBlock: number,
  blocks: number,
): Extent {
  const start = Math.max(fileBlock, extent.fileBlock)
  const end = Math.min(fileBlock + blocks, extent.fileBlock + extent.blocks)
  const { flags } = extent
  const cut = {
    fileBlock: start,
    block: extent.block + start - extent.fileBlock,
    blocks: end - start,
    flags,
  }
  const before = start - extent.fileBlock
  const after = extent.fileBlock + extent.blocks - end
  takeExtent(volume, transaction, inode, extent)
  const extents = volume.inodes.extents(inode)
  if (before > 0) {
    const head = { fileBlock: extent.fileBlock, block: extent.block, blocks: before, flags }
    extents.insert(head)
    putRow(transaction, inode, head)
  }
  if (after > 0) {
    const tail = { fileBlock: end, block: cut.block + cut.blocks, blocks: after, flags }
    extents.insert(tail)
    putRow(transaction, inode, tail)
  }
  return cut
}

/**
 * Frees up to REMOVALS_MAX extents' worth of [fileBlock, ∞ or fileBlock + blocks), from the end.
 * Returns true when nothing of the range is left.
 */
export function removeBlocks(
  volume: Volume,
  transaction: Transaction,
  inode: CachedInode,
  fileBlock: number,
  blocks: number,
): boolean {
  const extents = volume.inodes.extents(inode)
  const affected = extents.overlapping(fileBlock, blocks)
  for (const extent of affected.slice(-REMOVALS_MAX)) {
    const cut = cutExtent(volume, transaction, inode, extent, fileBlock, blocks)
    transaction.free(cut.block, cut.blocks)
    inode.row.blocks -= cut.blocks
  }
  transaction.touch(inode)
  return affected.length <= REMOVALS_MAX
}

/** Region block after which the blocks of `fileBlock` would continue the file. */
function goalFor(volume: Volume, inode: CachedInode, fileBlock: number): number | undefined {
  const extents = volume.inodes.extents(inode)
  const left = extents.list[extents.indexAt(fileBlock) - 1]
  return left === undefined
    ? undefined
    : left.block + left.blocks + (fileBlock - (left.fileBlock + left.blocks))
}

/**
 * Allocates blocks for the hole at `fileBlock`, up to `blocks` of them. The extent is returned, not
 * yet added: the caller fills the blocks first. Undefined when the region is full.
 */
export function allocateBlocks(
  volume: Volume,
  transaction: Transaction,
  inode: CachedInode,
  fileBlock: number,
  blocks: number,
): Extent | undefined {
  const goal = goalFor(volume, inode, fileBlock)
  const range = volume.allocator.choose(inode, goal, blocks, transaction.sequence)
  if (range === undefined) return undefined
  transaction.allocate(range)
  inode.row.blocks += range.blocks
  transaction.touch(inode)
  return { fileBlock, block: range.block, blocks: range.blocks, flags: 0 }
}

/** Marks part of an unwritten extent as holding data. */
export function markWritten(
  volume: Volume,
  transaction: Transaction,
  inode: CachedInode,
  extent: Extent,
  fileBlock: number,
  blocks: number,
): void {
  const cut = cutExtent(volume, transaction, inode, extent, fileBlock, blocks)
  addExtent(volume, transaction, inode, { ...cut, flags: cut.flags & ~EXTENT_UNWRITTEN })
}

/**
 * Marks written parts of a range as reading zeros, without touching the memory: `most` extents of
 * them. Returns true when nothing of the range is written any more.
 */
function markUnwritten(
  volume: Volume,
  transaction: Transaction,
  inode: CachedInode,
  fileBlock: number,
  blocks: number,
  most = Number.POSITIVE_INFINITY,
): boolean {
  const extents = volume.inodes.extents(inode)
  const written = extents.overlapping(fileBlock, blocks).filter((extent) => !isUnwritten(extent))
  for (const extent of written.slice(0, most)) {
    const cut = cutExtent(volume, transaction, inode, extent, fileBlock, blocks)
    addExtent(volume, transaction, inode, { ...cut, flags: cut.flags | EXTENT_UNWRITTEN })
  }
  return written.length <= most
}

/** The holes in [fileBlock, fileBlock + blocks). */
export function holesOf(
  volume: Volume,
  inode: CachedInode,
  fileBlock: number,
  blocks: number,
): FileBlocks[] {
  const holes: FileBlocks[] = []
  const end = fileBlock + blocks
  let at = fileBlock
  for (const extent of volume.inodes.extents(inode).overlapping(fileBlock, blocks)) {
    if (extent.fileBlock > at) holes.push({ fileBlock: at, blocks: extent.fileBlock - at })
    at = extent.fileBlock + extent.blocks
  }
  if (at < end) holes.push({ fileBlock: at, blocks: end - at })
  return holes
}

/**
 * Allocates holes from the front of the range as unwritten, EXTENTS_MAX extents at most. Returns
 * the file block it came to. ENOSPC: this transaction has to be undone.
 */
export function preallocate(
  volume: Volume,
  transaction: Transaction,
  inode: CachedInode,
  fileBlock: number,
  blocks: number,
): number {
  const end = fileBlock + blocks
  let at = fileBlock
  for (let added = 0; at < end && added < EXTENTS_MAX; ) {
    const extents = volume.inodes.extents(inode)
    const next = extents.list[extents.indexAt(at)]
    if (next !== undefined && next.fileBlock <= at) {
      at = next.fileBlock + next.blocks
      continue
    }
    const hole = Math.min(end, next === undefined ? end : next.fileBlock) - at
    const extent = allocateBlocks(volume, transaction, inode, at, hole)
    if (extent === undefined) throw new FsError(ENOSPC)
    addExtent(volume, transaction, inode, { ...extent, flags: EXTENT_UNWRITTEN })
    at += extent.blocks
    added++
  }
  return at
}

/** Frees what was allocated in these holes, in transactions of bounded size. */
export function freeHoles(volume: Volume, inode: CachedInode, holes: readonly FileBlocks[]): void {
  for (let at = 0; at < holes.length; ) {
    at = volume.transact((transaction) => {
      let next = at
      while (next < holes.length && transaction.changes.length < REMOVALS_MAX) {
        const { fileBlock, blocks } = holes[next]!
        if (!removeBlocks(volume, transaction, inode, fileBlock, blocks)) break
        next++
      }
      return next
    }, true)
  }
}

/**
 * Before the file grows to `size`: what a truncate that was cut off left behind its end may be more
 * extents than one transaction marks unwritten.
 */
export function clearBeyondEnd(volume: Volume, inode: CachedInode, size: number): void {
  if (size <= inode.row.size || volume.inodes.extents(inode).list.length <= EXTENTS_MAX) return
  const first = Math.ceil(inode.row.size / BLOCK_SIZE)
  const blocks = Math.ceil(size / BLOCK_SIZE) - first
  if (blocks <= 0) return
  const clearSome = (transaction: Transaction): boolean =>
    markUnwritten(volume, transaction, inode, first, blocks, EXTENTS_MAX)
  while (!volume.withSpace(() => volume.transact(clearSome))) {}
}

/**
 * Zeroes the bytes [from, to) of the file where blocks hold data: partial blocks by storing zeros,
 * whole blocks by marking them unwritten. Holes are zeros already.
 */
export function zeroBytes(
  volume: Volume,
  transaction: Transaction,
  inode: CachedInode,
  from: number,
  to: number,
): void {
  if (from >= to) return
  const firstWhole = Math.ceil(from / BLOCK_SIZE)
  const lastWhole = Math.floor(to / BLOCK_SIZE)
  if (firstWhole <= lastWhole) {
    storeZeros(volume, inode, from, firstWhole * BLOCK_SIZE)
    storeZeros(volume, inode, lastWhole * BLOCK_SIZE, to)
    if (firstWhole < lastWhole) {
      markUnwritten(volume, transaction, inode, firstWhole, lastWhole - firstWhole)
    }
  } else {
    storeZeros(volume, inode, from, to)
  }
}

/** [from, to) lies in one block. */
function storeZeros(volume: Volume, inode: CachedInode, from: number, to: number): void {
  if (from >= to) return
  const fileBlock = Math.floor(from / BLOCK_SIZE)
  const extent = volume.inodes.extents(inode).at(fileBlock)
  if (extent === undefined || isUnwritten(extent)) return
  const block = extent.block + fileBlock - extent.fileBlock
  // A poisoned block cannot be zeroed; it reads EIO, not stale bytes.
  if (volume.device.badRanges.overlaps(block * BLOCK_SIZE, BLOCK_SIZE)) return
  volume.memory.zero(block * BLOCK_SIZE + (from % BLOCK_SIZE), to - from)
  volume.dataDirty = true
}
