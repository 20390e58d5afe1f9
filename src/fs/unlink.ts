/** Names that go: unlink and rmdir. What loses its last name is freed later: see orphans.ts. */
import { checkName, directory, removeName } from './directory.ts'
import { EISDIR, ENOENT, ENOTDIR, ENOTEMPTY, FsError } from './errors.ts'
import { type CachedInode, mustFind } from './inode-cache.ts'
import { isDirectory } from './modes.ts'
import { now, setCtime } from './time.ts'
import type { Transaction } from './transaction.ts'
import type { Volume } from './volume.ts'

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

/** One name less. */
export function dropLink(transaction: Transaction, inode: CachedInode): void {
  transaction.touch(inode)
  inode.row.nlink--
  setCtime(inode.row, now())
}

/** An empty directory loses its name, and its parent the link of its '..'. */
export function dropDirectory(
  transaction: Transaction,
  dir: CachedInode,
  victim: CachedInode,
): void {
  transaction.touch(victim)
  victim.row.nlink = 0
  setCtime(victim.row, now())
  dir.row.nlink--
}
