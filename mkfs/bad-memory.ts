/** Memory that is bad before a filesystem is made there: left out where it can be. */
import type { ByteRange } from '../src/dax/bad-ranges.ts'
import type { BlockRange } from '../src/index/free-space.ts'
import { MediaError } from '../src/media/errors.ts'
import { BLOCK_SIZE, BLOCKS_PER_UNIT, blockSpan, type Geometry } from '../src/media/geometry.ts'
import type { Slots } from '../src/media/superblock.ts'

export class BadMemory {
  /** Inside the filesystem; sorted, disjoint. */
  readonly blocks: readonly BlockRange[]
  readonly #geometry: Geometry

  constructor(ranges: readonly ByteRange[], geometry: Geometry) {
    this.#geometry = geometry
    this.blocks = ranges.flatMap(({ offset, length }) => {
      const [block, blocks] = blockSpan(offset, length)
      const inside = Math.min(block + blocks, geometry.blocks) - block
      return inside > 0 ? [{ block, blocks: inside }] : []
    })
  }

  /** The superblocks have one place each. */
  requireSuperblocks(): void {
    for (const offset of [this.#geometry.primary, this.#geometry.backup]) {
      if (this.within(offset / BLOCK_SIZE, 1).length === 0) continue
      const sentence = 'the memory there is bad, and no other place will do: use another region'
      throw new MediaError('superblock', offset, sentence)
    }
  }

  /** Parts of the journal that it has to go round. */
  inJournal(): BlockRange[] {
    return this.#geometry.journal.flatMap(({ offset, length }) =>
      this.within(offset / BLOCK_SIZE, length / BLOCK_SIZE),
    )
  }

  /** One healthy unit for each slot, the first there are; checkpoints make them grow. */
  slots(): Slots {
    const found: BlockRange[] = []
    const { dataStartBlock, dataEndBlock } = this.#geometry
    for (let block = dataStartBlock; block + BLOCKS_PER_UNIT <= dataEndBlock; ) {
      if (this.within(block, BLOCKS_PER_UNIT).length === 0) {
        found.push({ block, blocks: BLOCKS_PER_UNIT })
        if (found.length === 2) return [[found[0]!], [found[1]!]]
      }
      block += BLOCKS_PER_UNIT
    }
    throw new MediaError('region', 0, 'too much of its memory is bad to hold a filesystem')
  }

  within(block: number, blocks: number): BlockRange[] {
    return this.blocks.flatMap((bad) => {
      const start = Math.max(bad.block, block)
      const end = Math.min(bad.block + bad.blocks, block + blocks)
      return start < end ? [{ block: start, blocks: end - start }] : []
    })
  }
}
