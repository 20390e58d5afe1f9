/**
 * What a transport may ask of the filesystem. Synchronous unless it says otherwise; every method
 * throws FsError(errno). Names are bytes. Offsets and lengths are bytes.
 * MemoryFailure never leaves: the filesystem reports it to its device and throws FsError(EIO).
 */
import type { InodeRow } from '../media/change.ts'
import type { Handle } from './handles.ts'

export const ROOT_INODE = 1

/** Who asks. Permission checks are the kernel's (default_permissions); this decides ownership. */
export interface Caller {
  readonly uid: number
  readonly gid: number
  readonly pid: number
  readonly umask: number
}

/** A live, read-only view of an inode; encode it at once, it changes with the next operation. */
export type Inode = Readonly<InodeRow>

/** Fields to set; absent ones stay. Times in seconds + nanoseconds, or 'now'. */
export interface AttributeChanges {
  mode?: number
  uid?: number
  gid?: number
  size?: number
  atime?: 'now' | { seconds: number; nanoseconds: number }
  mtime?: 'now' | { seconds: number; nanoseconds: number }
  ctime?: { seconds: number; nanoseconds: number }
  /** FATTR_KILL_SUIDGID: drop suid/sgid and security.capability. */
  killPrivileges?: boolean
}

/** Where the bytes of a read are: pairs (region offset | -1 for a hole, length), in file order. */
export interface Pieces {
  readonly list: Float64Array
  count: number
}

export interface WriteOptions {
  /** FUSE_WRITE_CACHE: written back from the page cache, by whoever, through any handle. */
  readonly cached: boolean
  readonly killPrivileges: boolean
  /** O_APPEND: the offset is the end of the file, decided here. */
  readonly append: boolean
}

export interface DirectoryEntry {
  name: Uint8Array
  ino: number
  /** DT_* */
  kind: number
  /** Pass it back to continue after this entry. */
  cookie: number
}

export interface Statfs {
  blockSize: number
  blocks: number
  free: number
  available: number
  files: number
  filesFree: number
  nameMax: number
}

/** rename flags, as in <linux/fs.h>. */
export const RENAME_NOREPLACE = 1
export const RENAME_EXCHANGE = 2

export interface FilesystemOperations {
  readonly readOnly: boolean
  /** The inode, counted as one kernel reference (nlookup): every success owes one forget(). */
  lookup(parent: number, name: Uint8Array): Inode
  forget(ino: number, count: number): void
  getattr(ino: number): Inode
  setattr(ino: number, changes: AttributeChanges, caller: Caller, handle?: Handle): Inode
  readlink(ino: number): Uint8Array
  /** The makers count as a lookup of the new inode, too. */
  mknod(parent: number, name: Uint8Array, mode: number, rdev: number, caller: Caller): Inode
  mkdir(parent: number, name: Uint8Array, mode: number, caller: Caller): Inode
  symlink(parent: number, name: Uint8Array, target: Uint8Array, caller: Caller): Inode
  link(ino: number, parent: number, name: Uint8Array): Inode
  /** `inode` of the handle counts as a lookup. */
  create(parent: number, name: Uint8Array, mode: number, flags: number, caller: Caller): Handle
  tmpfile(parent: number, mode: number, flags: number, caller: Caller): Handle
  /** Returns the inode number that lost a name. */
  unlink(parent: number, name: Uint8Array): number
  rmdir(parent: number, name: Uint8Array): number
  rename(
    parent: number,
    name: Uint8Array,
    newParent: number,
    newName: Uint8Array,
    flags: number,
  ): void
  open(ino: number, flags: number, killPrivileges: boolean): Handle
  opendir(ino: number): Handle
  /** The handle of a FUSE fh; EBADF if there is none. */
  handle(id: number): Handle
  release(handle: Handle): void
  /** Fills `pieces`; returns the bytes they cover (short at end of file or before poison). */
  read(handle: Handle, offset: number, length: number, pieces: Pieces): number
  /** Copies the pieces of a read out of the region (for transports that need a buffer). */
  readInto(
    handle: Handle,
    offset: number,
    target: Uint8Array,
    targetOffset: number,
    length: number,
  ): number
  write(
    handle: Handle,
    offset: number,
    source: Uint8Array,
    sourceOffset: number,
    length: number,
    options: WriteOptions,
  ): number
  /** Calls `emit` per entry after `cookie` until it returns false. '.' and '..' included. */
  readdir(handle: Handle, cookie: number, emit: (entry: DirectoryEntry) => boolean): void
  fsync(ino: number, dataOnly: boolean): Promise<void>
  fallocate(handle: Handle, mode: number, offset: number, length: number): void
  /** SEEK_DATA (3) and SEEK_HOLE (4). */
  seek(handle: Handle, offset: number, whence: number): number
  copyFileRange(
    from: Handle,
    fromOffset: number,
    to: Handle,
    toOffset: number,
    length: number,
  ): number
  getxattr(ino: number, name: Uint8Array): Uint8Array
  setxattr(ino: number, name: Uint8Array, value: Uint8Array, flags: number, killSgid: boolean): void
  listxattr(ino: number): Uint8Array[]
  removexattr(ino: number, name: Uint8Array): void
  statfs(): Statfs
  /**
   * While the filesystem is frozen every changing method throws FrozenError: keep the request and
   * dispatch it again when this resolves.
   */
  thawed(): Promise<void>
  /** A guarded touch failed in native code (replyPieces): same consequences as anywhere. */
  memoryFailed(offset: number): void
  /** The transport that caches on the kernel's side; the filesystem tells it what to forget. */
  attach(cache: KernelCache): void
}

/** What the failure policy asks of a transport. Called synchronously, works asynchronously. */
export interface KernelCache {
  /**
   * Every handle of the inode is dead: retire its node id, forget its entries (`names`), revoke its
   * pages. Resolves when mappings are gone.
   */
  revoke(ino: number, names: readonly { parent: number; name: Uint8Array }[]): Promise<void>
  /** Cached pages and attributes of a healthy inode changed behind the kernel (control socket). */
  invalidate(ino: number, offset: number, length: number): Promise<void>
  /** Shutdown: pages of every inode and every entry of the root. */
  revokeAll(): Promise<void>
}
