/** rename, with RENAME_NOREPLACE and RENAME_EXCHANGE. */
import { badRow } from '../index/damage.ts'
import { addName, checkName, directory, removeName } from './directory.ts'
import { EEXIST, EINVAL, EISDIR, ENOENT, ENOTDIR, ENOTEMPTY, FsError } from './errors.ts'
import { type CachedInode, mustFind } from './inode-cache.ts'
import { isDirectory } from './modes.ts'
import { RENAME_EXCHANGE, RENAME_NOREPLACE, ROOT_INODE } from './operations.ts'
import { now, setCtime } from './time.ts'
import type { Transaction } from './transaction.ts'
import { dropDirectory, dropLink } from './unlink.ts'
import type { Volume } from './volume.ts'

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
  // A name that is there already is given up for the new one: the index does not grow.
  const targetIno = volume.index.dirents.inodeOf(newParent, newName)
  return volume.transact((transaction) => {
    const from: Place = { dir: directory(volume, parent), name }
    const to: Place = { dir: directory(volume, newParent), name: newName }
    if (to.dir.row.nlink === 0) throw new FsError(ENOENT)
    const ino = volume.index.dirents.inodeOf(parent, name)
    if (ino === 0) throw new FsError(ENOENT)
    const inode = mustFind(volume.inodes, ino)
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
    move(volume, transaction, from, inode, to)
    return target
  }, targetIno !== 0)
}

/** A directory may not become its own descendant. */
function refuseCycle(volume: Volume, inode: CachedInode, into: CachedInode): void {
  if (!isDirectory(inode.row.mode)) return
  let at = into
  for (let depth = 0; depth <= volume.inodeCount; depth++) {
    if (at === inode) throw new FsError(EINVAL)
    if (at.row.ino === ROOT_INODE) return
    at = mustFind(volume.inodes, at.row.parent)
  }
  badRow('directory', String(into.row.ino), 'itself above it')
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

/**
 * Within a directory the entry keeps its place: a listing that goes on meanwhile shows it once, and
 * ends however often names change.
 */
function move(
  volume: Volume,
  transaction: Transaction,
  from: Place,
  inode: CachedInode,
  to: Place,
): void {
  const cookie = from.dir === to.dir ? cookieOf(volume, from) : transaction.sequence
  removeName(transaction, from.dir, from.name)
  addName(transaction, to.dir, to.name, inode, cookie)
  reparent(inode, from.dir, to.dir)
  setCtime(inode.row, now())
  transaction.touch(inode)
}

function cookieOf(volume: Volume, { dir, name }: Place): number {
  return volume.index.dirents.find(dir.row.ino, name)!.cookie
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
  const [fromCookie, toCookie] = [cookieOf(volume, from), cookieOf(volume, to)]
  removeName(transaction, from.dir, from.name)
  removeName(transaction, to.dir, to.name)
  addName(transaction, to.dir, to.name, inode, toCookie)
  addName(transaction, from.dir, from.name, target, fromCookie)
  reparent(inode, from.dir, to.dir)
  reparent(target, to.dir, from.dir)
  for (const moved of [inode, target]) {
    setCtime(moved.row, now())
    transaction.touch(moved)
  }
}
