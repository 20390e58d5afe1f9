/** Finding records anywhere in a half, whatever lies between them. */
import { type Memory, MemoryFailure } from '../dax/memory.ts'
import type { ByteExtent } from '../media/geometry.ts'
import {
  RECORD_ALIGNMENT,
  RECORD_HEADER_SIZE,
  RECORD_MAGIC,
  type RecordHeader,
  readRecord,
} from '../media/record.ts'

const CHUNK = 256 * 1024
const PAGE = 4096
/** Where the magic lies in a header. */
const MAGIC_OFFSET = 4

export interface FoundRecord {
  readonly header: RecordHeader
  /** Bytes from the start of the half. */
  readonly position: number
}

/** Where records are read: the memory, the half, and the seed of their CRC. */
export interface RecordSource {
  readonly memory: Memory
  readonly half: ByteExtent
  readonly seed: number
}

/** The record at a position of the half, if one is there. Throws MemoryFailure. */
export function recordAt(
  { memory, half, seed }: RecordSource,
  position: number,
  plausible?: (header: RecordHeader) => boolean,
): RecordHeader | undefined {
  if (position + RECORD_HEADER_SIZE > half.length) return undefined
  const end = half.offset + half.length
  return readRecord(memory, half.offset + position, end, seed, plausible)
}

/**
 * Every valid record from `position` on at which `plausible` nods, in the order they lie. It goes
 * in steps of a cache line, not from record to record, so damage hides nothing behind it. Memory
 * that cannot be read is passed over.
 */
export function* findRecords(
  source: RecordSource,
  position: number,
  plausible: (header: RecordHeader) => boolean,
): Generator<FoundRecord> {
  for (const at of findMagic(source, position)) {
    try {
      const header = recordAt(source, at, plausible)
      if (header) yield { header, position: at }
    } catch (error) {
      if (!(error instanceof MemoryFailure)) throw error
    }
  }
}

/** Positions where a header could start. */
function* findMagic({ memory, half }: RecordSource, position: number): Generator<number> {
  const chunk = new Uint8Array(CHUNK)
  const words = new DataView(chunk.buffer)
  let at = position
  while (at < half.length) {
    // Chunks end at multiples of their size, so that after the first they are page aligned.
    const length = Math.min(CHUNK - (at % CHUNK), half.length - at)
    const readable = readPages(memory, half.offset + at, chunk, length)
    for (let inside = 0; inside < readable; inside += RECORD_ALIGNMENT) {
      if (words.getUint32(inside + MAGIC_OFFSET, true) === RECORD_MAGIC) yield at + inside
    }
    at += length
  }
}

/** Reads what can be read; pages that cannot are zero in the chunk. Returns `length`. */
function readPages(memory: Memory, offset: number, chunk: Uint8Array, length: number): number {
  try {
    memory.read(offset, chunk, 0, length)
    return length
  } catch (error) {
    if (!(error instanceof MemoryFailure)) throw error
  }
  for (let at = 0; at < length; ) {
    const piece = Math.min(PAGE - ((offset + at) % PAGE), length - at)
    try {
      memory.read(offset + at, chunk, at, piece)
    } catch (error) {
      if (!(error instanceof MemoryFailure)) throw error
      chunk.fill(0, at, at + piece)
    }
    at += piece
  }
  return length
}
