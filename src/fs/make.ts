/** New inodes, and new names for old ones: mknod, mkdir, symlink, link. */
import { INODE_ACCESS_ACL, INODE_DEFAULT_ACL, type InodeRow } from '../media/change.ts'
import { ACCESS_ACL, DEFAULT_ACL, inheritAcl } from './acl.ts'
import { addName, checkName, directory } from './directory.ts'
import { EEXIST, EMLINK, ENAMETOOLONG, ENOENT, EPERM, FsError } from './errors.ts'
import type { CachedInode } from './inode-cache.ts'
import { isDirectory, PERMISSIONS, S_IFDIR, S_IFLNK, S_IFMT, S_IFREG, S_ISGID } from './modes.ts'
import type { Caller } from './operations.ts'
import { now, setCtime } from './time.ts'
import type { Transaction } from './transaction.ts'
import type { Volume } from './volume.ts'

const LINK_MAX = 0x7fffffff
const SYMLINK_MAX = 4095

export interface NewInode {
  readonly mode: number
  readonly rdev: number
  readonly target: Uint8Array | null
}

/** A mode without a type means a regular file, as for mknod(2). */
export function fileNode(mode: number, rdev: number): NewInode {
  const type = mode & S_IFMT
  return { mode: (type === 0 ? S_IFREG : type) | (mode & PERMISSIONS), rdev, target: null }
}

export function directoryNode(mode: number): NewInode {
  return { mode: S_IFDIR | (mode & PERMISSIONS), rdev: 0, target: null }
}

export function symlinkNode(target: Uint8Array): NewInode {
  return { mode: S_IFLNK | 0o777, rdev: 0, target: Uint8Array.from(target) }
}

/** create, mknod, mkdir and symlink are this with different inodes. */
export function makeNode(
  volume: Volume,
  parent: number,
  name: Uint8Array,
  wanted: NewInode,
  caller: Caller,
): CachedInode {
  checkName(name)
  if (wanted.target !== null && wanted.target.length > SYMLINK_MAX) throw new FsError(ENAMETOOLONG)
  const inode = volume.transact((transaction) => {
    const dir = directory(volume, parent)
    // A directory that was removed while somebody stands in it takes no names.
    if (dir.row.nlink === 0) throw new FsError(ENOENT)
    if (volume.index.dirents.inodeOf(parent, name) !== 0) throw new FsError(EEXIST)
    const made = makeInode(volume, transaction, dir, wanted, caller)
    transaction.touch(dir)
    if (isDirectory(made.row.mode)) dir.row.nlink++
    addName(transaction, dir, name, made)
    return made
  })
  volume.inodeCount++
  return inode
}

/** A file without a name (O_TMPFILE): freed at the last close unless it gets one. */
export function makeUnnamed(
  volume: Volume,
  parent: number,
  mode: number,
  caller: Caller,
): CachedInode {
  const inode = volume.transact((transaction) => {
    const dir = directory(volume, parent)
    const wanted = fileNode(mode & PERMISSIONS, 0)
    const made = makeInode(volume, transaction, dir, wanted, caller)
    made.row.nlink = 0
    return made
  })
  volume.inodeCount++
  return inode
}

export function link(volume: Volume, ino: number, parent: number, name: Uint8Array): CachedInode {
  checkName(name)
  return volume.transact((transaction) => {
    const inode = volume.inode(ino)
    const dir = directory(volume, parent)
    if (volume.index.dirents.inodeOf(parent, name) !== 0) throw new FsError(EEXIST)
    if (isDirectory(inode.row.mode)) throw new FsError(EPERM)
    if (dir.row.nlink === 0) throw new FsError(ENOENT)
    if (inode.row.nlink >= LINK_MAX) throw new FsError(EMLINK)
    transaction.touch(inode)
    inode.row.nlink++
    setCtime(inode.row, now())
    addName(transaction, dir, name, inode)
    return inode
  })
}

/** Makes an inode without a name: its number is the transaction's sequence. */
function makeInode(
  volume: Volume,
  transaction: Transaction,
  dir: CachedInode,
  wanted: NewInode,
  caller: Caller,
): CachedInode {
  const ino = transaction.sequence
  const isDir = isDirectory(wanted.mode)
  const setgid = (dir.row.mode & S_ISGID) !== 0
  const time = now()
  const row: InodeRow = {
    ino,
    mode: wanted.mode,
    uid: caller.uid,
    gid: setgid ? dir.row.gid : caller.gid,
    nlink: isDir ? 2 : 1,
    rdev: wanted.rdev,
    flags: 0,
    size: wanted.target === null ? 0 : wanted.target.length,
    blocks: 0,
    parent: isDir ? dir.row.ino : 0,
    atime: time.seconds,
    atimeNs: time.nanoseconds,
    mtime: time.seconds,
    mtimeNs: time.nanoseconds,
    ctime: time.seconds,
    ctimeNs: time.nanoseconds,
    btime: time.seconds,
    btimeNs: time.nanoseconds,
    target: wanted.target,
  }
  if (setgid && isDir) row.mode |= S_ISGID
  if (wanted.target === null) inheritPermissions(volume, transaction, dir, row, caller)
  const inode = volume.inodes.add(row)
  transaction.touch(inode)
  return inode
}

/** The mode after the directory's default ACL, or after the umask when it has none. */
function inheritPermissions(
  volume: Volume,
  transaction: Transaction,
  dir: CachedInode,
  row: InodeRow,
  caller: Caller,
): void {
  const defaultAcl =
    (dir.row.flags & INODE_DEFAULT_ACL) === 0
      ? undefined
      : volume.index.xattrs.get(dir.row.ino, DEFAULT_ACL)
  if (defaultAcl === undefined) {
    row.mode &= ~(caller.umask & 0o777)
    return
  }
  const inherited = inheritAcl(defaultAcl, row.mode)
  row.mode = inherited.mode
  if (inherited.access !== undefined) {
    row.flags |= INODE_ACCESS_ACL
    transaction.apply({ type: 'putXattr', ino: row.ino, name: ACCESS_ACL, value: inherited.access })
  }
  if (isDirectory(row.mode)) {
    row.flags |= INODE_DEFAULT_ACL
    transaction.apply({ type: 'putXattr', ino: row.ino, name: DEFAULT_ACL, value: defaultAcl })
  }
}
