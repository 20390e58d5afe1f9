/** Directories and their entries: find a name, add and remove one, list them all. */
import { ENAMETOOLONG, ENOENT, ENOTDIR, FsError } from './errors.ts'
import type { CachedInode } from './inode-cache.ts'
import { direntKind, isDirectory } from './modes.ts'
import type { DirectoryEntry } from './operations.ts'
import { now, setModified } from './time.ts'
import type { Transaction } from './transaction.ts'
import type { Volume } from './volume.ts'

export const NAME_MAX = 255

const DOT = Buffer.from('.')
const DOT_DOT = Buffer.from('..')
/** Cookies of '.' and '..'; those of entries are sequence numbers, all larger. */
const COOKIE_DOT = 1
const COOKIE_DOT_DOT = 2

export function checkName(name: Uint8Array): void {
  if (name.length > NAME_MAX) throw new FsError(ENAMETOOLONG)
  if (name.length === 0) throw new FsError(ENOENT)
}

export function directory(volume: Volume, ino: number): CachedInode {
  const inode = volume.inode(ino)
  if (!isDirectory(inode.row.mode)) throw new FsError(ENOTDIR)
  return inode
}

/** The inode number behind a name, 0 when there is none. */
export function lookup(volume: Volume, parent: number, name: Uint8Array): number {
  checkName(name)
  const dir = directory(volume, parent)
  const found = volume.index.dirents.inodeOf(parent, name)
  if (found !== 0) return found
  if (name[0] !== 0x2e) return 0
  // The kernel resolves these itself; NFS export and path-based transports ask.
  if (DOT.equals(name)) return parent
  return DOT_DOT.equals(name) ? dir.row.parent : 0
}

export function addName(
  transaction: Transaction,
  dir: CachedInode,
  name: Uint8Array,
  inode: CachedInode,
  cookie = transaction.sequence,
): void {
  transaction.apply({
    type: 'putDirent',
    parent: dir.row.ino,
    name: Uint8Array.from(name),
    cookie,
    ino: inode.row.ino,
    kind: direntKind(inode.row.mode),
  })
  changedDirectory(transaction, dir)
}

export function removeName(transaction: Transaction, dir: CachedInode, name: Uint8Array): void {
  transaction.apply({ type: 'removeDirent', parent: dir.row.ino, name: Uint8Array.from(name) })
  changedDirectory(transaction, dir)
}

function changedDirectory(transaction: Transaction, dir: CachedInode): void {
  setModified(dir.row, now())
  transaction.touch(dir)
}

/**
 * A listing has an end, though names are made faster than they are listed. It need not have a
 * handle, so the inode knows where.
 */
export function readdir(
  volume: Volume,
  dir: CachedInode,
  cookie: number,
  emit: (entry: DirectoryEntry) => boolean,
): void {
  const { ino, parent } = dir.row
  if (cookie === 0) dir.lastCookie = volume.journal.lastSequence
  const entry = (name: Buffer, of: number, at: number) => ({ name, ino: of, kind: 4, cookie: at })
  if (cookie < COOKIE_DOT && !emit(entry(DOT, ino, COOKIE_DOT))) return
  if (cookie < COOKIE_DOT_DOT && !emit(entry(DOT_DOT, parent, COOKIE_DOT_DOT))) return
  for (let at = Math.max(cookie, COOKIE_DOT_DOT); ; ) {
    const rows = volume.index.dirents.after(ino, at)
    for (const row of rows) if (row.cookie > dir.lastCookie || !emit(row)) return
    const end = rows[rows.length - 1]
    if (end === undefined) return
    at = end.cookie
  }
}
