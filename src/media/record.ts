/** Journal records: the header and its checksum. The payload is change-codec.ts's. */
import type { Memory } from '../dax/memory.ts'
import { crc32c } from './checksum.ts'
import { MediaError } from './errors.ts'
import { COUNTER_MAX } from './geometry.ts'
import { compileLayout, type Layout } from './layout.ts'

/** Records start at multiples of this: a cache line. */
export const RECORD_ALIGNMENT = 64
/** 'HFJR' read as a little-endian number. */
export const RECORD_MAGIC = 0x524a4648

export const RECORD_TRANSACTION = 1
/** No payload: says that everything up to `durable` is durable. Carries the sequence before it. */
export const RECORD_MARK = 2

/** Written to memory whose stores are durable: the record, and all before it, needed no mark. */
export const RECORD_DURABLE_STORES = 1
/** On a mark: the records behind it are in the other half. */
export const RECORD_SWITCHED = 2

export const RECORD_HEADER = [
  ['crc', 'u32', "CRC32C of the record's other bytes, begun with journalSeed"],
  ['magic', 'u32', '0x524a4648, HFJR'],
  ['length', 'u32', 'bytes of header and payload, without padding'],
  ['kind', 'u8', '1 transaction, 2 commit mark'],
  ['flags', 'u8', 'bit 0: the memory had durable stores; bit 1: goes on in the other half'],
  ['reserved0', 'reserved(2)', 'zero'],
  ['epoch', 'u64', 'of the mount that wrote it'],
  ['sequence', 'u64', 'of the transaction; a mark repeats the one before it'],
  ['durable', 'u64', 'last sequence known durable when it was written'],
  ['reserved1', 'reserved(8)', 'zero'],
] as const satisfies Layout

export interface RecordHeader {
  crc: number
  magic: number
  length: number
  kind: number
  flags: number
  epoch: number
  sequence: number
  durable: number
}

export const recordHeader = compileLayout('journal record', RECORD_HEADER)

/** Bytes of a header; the payload starts behind it. */
export const RECORD_HEADER_SIZE = recordHeader.size

/** Bytes a record takes in the journal. */
export function paddedLength(length: number): number {
  return Math.ceil(length / RECORD_ALIGNMENT) * RECORD_ALIGNMENT
}

/** Completes a record whose payload already lies behind the header: sets magic and CRC. */
export function sealRecord(header: RecordHeader, buffer: Uint8Array, seed: number): void {
  header.magic = RECORD_MAGIC
  header.crc = 0
  recordHeader.encode(header, buffer, 0)
  header.crc = crc32c(buffer, 4, header.length - 4, seed)
  buffer[0] = header.crc
  buffer[1] = header.crc >>> 8
  buffer[2] = header.crc >>> 16
  buffer[3] = header.crc >>> 24
}

const scratch = new Uint8Array(RECORD_HEADER_SIZE)

/**
 * The header of the record at `offset`, or undefined when no whole record lies there before `end`.
 * `plausible` may reject it before the CRC of the whole record is computed. Throws MemoryFailure.
 */
export function readRecord(
  memory: Memory,
  offset: number,
  end: number,
  seed: number,
  plausible?: (header: RecordHeader) => boolean,
): RecordHeader | undefined {
  if (offset + RECORD_HEADER_SIZE > end) return undefined
  memory.read(offset, scratch, 0, RECORD_HEADER_SIZE)
  const header = decodeHeader(offset)
  if (header === undefined || header.length > end - offset) return undefined
  if (plausible && !plausible(header)) return undefined
  return memory.crc32c(offset + 4, header.length - 4, seed) === header.crc ? header : undefined
}

function decodeHeader(offset: number): RecordHeader | undefined {
  try {
    const header = recordHeader.decode(scratch, 0, offset)
    if (header.magic !== RECORD_MAGIC || header.length < RECORD_HEADER_SIZE) return undefined
    if (header.durable > header.sequence) return undefined
    if (header.sequence > COUNTER_MAX || header.epoch > COUNTER_MAX) return undefined
    if (header.kind === RECORD_MARK)
      return header.length === RECORD_HEADER_SIZE ? header : undefined
    return header.kind === RECORD_TRANSACTION ? header : undefined
  } catch (error) {
    // Leftovers of earlier laps and other bytes that never were a header.
    if (error instanceof MediaError) return undefined
    throw error
  }
}
