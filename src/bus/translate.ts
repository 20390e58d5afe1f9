/** Where the bytes of a mapped device lie in its targets, and the way back: the dm table. */
import type { ByteRange } from '../dax/bad-ranges.ts'
import type { SetLabel } from './label.ts'

/** Bytes of the share of one target. */
export interface TargetRange extends ByteRange {
  readonly target: number
}

export function mappedSize({ targets }: SetLabel): number {
  return targets.reduce((sum, { length }) => sum + length, 0)
}

/** In which parts of which targets the range lies, in its own order. */
export function toTargets(set: SetLabel, offset: number, length: number): TargetRange[] {
  const found: TargetRange[] = []
  const end = offset + length
  for (let at = offset; at < end; ) {
    const place = set.kind === 'striped' ? stripeOf(set, at) : segmentOf(set, at)
    const bytes = Math.min(place.length, end - at)
    found.push({ target: place.target, offset: place.offset, length: bytes })
    at += bytes
  }
  return found
}

/** Which bytes of the mapped device the range of a target's share is, ascending. */
export function fromTarget(set: SetLabel, { target, offset, length }: TargetRange): ByteRange[] {
  const end = Math.min(offset + length, set.targets[target]?.length ?? 0)
  if (set.kind === 'linear') {
    const before = set.targets.slice(0, target).reduce((sum, share) => sum + share.length, 0)
    return offset < end ? [{ offset: before + offset, length: end - offset }] : []
  }
  const found: ByteRange[] = []
  for (let at = offset; at < end; ) {
    const within = at % set.chunk
    const bytes = Math.min(set.chunk - within, end - at)
    const row = (at - within) * set.targets.length
    found.push({ offset: row + target * set.chunk + within, length: bytes })
    at += bytes
  }
  return found
}

/** The rest of the segment that this byte lies in. */
function segmentOf({ targets }: SetLabel, at: number): TargetRange {
  let target = 0
  let offset = at
  while (offset >= targets[target]!.length) offset -= targets[target++]!.length
  return { target, offset, length: targets[target]!.length - offset }
}

/** The rest of the chunk that this byte lies in. */
function stripeOf({ chunk, targets }: SetLabel, at: number): TargetRange {
  const number = Math.floor(at / chunk)
  const within = at % chunk
  const row = Math.floor(number / targets.length)
  return { target: number % targets.length, offset: row * chunk + within, length: chunk - within }
}
