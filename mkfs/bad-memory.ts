/** Memory that is bad before a filesystem is made there: left out where it can be. */
import type { ByteRange } from '../src/dax/bad-ranges.ts'
import { hasJournal } from '../src/fs/check/bad-metadata.ts'
import type { BlockRange } from '../src/index/free-space.ts'
import { MediaError } from '../src/media/errors.ts'
import {
  BLOCK_SIZE,
  BLOCKS_PER_UNIT,
  blockSpan,
  type Geometry,
  geometryFor,
} from '../src/media/geometry.ts'
import { createSuperblock, type Slots } from '../src/media/superblock.ts'
import { MAX_POISON_RANGES } from '../src/media/superblock-layout.ts'

/** Refuses `size` bytes with so much bad memory that no mount could use them; changes nothing. */
export function requireUsable(size: number, ranges: readonly ByteRange[]): BadMemory {
  const bad = new BadMemory(ranges, geometryFor(size))
  bad.requireSuperblocks()
  bad.requireJournal()
  return bad
}

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

  /** The journal cannot move either, but one half that takes records will do. */
  requireJournal(): void {
    const geometry = this.#geometry
    const slots = this.slots()
    const superblock = createSuperblock({ geometry, label: '', slots, created: 0 })
    if (hasJournal(superblock, [...this.inJournal(), ...this.blocks])) return
    const sentence =
      'too much of its memory is bad in both halves, and no other place will do: use another region'
    throw new MediaError('journal', geometry.journal[0].offset, sentence)
  }

  /**
   * Parts of the journal that it has to go round. When they are more than a superblock can list,
   * the nearest become one, with what is good between them.
   */
  inJournal(): BlockRange[] {
    const parts = this.#geometry.journal.flatMap(({ offset, length }) =>
      this.within(offset / BLOCK_SIZE, length / BLOCK_SIZE),
    )
    while (parts.length > MAX_POISON_RANGES) joinNearest(parts)
    return parts
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
    const sentence = 'too much of its memory is bad to hold a filesystem: use another region'
    throw new MediaError('region', 0, sentence)
  }

  within(block: number, blocks: number): BlockRange[] {
    return this.blocks.flatMap((bad) => {
      const start = Math.max(bad.block, block)
      const end = Math.min(bad.block + bad.blocks, block + blocks)
      return start < end ? [{ block: start, blocks: end - start }] : []
    })
  }
}

function joinNearest(parts: BlockRange[]): void {
  const gaps = parts.slice(1).map(({ block }, at) => block - endOf(parts[at]!))
  const at = gaps.indexOf(Math.min(...gaps))
  const { block } = parts[at]!
  parts.splice(at, 2, { block, blocks: endOf(parts[at + 1]!) - block })
}

function endOf({ block, blocks }: BlockRange): number {
  return block + blocks
}
