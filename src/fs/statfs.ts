/** What df shows. */
import { BLOCK_SIZE } from '../media/geometry.ts'
import { NAME_MAX } from './directory.ts'
import type { Statfs } from './operations.ts'
import type { Volume } from './volume.ts'

export function statfs({ allocator, geometry, inodeCount }: Volume): Statfs {
  const free = allocator.freeBlocks
  // An inode costs index space, not a slot in a table: what is free bounds it loosely.
  const filesFree = free * 8
  return {
    blockSize: BLOCK_SIZE,
    blocks: geometry.dataEndBlock - geometry.dataStartBlock,
    free,
    available: free,
    files: inodeCount + filesFree,
    filesFree,
    nameMax: NAME_MAX,
  }
}
