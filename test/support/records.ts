/** Where things lie in a region, for tests that damage them. */
import type { Memory } from '../../src/dax/memory.ts'
import { listRecords } from '../../src/journal/replay.ts'
import { RECORD_TRANSACTION } from '../../src/media/record.ts'
import { readSuperblocks, requireSuperblock, type Superblock } from '../../src/media/superblock.ts'

export function superblockOf(memory: Memory): Superblock {
  return requireSuperblock(readSuperblocks(memory))
}

/** Region offset of the n-th transaction behind the checkpoint. */
export function recordOffset(memory: Memory, n: number): number {
  const superblock = superblockOf(memory)
  const { sequence } = superblock.checkpoint
  for (const { half, position, header } of listRecords(memory, superblock)) {
    if (header.kind !== RECORD_TRANSACTION || header.sequence !== sequence + n) continue
    return superblock.geometry.journal[half].offset + position
  }
  throw new Error('no such record')
}
