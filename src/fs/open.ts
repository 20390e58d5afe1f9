/** How a file gets a handle: open, create (O_CREAT) and tmpfile (O_TMPFILE). */
import { setattr } from './attributes.ts'
import { lookup } from './directory.ts'
import { EEXIST, EISDIR, FsError } from './errors.ts'
import type { Handle } from './handles.ts'
import type { CachedInode } from './inode-cache.ts'
import { fileNode, makeNode, makeUnnamed } from './make.ts'
import { isDirectory, isRegular, PERMISSIONS } from './modes.ts'
import type { Caller } from './operations.ts'
import type { Volume } from './volume.ts'

const O_EXCL = 0o200
const O_TRUNC = 0o1000
const O_ACCMODE = 3

export function open(volume: Volume, ino: number, flags: number, killPrivileges: boolean): Handle {
  const inode = volume.inode(ino)
  if (isDirectory(inode.row.mode)) throw new FsError(EISDIR)
  if ((flags & O_ACCMODE) !== 0) volume.requireWritable()
  if ((flags & O_TRUNC) !== 0 && isRegular(inode.row.mode)) {
    volume.change(() => setattr(volume, inode, { size: 0, killPrivileges }, false))
  }
  return volume.handles.open(ino, flags, false)
}

/** Opens what is there, unless O_EXCL says it must not be. The inode counts as looked up. */
export function create(
  volume: Volume,
  parent: number,
  name: Uint8Array,
  mode: number,
  flags: number,
  caller: Caller,
): Handle {
  const existing = lookup(volume, parent, name)
  if (existing === 0) {
    const inode = makeNode(volume, parent, name, fileNode(mode & PERMISSIONS, 0), caller)
    return openNew(volume, inode, flags)
  }
  if ((flags & O_EXCL) !== 0) throw new FsError(EEXIST)
  const handle = open(volume, existing, flags, false)
  volume.lookups.add(existing)
  return handle
}

export function tmpfile(
  volume: Volume,
  parent: number,
  mode: number,
  flags: number,
  caller: Caller,
): Handle {
  return openNew(volume, makeUnnamed(volume, parent, mode, caller), flags)
}

/** Its mode and O_TRUNC mean nothing to the handle that comes with a new file. */
function openNew(volume: Volume, { row }: CachedInode, flags: number): Handle {
  volume.lookups.add(row.ino)
  return volume.handles.open(row.ino, flags, false)
}
