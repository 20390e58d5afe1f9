/** Where the repaired index goes: checkpoint slots without bad units, large enough for an image. */
import type { Memory } from '../../dax/memory.ts'
import { OWNER_CHECKPOINT } from '../../media/change.ts'
import { BLOCK_SIZE, BLOCKS_PER_UNIT } from '../../media/geometry.ts'
import type { BlockRange, Slots } from '../../media/superblock.ts'
import { slotRow } from '../check/layout.ts'
import type { RepairContext } from './context.ts'
import { rebuildFree } from './counts.ts'
import { findBad } from './probe.ts'

/** As much as a mounted filesystem keeps in reserve for the next image. */
const IMAGE_MARGIN = 1024 * 1024

/**
 * Takes bad units out of both slots and gives `target` room for the image; the rmap says the same
 * afterwards. Returns undefined when there are not enough free units.
 */
export function arrangeSlots(
  context: RepairContext,
  memory: Memory,
  target: 0 | 1,
): Slots | undefined {
  const slots: [BlockRange[], BlockRange[]] = [
    keepGood(context, memory, context.slots[0]),
    keepGood(context, memory, context.slots[1]),
  ]
  for (const slot of [target, target === 0 ? 1 : 0] as const) {
    while (capacity(slots[slot]) < context.index.imageSize() + IMAGE_MARGIN) {
      const unit = takeFreeUnit(context)
      if (unit === undefined && slot === target) return undefined
      // The other one can wait: the next mount makes it grow when there is space again.
      if (unit === undefined) break
      slots[slot] = append(slots[slot], unit)
      context.actions.add(
        'slot-grown',
        `gave checkpoint slot ${slot} the unit at block ${unit.block}`,
      )
    }
  }
  return slots
}

function keepGood(
  context: RepairContext,
  memory: Memory,
  slot: readonly BlockRange[],
): BlockRange[] {
  const { index, actions } = context
  let kept: BlockRange[] = []
  let dropped = false
  for (const unit of slot.flatMap(unitsOf)) {
    const bad = findBad(memory, unit)
    if (bad.length === 0) {
      kept = append(kept, unit)
      continue
    }
    dropped = true
    index.rmap.remove(unit.block, OWNER_CHECKPOINT, 0)
    for (const range of bad) index.poison.put(range.block, range.blocks)
    actions.add('slot-unit', `took the unit at block ${unit.block} out of a slot: bad memory`)
  }
  if (dropped) rebuildFree(context)
  return kept
}

/** The first whole unit of free space. */
function takeFreeUnit({ index, geometry }: RepairContext): BlockRange | undefined {
  for (let from = geometry.dataStartBlock; ; ) {
    const ranges = index.freeSpace.large(from)
    for (const { block, blocks } of ranges) {
      const start = Math.ceil(block / BLOCKS_PER_UNIT) * BLOCKS_PER_UNIT
      if (start + BLOCKS_PER_UNIT > block + blocks) continue
      index.freeSpace.allocate(start, BLOCKS_PER_UNIT)
      index.rmap.put(slotRow(start))
      return { block: start, blocks: BLOCKS_PER_UNIT }
    }
    const last = ranges.at(-1)
    if (last === undefined) return undefined
    from = last.block + last.blocks
  }
}

/** The image is laid out along the list, so only a direct continuation joins. */
function append(slot: readonly BlockRange[], unit: BlockRange): BlockRange[] {
  const last = slot.at(-1)
  if (last === undefined || last.block + last.blocks !== unit.block) return [...slot, unit]
  return [...slot.slice(0, -1), { block: last.block, blocks: last.blocks + unit.blocks }]
}

function unitsOf(range: BlockRange): BlockRange[] {
  return Array.from({ length: range.blocks / BLOCKS_PER_UNIT }, (_, i) => {
    return { block: range.block + i * BLOCKS_PER_UNIT, blocks: BLOCKS_PER_UNIT }
  })
}

function capacity(slot: readonly BlockRange[]): number {
  return slot.reduce((sum, range) => sum + range.blocks, 0) * BLOCK_SIZE
}
