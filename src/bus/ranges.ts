/** Which bytes of a region an instance gets: dev_dax_resize and dev_dax_shrink of the kernel. */
import { constants } from 'node:os'
import type { ByteRange } from '../dax/bad-ranges.ts'
import { DaxError } from '../dax/errors.ts'
import { granuleOf, type Instance, type RegionState } from './region-state.ts'

const { ENOMEM, ENOSPC } = constants.errno

/** Takes `less` bytes away, from the last range first. */
export function shrink(ranges: readonly ByteRange[], less: number): ByteRange[] {
  const kept = [...ranges]
  let rest = less
  while (rest > 0 && kept.length > 0) {
    const last = kept.pop()!
    if (last.length > rest) kept.push({ ...last, length: last.length - rest })
    rest -= Math.min(rest, last.length)
  }
  return kept
}

/**
 * Gives `more` bytes, the first free ones of the region first. A gap right behind the last range of
 * the instance makes that range longer, any other becomes a new range.
 */
export function grow(state: RegionState, instance: Instance, more: number): ByteRange[] {
  const others = state.instances
    .filter(({ id }) => id !== instance.id)
    .flatMap(({ ranges }) => ranges)
  const own = [...instance.ranges]
  let rest = more
  while (rest > 0) {
    const gap = firstGap(state, [...others, ...own], granuleOf(instance))
    const length = Math.min(gap.length, rest)
    const last = own.at(-1)
    if (last !== undefined && gap.behind === last) {
      own[own.length - 1] = { ...last, length: last.length + length }
    } else own.push({ offset: gap.offset, length })
    rest -= length
  }
  return own
}

interface Gap extends ByteRange {
  /** The range that ends where the gap begins. */
  readonly behind: ByteRange | undefined
}

/** The first free bytes that come to a whole granule at least; only whole ones are told of. */
function firstGap({ start, length }: RegionState, taken: ByteRange[], granule: number): Gap {
  const sorted = taken.sort((a, b) => a.offset - b.offset)
  let offset = start
  let behind: ByteRange | undefined
  for (const range of [...sorted, { offset: start + length, length: 0 }]) {
    const free = range.offset - offset
    if (free >= granule) return { offset, length: free - (free % granule), behind }
    offset = range.offset + range.length
    behind = range
  }
  const sentence = `what is left of the region comes in pieces smaller than ${granule} bytes`
  throw new DaxError(ENOSPC, sentence)
}

/** These very bytes, when they are free: __request_region. */
export function request(state: RegionState, wanted: ByteRange): ByteRange {
  const end = wanted.offset + wanted.length
  const inside = wanted.offset >= state.start && end <= state.start + state.length
  const taken = state.instances
    .flatMap(({ ranges }) => ranges)
    .some(({ offset, length }) => offset < end && wanted.offset < offset + length)
  if (inside && !taken) return wanted
  const why = inside ? 'another instance has some of them' : 'they lie outside the region'
  throw new DaxError(ENOMEM, `bytes ${wanted.offset} to ${end - 1} cannot be had: ${why}`)
}
