/**
 * The changes a transaction is made of: row-level redo. One type, two users: the journal codec
 * (this folder) and the index, which applies a change the same way live and in replay.
 */

/** Owners of blocks below zero are metadata, as in the XFS rmap. */
export const OWNER_SUPERBLOCK = -1
export const OWNER_JOURNAL = -2
export const OWNER_CHECKPOINT = -3

/** Extent flags. */
export const EXTENT_UNWRITTEN = 1

/** Inode flags: which extended attributes an operation must look at, so that most need not look. */
export const INODE_DEFAULT_ACL = 1
export const INODE_ACCESS_ACL = 2
export const INODE_CAPABILITY = 4

/** A row of the inode table. Times are seconds and nanoseconds; `blocks` counts 4 KiB blocks. */
export interface InodeRow {
  ino: number
  mode: number
  uid: number
  gid: number
  nlink: number
  rdev: number
  flags: number
  size: number
  blocks: number
  /** Directories: the parent's inode number ('..'). Others: 0. */
  parent: number
  atime: number
  atimeNs: number
  mtime: number
  mtimeNs: number
  ctime: number
  ctimeNs: number
  btime: number
  btimeNs: number
  /** Symbolic links: the target bytes. Others: null. */
  target: Uint8Array | null
}

/** A row of rmap: `blocks` blocks at `block` are blocks [fileBlock, …) of `owner`. */
export interface ExtentRow {
  block: number
  blocks: number
  owner: number
  fileBlock: number
  flags: number
}

export type Change =
  | { readonly type: 'putInode'; readonly inode: InodeRow }
  | { readonly type: 'removeInode'; readonly ino: number }
  | {
      readonly type: 'putDirent'
      readonly parent: number
      readonly name: Uint8Array
      readonly cookie: number
      readonly ino: number
      /** File type bits of the mode, shifted down: S_IFMT >> 12 (DT_*). */
      readonly kind: number
    }
  | { readonly type: 'removeDirent'; readonly parent: number; readonly name: Uint8Array }
  | {
      readonly type: 'putXattr'
      readonly ino: number
      readonly name: Uint8Array
      readonly value: Uint8Array
    }
  | { readonly type: 'removeXattr'; readonly ino: number; readonly name: Uint8Array }
  /** Inserts the row, or replaces the one with the same (block, owner, fileBlock). */
  | { readonly type: 'putExtent'; readonly extent: ExtentRow }
  | {
      readonly type: 'removeExtent'
      readonly block: number
      readonly owner: number
      readonly fileBlock: number
    }
  /** Takes a range out of the free table / gives it back. */
  | { readonly type: 'allocate'; readonly block: number; readonly blocks: number }
  | { readonly type: 'free'; readonly block: number; readonly blocks: number }
  | { readonly type: 'putPoison'; readonly block: number; readonly blocks: number }
  | { readonly type: 'removePoison'; readonly block: number; readonly blocks: number }
