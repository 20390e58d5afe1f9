/**
 * Metadata on memory that is on record as bad. A mount goes round it where it can: bad parts of the
 * journal are left out, bad units leave the standby slot. What it cannot go round is told here.
 */
import type { Memory } from '../../dax/memory.ts'
import { rangesOverlap } from '../../index/free-space.ts'
import type { Index } from '../../index/index.ts'
import { Halves } from '../../journal/halves.ts'
import { BLOCK_SIZE } from '../../media/geometry.ts'
import type { BlockRange, Superblock } from '../../media/superblock.ts'
import { stillBad } from './probe.ts'
import type { Problem } from './problem.ts'

export function checkBadMetadata(memory: Memory, superblock: Superblock, index: Index): Problem[] {
  const problems: Problem[] = []
  const poison = [...superblock.poison, ...index.poison.all()]
  if (!hasJournal(superblock, poison)) {
    const code = 'journal-poisoned'
    const message = 'its memory is on record as bad in both halves'
    const fixable = hasJournal(superblock, stillBad(memory, inJournal(superblock, poison)))
    const { offset } = superblock.geometry.journal[0]
    problems.push({ structure: 'journal', code, offset, message, fixable })
  }
  const image = superblock.slots[superblock.checkpoint.slot]
  const hit = image.find((range) => poison.some((bad) => rangesOverlap(range, bad)))
  if (hit !== undefined) {
    const code = 'checkpoint-poisoned'
    const message = 'its image is there, and its memory is on record as bad'
    const offset = hit.block * BLOCK_SIZE
    problems.push({ structure: 'checkpoint', code, offset, message, fixable: true })
  }
  return problems
}

/** Is there a half that takes records, with `poison` left out? */
export function hasJournal(superblock: Superblock, poison: readonly BlockRange[]): boolean {
  const halves = new Halves({ ...superblock, poison })
  return halves.usable(0) || halves.usable(1)
}

/** The parts of `ranges` that lie in the journal. */
function inJournal({ geometry }: Superblock, ranges: readonly BlockRange[]): BlockRange[] {
  return geometry.journal.flatMap(({ offset, length }) =>
    ranges.flatMap(({ block, blocks }) => {
      const start = Math.max(block, offset / BLOCK_SIZE)
      const end = Math.min(block + blocks, (offset + length) / BLOCK_SIZE)
      return start < end ? [{ block: start, blocks: end - start }] : []
    }),
  )
}
