/** What must hold in a superblock beyond the widths of its fields: a region is untrusted input. */
import { MediaError } from './errors.ts'
import {
  BLOCK_SIZE,
  BLOCKS_PER_UNIT,
  COUNTER_MAX,
  COUNTER_SPENT,
  type Geometry,
  geometryFor,
  UNIT_SIZE,
} from './geometry.ts'
import {
  type BlockRange,
  MAX_POISON_RANGES,
  MAX_SLOT_EXTENTS,
  type RawSuperblock,
  type Superblock,
} from './superblock-layout.ts'

/** The geometry a superblock describes; every stored number of it must agree with the others. */
export function checkedGeometry(
  raw: RawSuperblock,
  mediaOffset: number,
  offsets: Readonly<Record<string, number>>,
): Geometry {
  const fail = (field: string, sentence: string): never => {
    throw new MediaError('superblock', mediaOffset + offsets[field]!, sentence)
  }
  if (raw.blockSize !== BLOCK_SIZE) fail('blockSize', `block size ${raw.blockSize}`)
  if (raw.unitSize !== UNIT_SIZE) fail('unitSize', `unit size ${raw.unitSize}`)
  if (raw.regionSize % UNIT_SIZE !== 0) {
    fail('regionSize', `region size ${raw.regionSize} is not whole units`)
  }
  const geometry = geometryFor(raw.regionSize, raw.journalLength0)
  const [half0, half1] = geometry.journal
  if (raw.journalOffset0 !== half0.offset) fail('journalOffset0', 'journal half 0 is misplaced')
  if (raw.journalOffset1 !== half1.offset) fail('journalOffset1', 'journal half 1 is misplaced')
  if (raw.journalLength1 !== half1.length) fail('journalLength1', 'journal halves differ in length')
  return geometry
}

/** Checks ranges as one set: inside [start, end), not empty, none twice. */
function checkRanges(
  ranges: readonly BlockRange[],
  start: number,
  end: number,
  fail: (sentence: string) => never,
): void {
  const sorted = ranges.toSorted((one, other) => one.block - other.block)
  let free = start
  for (const { block, blocks } of sorted) {
    if (blocks === 0) fail(`an extent at block ${block} is empty`)
    if (block < free) fail(`the extent at block ${block} overlaps another or lies outside`)
    // Not block + blocks > end: the sum of two hostile safe integers need not be exact.
    if (blocks > end - block) fail(`the extent of ${blocks} blocks at ${block} leaves the region`)
    free = block + blocks
  }
}

/** Blocks of a list of ranges. */
export function totalBlocks(ranges: readonly BlockRange[]): number {
  return ranges.reduce((sum, range) => sum + range.blocks, 0)
}

/** Why a mount cannot count on, from the superblock and the last record. */
export function spentCounter(
  superblock: Superblock,
  last: { readonly sequence: number; readonly epoch: number },
): string | undefined {
  const { generation, epoch } = superblock
  const counters = { generation, epoch: Math.max(epoch, last.epoch), sequence: last.sequence }
  const spent = Object.entries(counters).find(([, value]) => value > COUNTER_SPENT)
  return spent && `the ${spent[0]} ${spent[1]} is so high that no mount may count on from there`
}

/** Throws MediaError; used on what was read and on what is about to be written. */
export function checkSuperblock(superblock: Superblock, mediaOffset: number): void {
  const fail = (sentence: string): never => {
    throw new MediaError('superblock', mediaOffset, sentence)
  }
  const { geometry, slots, checkpoint, poison } = superblock
  const { generation, epoch, bootEpoch } = superblock
  for (const counter of [generation, epoch, bootEpoch, checkpoint.sequence]) {
    if (counter > COUNTER_MAX) fail(`a counter at ${counter}`)
  }
  for (const [index, slot] of slots.entries()) {
    if (slot.length > MAX_SLOT_EXTENTS) fail(`slot ${index} has ${slot.length} extents`)
    for (const { block, blocks } of slot) {
      if (block % BLOCKS_PER_UNIT !== 0 || blocks % BLOCKS_PER_UNIT !== 0) {
        fail(`slot ${index}: the extent at block ${block} is not whole units`)
      }
    }
  }
  checkRanges(slots.flat(), geometry.dataStartBlock, geometry.dataEndBlock, fail)
  if (poison.length > MAX_POISON_RANGES) fail(`${poison.length} poisoned ranges`)
  checkRanges(poison, 0, geometry.blocks, fail)
  const capacity = totalBlocks(slots[checkpoint.slot]) * BLOCK_SIZE
  if (checkpoint.length > capacity) {
    fail(`an image of ${checkpoint.length} bytes in a slot of ${capacity}`)
  }
  if (superblock.state !== 'shutdown' && superblock.shutdownReason !== 'none') {
    fail(`shutdown reason ${superblock.shutdownReason} in state ${superblock.state}`)
  }
  if (superblock.shutdownOffset >= geometry.size) {
    fail(`shutdown offset ${superblock.shutdownOffset} lies outside the region`)
  }
}
