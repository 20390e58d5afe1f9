/** The state of a region that is split into instances: in memory, and as it is kept in the region. */
import { randomUUID } from 'node:crypto'
import { constants } from 'node:os'
import type { ByteRange } from '../dax/bad-ranges.ts'
import { DaxError } from '../dax/errors.ts'
import { MediaError } from '../media/errors.ts'
import { UNIT_SIZE } from '../media/geometry.ts'
import type { Codec } from '../media/layout.ts'
import { seal, secondCopyFor, unseal } from './copies.ts'
import {
  INSTANCE_ENABLED,
  instanceCodec,
  MAX_INSTANCES,
  MAX_RANGES,
  type RawRegion,
  REGION_MAGIC,
  REGION_STATIC,
  REGION_VERSION,
  rangeCodec,
  regionCodec,
} from './region-layout.ts'

const { EINVAL } = constants.errno

/** What a processor can map in one piece: dax_align_valid. */
export const ALIGNMENTS: readonly number[] = [4096, 2 << 20, 1 << 30]
/** Memory is given to an instance in pieces of at least this: memremap_compat_align. */
const SUBSECTION = 2 << 20

export interface Instance {
  readonly id: number
  readonly align: number
  /** A driver is bound to it: a filesystem may use it, and its memory may not change. */
  readonly enabled: boolean
  /** INVARIANT: in the order of their place in the instance, disjoint, inside the region. */
  readonly ranges: readonly ByteRange[]
}

export interface RegionState {
  readonly uuid: string
  /** INVARIANT: grows with every change. */
  readonly sequence: number
  readonly id: number
  readonly isStatic: boolean
  readonly align: number
  /** The memory that instances share, bytes of the file. */
  readonly start: number
  readonly length: number
  readonly secondCopy: number
  /** Id of the first instance made since the last seed was enabled. */
  readonly seed: number | undefined
  readonly youngest: number | undefined
  /** INVARIANT: by id; a region always has its instance 0. */
  readonly instances: readonly Instance[]
}

/** In which pieces the memory of an instance comes: alloc_is_aligned. */
export function granuleOf({ align }: { readonly align: number }): number {
  return Math.max(align, SUBSECTION)
}

export function sizeOf(instance: Instance): number {
  return instance.ranges.reduce((sum, { length }) => sum + length, 0)
}

/** Bytes that no instance has. */
export function availableSize(state: RegionState): number {
  return state.instances.reduce((rest, instance) => rest - sizeOf(instance), state.length)
}

/** Where the copies lie: a unit at each end of the file is theirs. */
export function copyOffsets(state: RegionState): readonly number[] {
  return [0, state.secondCopy]
}

/** A new region in a file of `size` bytes: nothing given away, or all of it to instance 0. */
export function newRegion(
  size: number,
  options: { align: number; isStatic: boolean },
): RegionState {
  const { align, isStatic } = options
  requireAlign(align)
  const granule = granuleOf(options)
  const secondCopy = secondCopyFor(size)
  const length = secondCopy - granule - ((secondCopy - granule) % granule)
  if (length <= 0) {
    const least = 2 * granule + UNIT_SIZE
    throw new DaxError(EINVAL, `a region of this alignment needs at least ${least} bytes`)
  }
  const all = [{ offset: granule, length }]
  const first = { id: 0, align, enabled: isStatic, ranges: isStatic ? all : [] }
  return {
    uuid: randomUUID(),
    sequence: 1,
    id: 0,
    isStatic,
    align,
    start: granule,
    length,
    secondCopy,
    seed: undefined,
    youngest: undefined,
    instances: [first],
  }
}

export function requireAlign(align: number): void {
  if (ALIGNMENTS.includes(align)) return
  throw new DaxError(EINVAL, `an alignment of ${align} bytes is not possible: give 4K, 2M or 1G`)
}

export function encodeRegion(state: RegionState): Uint8Array {
  const ranges = state.instances.flatMap((instance) => instance.ranges)
  const entries = state.instances.map(({ id, align, enabled, ranges }) => {
    return { id, align, flags: enabled ? INSTANCE_ENABLED : 0, rangeCount: ranges.length }
  })
  return seal(regionCodec, {
    crc: 0,
    version: REGION_VERSION,
    magic: REGION_MAGIC,
    uuid: state.uuid,
    sequence: state.sequence,
    regionId: state.id,
    flags: state.isStatic ? REGION_STATIC : 0,
    align: state.align,
    seed: state.seed === undefined ? 0 : state.seed + 1,
    youngest: state.youngest === undefined ? 0 : state.youngest + 1,
    instanceCount: entries.length,
    rangeCount: ranges.length,
    start: state.start,
    length: state.length,
    secondCopy: state.secondCopy,
    instances: pack(instanceCodec, entries, MAX_INSTANCES),
    ranges: pack(
      rangeCodec,
      ranges.map(({ offset, length }) => ({ start: offset, length })),
      MAX_RANGES,
    ),
  })
}

/** Throws MediaError; nothing in a region is believed before it is checked. */
export function decodeRegion(bytes: Uint8Array, offset: number): RegionState {
  const expected = { magic: REGION_MAGIC, version: REGION_VERSION }
  const raw = unseal(regionCodec, bytes, offset, expected)
  const require = (good: boolean, sentence: string): void => {
    if (!good) throw new MediaError('region', offset, sentence)
  }
  require((raw.flags & ~REGION_STATIC) === 0, `unknown flags ${raw.flags}`)
  require(raw.instanceCount >= 1 && raw.instanceCount <= MAX_INSTANCES, 'too many instances')
  require(raw.rangeCount <= MAX_RANGES, 'too many ranges')
  const state = structured(raw, offset)
  require(ALIGNMENTS.includes(state.align), `alignment ${state.align}`)
  require(state.start >= UNIT_SIZE && state.start % UNIT_SIZE === 0, 'the memory begins too early')
  require(state.secondCopy % UNIT_SIZE === 0, 'the second copy is out of place')
  require(state.start + state.length <= state.secondCopy, 'the memory reaches into the second copy')
  const ids = state.instances.map(({ id }) => id)
  const ascending = ids.every((id, at) => id < MAX_INSTANCES && (at === 0 || id > ids[at - 1]!))
  require(ascending && ids[0] === 0, 'the instances are out of order')
  const known = [state.seed, state.youngest].every((id) => id === undefined || ids.includes(id))
  require(known, 'the seed or the youngest instance does not exist')
  require(state.instances.every(hasGoodRanges), 'an instance is malformed')
  require(disjoint(state), 'ranges overlap or lie outside the region')
  return state
}

function structured(raw: RawRegion, offset: number): RegionState {
  const entries = unpack(instanceCodec, raw.instances, raw.instanceCount, offset)
  const ranges = unpack(rangeCodec, raw.ranges, raw.rangeCount, offset)
  let next = 0
  const instances = entries.map(({ id, align, flags, rangeCount }) => {
    const own = ranges.slice(next, next + rangeCount)
    next += rangeCount
    if (own.length !== rangeCount || (flags & ~INSTANCE_ENABLED) !== 0) {
      throw new MediaError('region', offset, `instance ${id} is malformed`)
    }
    const places = own.map(({ start, length }) => ({ offset: start, length }))
    return { id, align, enabled: (flags & INSTANCE_ENABLED) !== 0, ranges: places }
  })
  if (next !== ranges.length) throw new MediaError('region', offset, 'a range has no instance')
  return {
    uuid: raw.uuid,
    sequence: raw.sequence,
    id: raw.regionId,
    isStatic: (raw.flags & REGION_STATIC) !== 0,
    align: raw.align,
    start: raw.start,
    length: raw.length,
    secondCopy: raw.secondCopy,
    seed: raw.seed === 0 ? undefined : raw.seed - 1,
    youngest: raw.youngest === 0 ? undefined : raw.youngest - 1,
    instances,
  }
}

function hasGoodRanges(instance: Instance): boolean {
  const granule = granuleOf(instance)
  const whole = instance.ranges.every(
    ({ offset, length }) => offset % SUBSECTION === 0 && length > 0 && length % granule === 0,
  )
  return whole && ALIGNMENTS.includes(instance.align) && (!instance.enabled || sizeOf(instance) > 0)
}

function disjoint({ start, length, instances }: RegionState): boolean {
  let end = start
  const all = instances.flatMap(({ ranges }) => ranges).sort((a, b) => a.offset - b.offset)
  for (const range of all) {
    if (range.offset < end) return false
    end = range.offset + range.length
  }
  return end <= start + length
}

function pack<S>(codec: Codec<S>, entries: readonly S[], most: number): Uint8Array {
  const bytes = new Uint8Array(codec.size * most)
  entries.forEach((entry, at) => {
    codec.encode(entry, bytes, at * codec.size)
  })
  return bytes
}

function unpack<S>(codec: Codec<S>, bytes: Uint8Array, count: number, offset: number): S[] {
  if (bytes.subarray(count * codec.size).some((byte) => byte !== 0)) {
    throw new MediaError('region', offset, `unused entries of ${codec.structure} are not zero`)
  }
  return Array.from({ length: count }, (_, at) => codec.decode(bytes, at * codec.size, offset))
}
