/** Which memory is really bad now: a record of a failure may outlive the failure. */
import { type Memory, MemoryFailure } from '../../dax/memory.ts'
import { BLOCK_SIZE } from '../../media/geometry.ts'
import type { BlockRange } from '../../media/superblock.ts'
import { joined } from './layout.ts'

/** The blocks of [block, block + blocks) that cannot be read. */
export function findBad(memory: Memory, { block, blocks }: BlockRange): BlockRange[] {
  const bad: BlockRange[] = []
  const end = (block + blocks) * BLOCK_SIZE
  let at = block * BLOCK_SIZE
  while (at < end) {
    try {
      memory.probe(at, end - at)
      break
    } catch (error) {
      if (!(error instanceof MemoryFailure)) throw error
      bad.push({ block: error.offset / BLOCK_SIZE, blocks: 1 })
      at = error.offset + BLOCK_SIZE
    }
  }
  return joined(bad)
}

/** The parts of `ranges` that cannot be read. */
export function stillBad(memory: Memory, ranges: readonly BlockRange[]): BlockRange[] {
  return joined(ranges.flatMap((range) => findBad(memory, range)))
}
