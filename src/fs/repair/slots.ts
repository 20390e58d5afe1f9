/** Where the repaired index goes: checkpoint slots without bad units, large enough for an image. */
import type { Memory } from '../../dax/memory.ts'
import { OWNER_CHECKPOINT } from '../../media/change.ts'
import { BLOCK_SIZE, BLOCKS_PER_UNIT, UNIT_SIZE } from '../../media/geometry.ts'
import type { BlockRange, Slots } from '../../media/superblock.ts'
import { MAX_SLOT_EXTENTS } from '../../media/superblock-layout.ts'
import { slotRow } from '../check/layout.ts'
import { findBad } from '../check/probe.ts'
import type { RepairContext } from './context.ts'
import { rebuildFree } from './counts.ts'

/** As much as a mounted filesystem keeps in reserve for the next image. */
const IMAGE_MARGIN = 1024 * 1024

export interface Arranged {
  readonly slots: Slots
  /** False: nowhere is there room for the image. Bad units are out of the slots all the same. */
  readonly roomy: boolean
}

/**
 * Takes bad units out of both slots and gives `target` room for the image; the rmap says the same
 * afterwards.
 */
export function arrangeSlots(context: RepairContext, memory: Memory, target: 0 | 1): Arranged {
  const slots: [BlockRange[], BlockRange[]] = [
    keepGood(context, memory, context.slots[0]),
    keepGood(context, memory, context.slots[1]),
  ]
  if (!grow(context, slots, target) && !fits(context, slots[target])) {
    // Nothing in the target is needed any more: what is best of all free units takes its place.
    giveBack(context, slots[target])
    slots[target] = longestRuns(context, IMAGE_MARGIN) ?? longestRuns(context, 0) ?? []
    if (slots[target].length === 0) return { slots, roomy: false }
    context.actions.add(
      'slot-moved',
      `gave checkpoint slot ${target} other units: it was in pieces`,
    )
  }
  // The other one can wait: the next mount makes it grow when there is space again.
  grow(context, slots, target === 0 ? 1 : 0)
  return { slots, roomy: true }
}

/** Without the margin, too, an image is an image: a full filesystem has no other room. */
function fits({ index }: RepairContext, slot: readonly BlockRange[]): boolean {
  if (slot.length > MAX_SLOT_EXTENTS) return false
  if (capacity(slot) < index.imageSize() && index.hasFreePages()) index.compact()
  return capacity(slot) >= index.imageSize()
}

/** False when there is no unit, or no place in the list of extents, for what the image needs. */
function grow(context: RepairContext, slots: [BlockRange[], BlockRange[]], slot: 0 | 1): boolean {
  while (
    capacity(slots[slot]) < needed(context, IMAGE_MARGIN) ||
    slots[slot].length > MAX_SLOT_EXTENTS
  ) {
    const unit = slots[slot].length > MAX_SLOT_EXTENTS ? undefined : findFreeUnit(context)
    if (unit === undefined) return false
    const longer = append(slots[slot], unit)
    if (longer.length > MAX_SLOT_EXTENTS) return false
    takeUnits(context, unit)
    slots[slot] = longer
    const message = `gave checkpoint slot ${slot} the unit at block ${unit.block}`
    context.actions.add('slot-grown', message)
  }
  return true
}

function needed({ index }: RepairContext, margin: number): number {
  return index.imageSize() + margin
}

function giveBack({ index }: RepairContext, slot: readonly BlockRange[]): void {
  for (const { block, blocks } of slot.flatMap(unitsOf)) {
    index.rmap.remove(block, OWNER_CHECKPOINT, 0)
    index.freeSpace.free(block, blocks)
  }
}

/** Enough units for the image in as few pieces as can be; undefined when there are not enough. */
function longestRuns(context: RepairContext, margin: number): BlockRange[] | undefined {
  const runs = freeRuns(context).sort((a, b) => b.blocks - a.blocks)
  const taken: BlockRange[] = []
  for (const run of runs.slice(0, MAX_SLOT_EXTENTS)) {
    const missing = Math.ceil((needed(context, margin) - capacity(taken)) / UNIT_SIZE)
    if (missing <= 0) break
    const blocks = Math.min(run.blocks, missing * BLOCKS_PER_UNIT)
    taken.push({ block: run.block, blocks })
  }
  if (capacity(taken) < needed(context, margin)) return undefined
  for (const range of taken) takeUnits(context, range)
  return taken
}

/** Whole units of free space, in runs. */
function freeRuns({ index, geometry }: RepairContext): BlockRange[] {
  const runs: BlockRange[] = []
  for (let from = geometry.dataStartBlock; ; ) {
    const ranges = index.freeSpace.large(from)
    for (const range of ranges) {
      const block = Math.ceil(range.block / BLOCKS_PER_UNIT) * BLOCKS_PER_UNIT
      const units = Math.floor((range.block + range.blocks - block) / BLOCKS_PER_UNIT)
      if (units > 0) runs.push({ block, blocks: units * BLOCKS_PER_UNIT })
    }
    const last = ranges.at(-1)
    if (last === undefined) return runs
    from = last.block + last.blocks
  }
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
function findFreeUnit(context: RepairContext): BlockRange | undefined {
  const [first] = freeRuns(context)
  return first === undefined ? undefined : { block: first.block, blocks: BLOCKS_PER_UNIT }
}

function takeUnits({ index }: RepairContext, range: BlockRange): void {
  index.freeSpace.allocate(range.block, range.blocks)
  for (const unit of unitsOf(range)) index.rmap.put(slotRow(unit.block))
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
