/** Names and the inodes behind them: lookup, create, link, unlink, rename, readdir. */
import { INODE_ACCESS_ACL, INODE_DEFAULT_ACL, type InodeRow } from '../media/change.ts'
import { ACCESS_ACL, DEFAULT_ACL, inheritAcl } from './acl.ts'
import {
  EEXIST,
  EINVAL,
  EISDIR,
  EMLINK,
  ENAMETOOLONG,
  ENOENT,
  ENOTDIR,
  ENOTEMPTY,
  EPERM,
  FsError,
} from './errors.ts'
import { type CachedInode, mustFind } from './inode-cache.ts'
import { direntKind, isDirectory, S_IFDIR, S_IFLNK, S_ISGID } from './modes.ts'
import {
  type Caller,
  type DirectoryEntry,
  RENAME_EXCHANGE,
  RENAME_NOREPLACE,
  ROOT_INODE,
} from './operations.ts'
import { now, setCtime, setModified } from './time.ts'
import type { Transaction } from './transaction.ts'
import type { Volume } from './volume.ts'

export const NAME_MAX = 255
const LINK_MAX = 0x7fffffff
const SYMLINK_MAX = 4095

const DOT = Buffer.from('.')
const DOT_DOT = Buffer.from('..')
/** Cookies of '.' and '..'; those of entries are sequence numbers, all larger. */
const COOKIE_DOT = 1
const COOKIE_DOT_DOT = 2

function checkName(name: Uint8Array): void {
  if (name.length > NAME_MAX) throw new FsError(ENAMETOOLONG)
  if (name.length === 0) throw new FsError(ENOENT)
}

export function directory(volume: Volume, ino: number): CachedInode {
  const inode = volume.inode(ino)
  if (!isDirectory(inode.row.mode)) throw new FsError(ENOTDIR)
  return inode
}

/** The inode number behind a name, 0 when there is none. */
export function resolve(volume: Volume, parent: number, name: Uint8Array): number {
  checkName(name)
  const dir = directory(volume, parent)
  const found = volume.index.dirents.inodeOf(parent, name)
  if (found !== 0) return found
  if (name[0] !== 0x2e) return 0
  // The kernel resolves these itself; NFS export and path-based transports ask.
  if (DOT.equals(name)) return parent
  return DOT_DOT.equals(name) ? dir.row.parent : 0
}

export interface NewInode {
  readonly mode: number
  readonly rdev: number
  readonly target: Uint8Array | null
}

/** Makes an inode without a name: its number is the transaction's sequence. */
export function makeInode(
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

function addName(
  transaction: Transaction,
  dir: CachedInode,
  name: Uint8Array,
  inode: CachedInode,
): void {
  transaction.apply({
    type: 'putDirent',
    parent: dir.row.ino,
    name: Uint8Array.from(name),
    cookie: transaction.sequence,
    ino: inode.row.ino,
    kind: direntKind(inode.row.mode),
  })
  changedDirectory(transaction, dir)
}

function removeName(transaction: Transaction, dir: CachedInode, name: Uint8Array): void {
  transaction.apply({ type: 'removeDirent', parent: dir.row.ino, name: Uint8Array.from(name) })
  changedDirectory(transaction, dir)
}

function changedDirectory(transaction: Transaction, dir: CachedInode): void {
  setModified(dir.row, now())
  transaction.touch(dir)
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

/** An inode without a name (O_TMPFILE): freed at the last close unless it gets one. */
export function makeUnnamed(
  volume: Volume,
  parent: number,
  mode: number,
  caller: Caller,
): CachedInode {
  const inode = volume.transact((transaction) => {
    const dir = directory(volume, parent)
    const made = makeInode(volume, transaction, dir, { mode, rdev: 0, target: null }, caller)
    made.row.nlink = 0
    return made
  })
  volume.inodeCount++
  return inode
}

export function symlinkNode(target: Uint8Array): NewInode {
  return { mode: S_IFLNK | 0o777, rdev: 0, target: Uint8Array.from(target) }
}

export function directoryNode(mode: number): NewInode {
  return { mode: S_IFDIR | (mode & 0o7777), rdev: 0, target: null }
}

export function link(volume: Volume, ino: number, parent: number, name: Uint8Array): CachedInode {
  checkName(name)
  return volume.transact((transaction) => {
    const inode = volume.inode(ino)
    const dir = directory(volume, parent)
    if (isDirectory(inode.row.mode)) throw new FsError(EPERM)
    if (dir.row.nlink === 0) throw new FsError(ENOENT)
    if (inode.row.nlink >= LINK_MAX) throw new FsError(EMLINK)
    if (volume.index.dirents.inodeOf(parent, name) !== 0) throw new FsError(EEXIST)
    transaction.touch(inode)
    inode.row.nlink++
    setCtime(inode.row, now())
    addName(transaction, dir, name, inode)
    return inode
  })
}

/** One name less. */
function dropLink(transaction: Transaction, inode: CachedInode): void {
  transaction.touch(inode)
  inode.row.nlink--
  setCtime(inode.row, now())
}

/** An empty directory loses its name, and its parent the link of its '..'. */
function dropDirectory(transaction: Transaction, dir: CachedInode, victim: CachedInode): void {
  transaction.touch(victim)
  victim.row.nlink = 0
  setCtime(victim.row, now())
  dir.row.nlink--
}

export function unlink(volume: Volume, parent: number, name: Uint8Array): CachedInode {
  checkName(name)
  return volume.transact((transaction) => {
    const dir = directory(volume, parent)
    const ino = volume.index.dirents.inodeOf(parent, name)
    if (ino === 0) throw new FsError(ENOENT)
    const inode = mustFind(volume.inodes, ino)
    if (isDirectory(inode.row.mode)) throw new FsError(EISDIR)
    removeName(transaction, dir, name)
    dropLink(transaction, inode)
    return inode
  }, true)
}

export function rmdir(volume: Volume, parent: number, name: Uint8Array): CachedInode {
  checkName(name)
  return volume.transact((transaction) => {
    const dir = directory(volume, parent)
    const ino = volume.index.dirents.inodeOf(parent, name)
    if (ino === 0) throw new FsError(ENOENT)
    const victim = mustFind(volume.inodes, ino)
    if (!isDirectory(victim.row.mode)) throw new FsError(ENOTDIR)
    if (!volume.index.dirents.isEmpty(ino)) throw new FsError(ENOTEMPTY)
    removeName(transaction, dir, name)
    dropDirectory(transaction, dir, victim)
    return victim
  }, true)
}

interface Place {
  readonly dir: CachedInode
  readonly name: Uint8Array
}

/** Returns the inode that lost its name to the rename, if any. */
export function rename(
  volume: Volume,
  parent: number,
  name: Uint8Array,
  newParent: number,
  newName: Uint8Array,
  flags: number,
): CachedInode | undefined {
  checkName(name)
  checkName(newName)
  if ((flags & ~(RENAME_NOREPLACE | RENAME_EXCHANGE)) !== 0) throw new FsError(EINVAL)
  return volume.transact((transaction) => {
    const from: Place = { dir: directory(volume, parent), name }
    const to: Place = { dir: directory(volume, newParent), name: newName }
    if (to.dir.row.nlink === 0) throw new FsError(ENOENT)
    const ino = volume.index.dirents.inodeOf(parent, name)
    if (ino === 0) throw new FsError(ENOENT)
    const inode = mustFind(volume.inodes, ino)
    const targetIno = volume.index.dirents.inodeOf(newParent, newName)
    const target = targetIno === 0 ? undefined : mustFind(volume.inodes, targetIno)
    if (flags & RENAME_EXCHANGE) {
      if (target === undefined) throw new FsError(ENOENT)
      exchange(volume, transaction, from, inode, to, target)
      return undefined
    }
    if (target !== undefined && (flags & RENAME_NOREPLACE) !== 0) throw new FsError(EEXIST)
    if (target === inode) return undefined
    refuseCycle(volume, inode, to.dir)
    if (target !== undefined) replaceTarget(volume, transaction, inode, to, target)
    move(transaction, from, inode, to)
    return target
  })
}

/** A directory may not become its own descendant. */
function refuseCycle(volume: Volume, inode: CachedInode, into: CachedInode): void {
  if (!isDirectory(inode.row.mode)) return
  for (let at = into; ; at = mustFind(volume.inodes, at.row.parent)) {
    if (at === inode) throw new FsError(EINVAL)
    if (at.row.ino === ROOT_INODE) return
  }
}

function replaceTarget(
  volume: Volume,
  transaction: Transaction,
  inode: CachedInode,
  to: Place,
  target: CachedInode,
): void {
  if (isDirectory(target.row.mode)) {
    if (!isDirectory(inode.row.mode)) throw new FsError(EISDIR)
    if (!volume.index.dirents.isEmpty(target.row.ino)) throw new FsError(ENOTEMPTY)
    removeName(transaction, to.dir, to.name)
    dropDirectory(transaction, to.dir, target)
  } else {
    if (isDirectory(inode.row.mode)) throw new FsError(ENOTDIR)
    removeName(transaction, to.dir, to.name)
    dropLink(transaction, target)
  }
}

function move(transaction: Transaction, from: Place, inode: CachedInode, to: Place): void {
  removeName(transaction, from.dir, from.name)
  addName(transaction, to.dir, to.name, inode)
  reparent(inode, from.dir, to.dir)
  setCtime(inode.row, now())
  transaction.touch(inode)
}

/** Moves the '..' link of a directory. */
function reparent(inode: CachedInode, from: CachedInode, to: CachedInode): void {
  if (!isDirectory(inode.row.mode) || from === to) return
  from.row.nlink--
  to.row.nlink++
  inode.row.parent = to.row.ino
}

function exchange(
  volume: Volume,
  transaction: Transaction,
  from: Place,
  inode: CachedInode,
  to: Place,
  target: CachedInode,
): void {
  if (inode === target) return
  refuseCycle(volume, inode, to.dir)
  refuseCycle(volume, target, from.dir)
  removeName(transaction, from.dir, from.name)
  removeName(transaction, to.dir, to.name)
  addName(transaction, to.dir, to.name, inode)
  // Two entries of one transaction in one directory need two cookies: the old place keeps the
  // sequence's lower neighbour, which no other entry of this directory can have had since.
  transaction.apply({
    type: 'putDirent',
    parent: from.dir.row.ino,
    name: Uint8Array.from(from.name),
    cookie: exchangeCookie(volume, transaction, from, to),
    ino: target.row.ino,
    kind: direntKind(target.row.mode),
  })
  reparent(inode, from.dir, to.dir)
  reparent(target, to.dir, from.dir)
  for (const moved of [inode, target]) {
    setCtime(moved.row, now())
    transaction.touch(moved)
  }
}

function exchangeCookie(volume: Volume, transaction: Transaction, from: Place, to: Place): number {
  if (from.dir !== to.dir) return transaction.sequence
  return volume.index.dirents.freeCookieBefore(from.dir.row.ino, transaction.sequence)
}

export function readdir(
  volume: Volume,
  dir: CachedInode,
  cookie: number,
  emit: (entry: DirectoryEntry) => boolean,
): void {
  const { ino, parent } = dir.row
  const entry = (name: Buffer, of: number, at: number) => ({ name, ino: of, kind: 4, cookie: at })
  if (cookie < COOKIE_DOT && !emit(entry(DOT, ino, COOKIE_DOT))) return
  if (cookie < COOKIE_DOT_DOT && !emit(entry(DOT_DOT, parent, COOKIE_DOT_DOT))) return
  for (let at = Math.max(cookie, COOKIE_DOT_DOT); ; ) {
    const rows = volume.index.dirents.after(ino, at)
    for (const row of rows) if (!emit(row)) return
    const last = rows[rows.length - 1]
    if (last === undefined) return
    at = last.cookie
  }
}
