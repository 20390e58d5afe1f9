/**
 * One filesystem operation as a list of changes: applied to the index as they are made (so that the
 * operation sees its own effects), appended to the journal as one record when it is complete.
 */
import { badRow } from '../index/damage.ts'
import type { BlockRange } from '../index/free-space.ts'
import type { Index } from '../index/index.ts'
import type { Claim } from '../journal/halves.ts'
import type { Change, InodeRow } from '../media/change.ts'
import { hasWholeUnit } from '../media/geometry.ts'
import { type CachedInode, timesOf } from './inode-cache.ts'

/** What a change does to the number of rows; the others leave it as it is. */
const ROWS_ADDED: Partial<Record<Change['type'], number>> = {
  putExtent: 1,
  removeExtent: -1,
  putDirent: 1,
  removeDirent: -1,
  putXattr: 1,
  removeXattr: -1,
  removeInode: -1,
}

/**
 * Changes of a record that may use the last room: files in many pieces must not use it up, unless
 * they give back what a slot can take.
 */
const SMALL = 16

export class Transaction {
  /** The sequence its record will have: names new inodes and directory entries. */
  sequence = 0
  readonly changes: Change[] = []
  /** Blocks given back; applied last, so that the operation cannot take them itself. */
  readonly freed: BlockRange[] = []
  readonly touched: CachedInode[] = []
  /** Allocated minus freed blocks. */
  blocksTaken = 0
  /** Rows that the index has more than before, or fewer: roughly what it grows by. */
  rowsAdded = 0
  /** May use the last room of the journal: what makes room for the next image. */
  essential = false
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
    this.rowsAdded = 0
    this.essential = false
  }

  /** Of a complete transaction that frees space. */
  get claim(): Claim {
    const shrinks = this.rowsAdded < 0 || (this.rowsAdded === 0 && this.blocksTaken < 0)
    const thrifty = this.changes.length <= SMALL || this.freed.some(hasWholeUnit)
    return (shrinks && thrifty) || this.essential ? 'shrinking' : 'freeing'
  }

  apply(change: Change): void {
    this.#index.apply(change)
    this.changes.push(change)
    this.rowsAdded += ROWS_ADDED[change.type] ?? 0
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
    // One row more, however many the bad blocks make of it.
    this.rowsAdded++
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
