/**
 * A struct kept twice, far enough apart that one memory error takes only one of them. Each copy is
 * whole and checked by itself, and the valid one with the higher sequence counts.
 */
import { type Memory, MemoryFailure } from '../dax/memory.ts'
import { crc32c } from '../media/checksum.ts'
import { MediaError } from '../media/errors.ts'
import { UNIT_SIZE } from '../media/geometry.ts'
import type { Codec } from '../media/layout.ts'

const MAGIC_OFFSET = 8
const MAGIC_LENGTH = 8

/** The fields that every struct kept this way begins with. */
export interface Sealed {
  readonly crc: number
  readonly version: number
  readonly magic: string
  readonly sequence: number
}

export interface Copies<T> {
  /** Undefined when no copy can be trusted. */
  readonly best: T | undefined
  /** INVARIANT: the offset of `best` is the last one: replacing it first could lose it. */
  readonly offsets: readonly number[]
  /** Why a copy is not good, by its offset. */
  readonly errors: ReadonlyMap<number, Error>
}

/** The bytes of a struct, its CRC filled in. */
export function seal<T extends Sealed>(codec: Codec<T>, struct: T): Uint8Array {
  const bytes = new Uint8Array(codec.size)
  codec.encode(struct, bytes, 0)
  const crc = crc32c(bytes, 4, codec.size - 4)
  new DataView(bytes.buffer).setUint32(0, crc, true)
  return bytes
}

/** Throws MediaError for anything but a whole struct of this magic and version. */
export function unseal<T extends Sealed>(
  codec: Codec<T>,
  bytes: Uint8Array,
  offset: number,
  expected: { readonly magic: string; readonly version: number },
): T {
  const { structure, size } = codec
  const bad = (sentence: string) => new MediaError(structure, offset, sentence)
  const at = MAGIC_OFFSET
  const magic = Buffer.from(bytes.subarray(at, at + MAGIC_LENGTH)).toString('latin1')
  if (magic !== expected.magic) throw bad('it is not there (another magic)')
  const crc = new DataView(bytes.buffer, bytes.byteOffset).getUint32(0, true)
  if (crc !== crc32c(bytes, 4, size - 4)) throw bad('the checksum does not match')
  const struct = codec.decode(bytes, 0, offset)
  if (struct.version !== expected.version) throw bad(`version ${struct.version} is not known`)
  return struct
}

/** Reads the copies; throws neither for malformed nor for failing memory. */
export function readCopies<T extends { readonly sequence: number }>(
  memory: Memory,
  offsets: readonly number[],
  size: number,
  decode: (bytes: Uint8Array, offset: number) => T,
): Copies<T> {
  const errors = new Map<number, Error>()
  let best: { readonly value: T; readonly offset: number } | undefined
  for (const offset of offsets) {
    try {
      const bytes = new Uint8Array(size)
      memory.read(offset, bytes, 0, size)
      const value = decode(bytes, offset)
      if (best === undefined || value.sequence > best.value.sequence) best = { value, offset }
    } catch (error) {
      if (!(error instanceof MediaError || error instanceof MemoryFailure)) throw error
      errors.set(offset, error)
    }
  }
  const others = offsets.filter((offset) => offset !== best?.offset)
  const order = best === undefined ? others : [...others, best.offset]
  return { best: best?.value, offsets: order, errors }
}

/**
 * Writes the copies in the order of `offsets`, each durable before the next is touched. A copy in
 * failing memory is left out; throws MemoryFailure when none could be written.
 */
export function writeCopies(memory: Memory, offsets: readonly number[], bytes: Uint8Array): void {
  const failures: MemoryFailure[] = []
  for (const offset of offsets) {
    try {
      memory.write(offset, bytes, 0, bytes.length)
      memory.flush(offset, bytes.length)
    } catch (error) {
      if (!(error instanceof MemoryFailure)) throw error
      failures.push(error)
    }
  }
  const [first] = failures
  if (first !== undefined && failures.length === offsets.length) throw first
}

/** The first block of the last whole unit. */
export function secondCopyFor(size: number): number {
  return size - (size % UNIT_SIZE) - UNIT_SIZE
}

/** Every magic of ours lies at the same place of its struct; undefined when it cannot be read. */
export function magicAt(memory: Memory, offset: number): string | undefined {
  if (offset < 0) return undefined
  const bytes = new Uint8Array(MAGIC_LENGTH)
  return tolerant(() => {
    memory.read(offset + MAGIC_OFFSET, bytes, 0, bytes.length)
    return Buffer.from(bytes).toString('latin1')
  })
}

/** Undefined for what is malformed, and for memory that cannot be read. */
export function tolerant<T>(body: () => T): T | undefined {
  try {
    return body()
  } catch (error) {
    if (error instanceof MediaError || error instanceof MemoryFailure) return undefined
    throw error
  }
}
