/** Where the blocks of a file lie, for people. */
import { BLOCK_SIZE } from '../media/geometry.ts'
import type { FileMap } from './administration.ts'
import { EISDIR, ENOENT, FsError } from './errors.ts'
import { isUnwritten } from './file-extents.ts'
import type { CachedInode } from './inode-cache.ts'
import { isRegular } from './modes.ts'
import type { Volume } from './volume.ts'

export function fileMap(volume: Volume, ino: number): FileMap {
  const inode = regularFile(volume, ino)
  const extents = volume.inodes.extents(inode).list.map((extent) => ({
    fileOffset: extent.fileBlock * BLOCK_SIZE,
    regionOffset: extent.block * BLOCK_SIZE,
    length: extent.blocks * BLOCK_SIZE,
    flags: flagsOf(volume, extent.block, extent.blocks, isUnwritten(extent)),
  }))
  return { inode: ino, size: inode.row.size, extents }
}

function flagsOf(volume: Volume, block: number, blocks: number, unwritten: boolean): string[] {
  const poisoned = volume.index.poison.overlapping(block, blocks).length > 0
  return [...(unwritten ? ['unwritten'] : []), ...(poisoned ? ['poisoned'] : [])]
}

/** The operator names inodes by number: one that does not exist is no bug. */
export function regularFile(volume: Volume, ino: number): CachedInode {
  const inode = volume.inodes.find(ino)
  if (inode === undefined) throw new FsError(ENOENT, `there is no inode ${ino}`)
  if (!isRegular(inode.row.mode)) throw new FsError(EISDIR, 'only regular files have extents')
  return inode
}
