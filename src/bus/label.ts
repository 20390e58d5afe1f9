/** The label of a target: read, checked, written, erased. */
import { type Memory, MemoryFailure } from '../dax/memory.ts'
import { MediaError } from '../media/errors.ts'
import { UNIT_SIZE } from '../media/geometry.ts'
import { SUPERBLOCK_MAGIC } from '../media/superblock-layout.ts'
import { magicAt, readCopies, seal, secondCopyFor, unseal, writeCopies } from './copies.ts'
import {
  LABEL_MAGIC,
  LABEL_VERSION,
  labelCodec,
  MAX_TARGETS,
  SET_KINDS,
  type SetKind,
  targetCodec,
} from './label-layout.ts'

export interface TargetShare {
  readonly uuid: string
  /** Bytes of the target that belong to the mapped device. */
  readonly length: number
}

/** What every target of a mapped device knows of the others. */
export interface SetLabel {
  readonly set: string
  readonly kind: SetKind
  /** Bytes; 0: linear. */
  readonly chunk: number
  readonly targets: readonly TargetShare[]
}

export interface TargetLabel extends SetLabel {
  readonly sequence: number
  readonly position: number
  /** Where the share of this target begins. */
  readonly start: number
  readonly secondCopy: number
}

/** Throws MediaError or MemoryFailure when neither copy can be believed. */
export function loadLabel(memory: Memory): TargetLabel {
  const offsets = [0, secondCopyFor(memory.size)]
  const { best, errors } = readCopies(memory, offsets, labelCodec.size, (bytes, offset) => {
    const label = decodeLabel(bytes, offset)
    const end = label.start + label.targets[label.position]!.length
    const place = end <= label.secondCopy && label.secondCopy + UNIT_SIZE <= memory.size
    if (place && (offset === 0 || offset === label.secondCopy)) return label
    throw new MediaError('target label', offset, 'it is that of a larger target, or out of place')
  })
  if (best !== undefined) return best
  throw errors.get(0)!
}

export function storeLabel(memory: Memory, label: TargetLabel): void {
  writeCopies(memory, [label.secondCopy, 0], encodeLabel(label))
}

/** True when the memory is a target of a mapped device, however damaged its label is. */
export function isTarget(memory: Memory): boolean {
  const first = magicAt(memory, 0)
  if (first === LABEL_MAGIC) return true
  // A filesystem at its start is one that was made over the target.
  return first !== SUPERBLOCK_MAGIC && magicAt(memory, secondCopyFor(memory.size)) === LABEL_MAGIC
}

export function eraseLabel(memory: Memory): void {
  for (const offset of [0, secondCopyFor(memory.size)]) {
    if (magicAt(memory, offset) !== LABEL_MAGIC) continue
    memory.zero(offset, labelCodec.size)
    memory.flush(offset, labelCodec.size)
  }
}

export function encodeLabel(label: TargetLabel): Uint8Array {
  const targets = new Uint8Array(targetCodec.size * MAX_TARGETS)
  label.targets.forEach((target, at) => {
    targetCodec.encode(target, targets, at * targetCodec.size)
  })
  const { set, sequence, position, chunk, start, secondCopy } = label
  const kind = SET_KINDS.indexOf(label.kind)
  const count = label.targets.length
  const sealed = { crc: 0, version: LABEL_VERSION, magic: LABEL_MAGIC, sequence }
  const place = { position, chunk, start, secondCopy }
  return seal(labelCodec, { ...sealed, set, kind, count, ...place, targets })
}

export function decodeLabel(bytes: Uint8Array, offset: number): TargetLabel {
  const expected = { magic: LABEL_MAGIC, version: LABEL_VERSION }
  const raw = unseal(labelCodec, bytes, offset, expected)
  const require = (good: boolean, sentence: string): void => {
    if (!good) throw new MediaError('target label', offset, sentence)
  }
  const kind = SET_KINDS[raw.kind]
  require(kind !== undefined, `unknown kind ${raw.kind}`)
  require(raw.count >= 2 && raw.count <= MAX_TARGETS, `${raw.count} targets`)
  require(raw.position < raw.count, `position ${raw.position} of ${raw.count}`)
  const used = raw.targets.subarray(0, raw.count * targetCodec.size)
  const rest = raw.targets.subarray(used.length)
  require(rest.every((byte) => byte === 0), 'unused targets are not zero')
  const targets = Array.from({ length: raw.count }, (_, at) =>
    targetCodec.decode(used, at * targetCodec.size, offset),
  )
  const unit = kind === 'striped' ? raw.chunk : UNIT_SIZE
  require(unit >= UNIT_SIZE && unit % UNIT_SIZE === 0, `a chunk of ${raw.chunk} bytes`)
  require(kind === 'striped' || raw.chunk === 0, 'a linear device has no chunk')
  require(targets.every(({ length }) => length > 0 && length % unit === 0), 'a share is malformed')
  const [first] = targets
  const equal = targets.every(({ length }) => length === first?.length)
  require(kind === 'linear' || equal, 'stripes of unequal length')
  require(raw.start >= UNIT_SIZE && raw.start % UNIT_SIZE === 0, 'the share begins too early')
  const { set, sequence, position, chunk, start, secondCopy } = raw
  return { set, kind: kind!, sequence, position, chunk, start, secondCopy, targets }
}

/** Why there is no label; anything but a malformed one or failing memory is thrown. */
export function labelOrError(memory: Memory): TargetLabel | Error {
  try {
    return loadLabel(memory)
  } catch (error) {
    if (error instanceof MediaError || error instanceof MemoryFailure) return error
    throw error
  }
}
