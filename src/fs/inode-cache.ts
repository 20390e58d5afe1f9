/** Inodes in use, as JavaScript objects in front of the inode table. */
import { badRow } from '../index/damage.ts'
import type { Index } from '../index/index.ts'
import type { ExtentRow, InodeRow } from '../media/change.ts'
import type { Geometry } from '../media/geometry.ts'
import { EIO, FsError } from './errors.ts'
import { FileExtents } from './file-extents.ts'

/** Inodes a generation grows by, beyond the pinned ones; two generations live at a time. */
const GENERATION = 8192

type Times = Pick<InodeRow, 'atime' | 'atimeNs' | 'mtime' | 'mtimeNs' | 'ctime' | 'ctimeNs'>

export class CachedInode {
  readonly row: InodeRow
  extents: FileExtents | undefined
  /** Times newer than the inode table's: written with the next record, at fsync, at commit. */
  timesDirty = false
  /** Those times, as they were when the running transaction touched the inode. */
  lazyTimes: Times | undefined
  /** In the running transaction's list of inodes to put. */
  touched = false
  /** Of a directory: the largest cookie when its last listing began, where that one ends. */
  lastCookie = Number.MAX_SAFE_INTEGER
  /** Blocks set aside for this file while it grows; see Allocator. */
  window: { block: number; blocks: number } | undefined

  constructor(row: InodeRow) {
    this.row = row
  }
}

export function timesOf({ atime, atimeNs, mtime, mtimeNs, ctime, ctimeNs }: InodeRow): Times {
  return { atime, atimeNs, mtime, mtimeNs, ctime, ctimeNs }
}

/**
 * A generational cache: what is used moves to the young map; when that is full, the old one is
 * dropped but for pinned inodes. INVARIANT: an inode is one object while any operation runs, for
 * nothing is dropped before the operation is over, however many inodes it asks for.
 */
export class InodeCache {
  #young = new Map<number, CachedInode>()
  #old = new Map<number, CachedInode>()
  /** The young map is full beyond it: pinned inodes alone never fill one. */
  #limit = GENERATION
  #turning = false
  readonly #index: Index
  readonly #geometry: Geometry
  readonly #isPinned: (ino: number) => boolean

  constructor(index: Index, geometry: Geometry, isPinned: (ino: number) => boolean) {
    this.#index = index
    this.#geometry = geometry
    this.#isPinned = isPinned
  }

  /** The inode, or undefined when the table has none. */
  find(ino: number): CachedInode | undefined {
    const young = this.#young.get(ino)
    if (young !== undefined) return young
    const old = this.#old.get(ino)
    if (old !== undefined) return this.#keep(old)
    const row = this.#index.inodes.get(ino)
    if (row === undefined) return undefined
    return this.#keep(new CachedInode(row))
  }

  /** Its nlink. What is not in here stays out: a million are asked for at an unmount. */
  links(ino: number): number | undefined {
    const inode = this.#young.get(ino) ?? this.#old.get(ino)
    return inode?.row.nlink ?? this.#index.inodes.links(ino)
  }

  add(row: InodeRow): CachedInode {
    return this.#keep(new CachedInode(row))
  }

  drop(ino: number): void {
    this.#young.delete(ino)
    this.#old.delete(ino)
  }

  /** Reads the row again after a rolled-back transaction. */
  reload(inode: CachedInode): void {
    inode.touched = false
    inode.extents = undefined
    const row = this.#index.inodes.get(inode.row.ino)
    if (row === undefined) this.drop(inode.row.ino)
    else Object.assign(inode.row, row, inode.lazyTimes)
    inode.timesDirty ||= row !== undefined && inode.lazyTimes !== undefined
    inode.lazyTimes = undefined
  }

  extents(inode: CachedInode): FileExtents {
    if (inode.extents === undefined) {
      const rows = this.#index.rmap.ofOwner(inode.row.ino)
      requireExtents(rows, this.#geometry)
      inode.extents = new FileExtents(rows)
    }
    return inode.extents
  }

  *withDirtyTimes(): IterableIterator<CachedInode> {
    for (const inode of this.#young.values()) if (inode.timesDirty) yield inode
    for (const inode of this.#old.values()) if (inode.timesDirty) yield inode
  }

  #keep(inode: CachedInode): CachedInode {
    const { ino } = inode.row
    this.#old.delete(ino)
    this.#young.set(ino, inode)
    if (this.#young.size > this.#limit) this.#turnSoon()
    return inode
  }

  /** Operations are synchronous: when a microtask runs, none does. */
  #turnSoon(): void {
    if (this.#turning) return
    this.#turning = true
    queueMicrotask(() => this.#turn())
  }

  #turn(): void {
    this.#turning = false
    const previous = this.#old
    this.#old = this.#young
    this.#young = new Map()
    for (const inode of previous.values()) {
      const pinned = inode.timesDirty || inode.touched || this.#isPinned(inode.row.ino)
      if (pinned) this.#young.set(inode.row.ino, inode)
    }
    this.#limit = this.#young.size + GENERATION
  }
}

/** A region is untrusted: what is read and written through extents must be file data. */
function requireExtents(rows: readonly ExtentRow[], geometry: Geometry): void {
  let end = 0
  for (const { block, blocks, owner, fileBlock } of rows) {
    const inside = block >= geometry.dataStartBlock && block + blocks <= geometry.dataEndBlock
    if (inside && fileBlock >= end) end = fileBlock + blocks
    else badRow('an extent of inode', String(owner), `blocks ${block}+${blocks} at ${fileBlock}`)
  }
}

/** The inode must be there: a dirent or a handle names it. */
export function mustFind(cache: InodeCache, ino: number): CachedInode {
  const inode = cache.find(ino)
  if (inode === undefined) throw new FsError(EIO, `inode ${ino} is not in the index`)
  return inode
}
