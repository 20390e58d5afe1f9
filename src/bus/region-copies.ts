/** The two copies of a region's state, at both ends of its memory. */
import type { Memory } from '../dax/memory.ts'
import { MediaError } from '../media/errors.ts'
import { UNIT_SIZE } from '../media/geometry.ts'
import { SUPERBLOCK_MAGIC } from '../media/superblock-layout.ts'
import { type Copies, magicAt, readCopies, secondCopyFor, tolerant, writeCopies } from './copies.ts'
import { REGION_MAGIC, regionCodec } from './region-layout.ts'
import { copyOffsets, decodeRegion, encodeRegion, type RegionState } from './region-state.ts'

export interface LoadedRegion {
  readonly state: RegionState
  /** In the order in which the copies may be replaced. */
  readonly offsets: readonly number[]
}

/** Throws MediaError or MemoryFailure when there is no region, or none that can be believed. */
export function loadRegion(memory: Memory): LoadedRegion {
  const { best, offsets, errors } = read(memory)
  if (best !== undefined) return { state: best, offsets }
  throw errors.get(0) ?? [...errors.values()][0] ?? new MediaError('region', 0, 'is not there')
}

export function storeRegion(memory: Memory, state: RegionState, offsets: readonly number[]): void {
  writeCopies(memory, offsets, encodeRegion(state))
}

/** Makes a region of the memory. */
export function formatRegion(memory: Memory, state: RegionState): void {
  storeRegion(memory, state, [...copyOffsets(state)].reverse())
}

/**
 * True when the memory is a region that is split into instances, however damaged. A filesystem at
 * its start is one that was made over an old region.
 */
export function isRegion(memory: Memory): boolean {
  const [first, second] = offsetsIn(memory).map((offset) => magicAt(memory, offset))
  return first === REGION_MAGIC || (first !== SUPERBLOCK_MAGIC && second === REGION_MAGIC)
}

/** Both copies are no region any more. */
export function eraseRegion(memory: Memory): void {
  for (const offset of offsetsIn(memory)) {
    if (magicAt(memory, offset) !== REGION_MAGIC) continue
    memory.zero(offset, regionCodec.size)
    memory.flush(offset, regionCodec.size)
  }
}

function read(memory: Memory): Copies<RegionState> {
  return readCopies(memory, offsetsIn(memory), regionCodec.size, (bytes, offset) => {
    const state = decodeRegion(bytes, offset)
    if (state.secondCopy + UNIT_SIZE > memory.size) {
      throw new MediaError(
        'region',
        offset,
        `needs ${state.secondCopy + UNIT_SIZE} bytes of memory`,
      )
    }
    // A copy of the whole region at another place would pass every other check.
    if (!copyOffsets(state).includes(offset)) {
      throw new MediaError('region', offset, `a second copy belongs at ${state.secondCopy}`)
    }
    return state
  })
}

/** A region that grew has its second copy elsewhere than at the end; only the first knows where. */
function offsetsIn(memory: Memory): number[] {
  const atEnd = secondCopyFor(memory.size)
  const told = tolerant(() => {
    const bytes = new Uint8Array(regionCodec.size)
    memory.read(0, bytes, 0, bytes.length)
    return decodeRegion(bytes, 0).secondCopy
  })
  const second = told !== undefined && told <= atEnd ? told : atEnd
  return second > 0 ? [0, second] : [0]
}
