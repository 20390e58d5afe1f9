/**
 * One filesystem operation as a list of changes: applied to the index as they are made (so that the
 * operation sees its own effects), appended to the journal as one record when it is complete.
 */
import { badRow } from '../index/damage.ts'
import type { BlockRange } from '../index/free-space.ts'
import type { Index } from '../index/index.ts'
import type { Change, InodeRow } from '../media/change.ts'
import { type CachedInode, timesOf } from './inode-cache.ts'

export class Transaction {
  /** The sequence its record will have: names new inodes and directory entries. */
  sequence = 0
  readonly changes: Change[] = []
  /** Blocks given back; applied last, so that the operation cannot take them itself. */
  readonly freed: BlockRange[] = []
  readonly touched: CachedInode[] = []
  /** Allocated minus freed blocks. */
  blocksTaken = 0
  readonly #index: Index

  constructor(index: Index) {
    this.#index = index
  }

  reset(sequence: number): void {
    this.sequence = sequence
    this.changes.length = 0
    this.freed.length = 0
    this.touched.length = 0
    this.blocksTaken = 0
  }

  apply(change: Change): void {
    this.#index.apply(change)
    this.changes.push(change)
  }

  /** The inode's row is written once, when the operation is complete. */
  touch(inode: CachedInode): void {
    if (inode.touched) return
    inode.touched = true
    inode.lazyTimes = inode.timesDirty ? timesOf(inode.row) : undefined
    this.touched.push(inode)
  }

  allocate(range: BlockRange): void {
    this.apply({ type: 'allocate', block: range.block, blocks: range.blocks })
    this.blocksTaken += range.blocks
  }

  /** Gives healthy blocks back; poisoned parts stay out of the free table (quarantine). */
  free(block: number, blocks: number): void {
    let at = block
    for (const bad of this.#index.poison.overlapping(block, blocks)) {
      if (bad.block > at) this.freed.push({ block: at, blocks: bad.block - at })
      at = Math.max(at, bad.block + bad.blocks)
    }
    if (at < block + blocks) this.freed.push({ block: at, blocks: block + blocks - at })
  }

  /** Completes the list: puts the touched inodes, gives the freed blocks back. */
  finish(): void {
    for (const inode of this.touched) {
      inode.touched = false
      inode.timesDirty = false
      requireCounts(inode.row)
      this.apply({ type: 'putInode', inode: inode.row })
    }
    for (const range of this.freed) {
      this.apply({ type: 'free', block: range.block, blocks: range.blocks })
      this.blocksTaken -= range.blocks
    }
  }
}

const LINKS_MAX = 2 ** 32 - 1

/** A region is untrusted: counts that were wrong from the start show here, when they run out. */
function requireCounts({ ino, nlink, blocks }: InodeRow): void {
  if (nlink >= 0 && nlink <= LINKS_MAX && blocks >= 0) return
  badRow('inode', String(ino), `${nlink} links and ${blocks} blocks`)
}
