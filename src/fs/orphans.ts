/**
 * Inodes that lost their last name. They live until the last handle and the last kernel reference
 * are gone; then their blocks are freed, many inodes to a record. After a crash the mount finds
 * them by nlink 0.
 */

import { hasWholeUnit } from '../media/geometry.ts'
import { isNoSpace } from './errors.ts'
import { removeBlocks } from './file-blocks.ts'
import type { CachedInode } from './inode-cache.ts'
import { isRegular } from './modes.ts'
import type { Transaction } from './transaction.ts'
import type { Volume } from './volume.ts'

/** Inodes freed by one record ... */
const BATCH = 64
/** ... if they have no more extents and names of attributes: 280 KiB, with the longest names. */
const PARTS = 16
/** Names in one record of an inode that has more: 140 KiB. The smallest journal takes 512. */
const NAMES = 512

export class Orphans {
  readonly #volume: Volume
  readonly #queue = new Set<number>()
  #scheduled = false

  constructor(volume: Volume) {
    this.#volume = volume
    // What came up for freeing before or during a freeze still waits in the queue.
    volume.subscribe(({ event }) => {
      if (event === 'thaw') this.#schedule()
    })
  }

  /** The inode may be ready to be freed: it lost a name, a handle or a kernel reference. */
  consider(ino: number): void {
    const volume = this.#volume
    if (!this.#mayFree) return
    if (volume.lookups.has(ino) || volume.handles.isOpen(ino)) return
    const inode = volume.inodes.find(ino)
    if (inode === undefined || inode.row.nlink > 0) return
    this.#queue.add(ino)
    this.#schedule()
  }

  /** The kernel forgot it, with a million others perhaps: nearly all of them have a name. */
  forgotten(ino: number): void {
    if (this.#mayFree && this.#volume.inodes.links(ino) === 0) this.consider(ino)
  }

  get #mayFree(): boolean {
    const { options, shutdown } = this.#volume
    return !options.readOnly && shutdown === undefined
  }

  /** Every inode without a name, whoever held it: for unmount, when nobody does any more. */
  considerAll(): void {
    for (const ino of this.#volume.index.inodes.orphans()) this.consider(ino)
  }

  /** Frees everything that waits; false when nothing did. */
  reap(): boolean {
    const volume = this.#volume
    if (this.#queue.size === 0 || volume.shutdown !== undefined) return false
    const inodes = [...this.#queue]
      .map((ino) => volume.inodes.find(ino))
      .filter((inode) => inode !== undefined && this.#isDead(inode)) as CachedInode[]
    this.#queue.clear()
    const left = new Set(inodes)
    try {
      this.#freeInBatches(left)
    } catch (error) {
      if (!isNoSpace(error)) throw error
      // One extent may make room for a checkpoint, and so for all the rest.
      if (this.#freeUnit(left)) this.#freeInBatches(left)
      else if (!this.#freeSmallest(left)) throw error
    } finally {
      // There may be room for the record later.
      for (const inode of left) this.#queue.add(inode.row.ino)
    }
    return true
  }

  #freeInBatches(left: Set<CachedInode>): void {
    const inodes = [...left]
    for (let at = 0; at < inodes.length; at += BATCH) {
      const batch = inodes.slice(at, at + BATCH)
      this.#free(batch)
      for (const inode of batch) left.delete(inode)
    }
  }

  /** One extent that has a whole unit in it; false when there is none. */
  #freeUnit(left: Iterable<CachedInode>): boolean {
    const volume = this.#volume
    for (const inode of left) {
      if (!isRegular(inode.row.mode)) continue
      const extent = volume.inodes.extents(inode).list.find(hasWholeUnit)
      if (extent === undefined) continue
      const { fileBlock, blocks } = extent
      volume.transact((transaction) => {
        removeBlocks(volume, transaction, inode, fileBlock, blocks)
      }, true)
      return true
    }
    return false
  }

  /** Where the journal has no room for much: one by one, as long as there is any. */
  #freeSmallest(left: Set<CachedInode>): boolean {
    const sorted = [...left]
      .map((inode) => ({ inode, parts: this.#parts(inode) }))
      .sort((one, other) => one.parts - other.parts)
    const all = left.size
    try {
      for (const { inode } of sorted) {
        this.#free([inode])
        left.delete(inode)
      }
    } catch (error) {
      if (!isNoSpace(error)) throw error
    }
    return left.size < all
  }

  #isDead(inode: CachedInode): boolean {
    const { ino, nlink } = inode.row
    return nlink === 0 && !this.#volume.lookups.has(ino) && !this.#volume.handles.isOpen(ino)
  }

  #schedule(): void {
    if (this.#scheduled) return
    this.#scheduled = true
    setImmediate(() => {
      this.#scheduled = false
      if (!this.#volume.frozen) this.#volume.guardQuietly(() => this.reap())
    })
  }

  #free(inodes: readonly CachedInode[]): void {
    const volume = this.#volume
    for (const inode of inodes) if (this.#parts(inode) > PARTS) this.#empty(inode)
    volume.transact((transaction) => {
      for (const inode of inodes) this.#remove(transaction, inode)
    }, true)
    for (const inode of inodes) {
      volume.inodes.drop(inode.row.ino)
      volume.inodeCount--
    }
  }

  #parts(inode: CachedInode): number {
    return this.#extentCount(inode) + this.#volume.index.xattrs.list(inode.row.ino).length
  }

  #extentCount(inode: CachedInode): number {
    return isRegular(inode.row.mode) ? this.#volume.inodes.extents(inode).list.length : 0
  }

  /** A file of many extents or attributes loses them in several records first. */
  #empty(inode: CachedInode): void {
    const volume = this.#volume
    const removeSome = (transaction: Transaction): boolean =>
      removeBlocks(volume, transaction, inode, 0, Number.MAX_SAFE_INTEGER)
    while (this.#extentCount(inode) > 0) volume.transact(removeSome, true)
    const names = volume.index.xattrs.list(inode.row.ino)
    for (let at = 0; at < names.length; at += NAMES) {
      const some = names.slice(at, at + NAMES)
      volume.transact((transaction) => removeXattrs(transaction, inode, some), true)
    }
  }

  #remove(transaction: Transaction, inode: CachedInode): void {
    const { ino } = inode.row
    const { index, inodes, allocator } = this.#volume
    allocator.releaseWindow(inode)
    if (isRegular(inode.row.mode)) {
      for (const extent of inodes.extents(inode).list) {
        const { block, blocks, fileBlock } = extent
        transaction.apply({ type: 'removeExtent', block, owner: ino, fileBlock })
        transaction.free(block, blocks)
      }
    }
    removeXattrs(transaction, inode, index.xattrs.list(ino))
    transaction.apply({ type: 'removeInode', ino })
  }
}

function removeXattrs(
  transaction: Transaction,
  { row }: CachedInode,
  names: readonly Uint8Array[],
): void {
  for (const name of names) transaction.apply({ type: 'removeXattr', ino: row.ino, name })
}
