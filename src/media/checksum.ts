/**
 * CRC32C (Castagnoli) of buffers, eight bytes at a time, in TypeScript: mkfs, tools and tests need
 * no addon for it. Mapped ranges go through Memory.crc32c instead.
 */

/** Castagnoli's polynomial, bits reflected. */
const POLYNOMIAL = 0x82f63b78

function makeTables(): Int32Array[] {
  const tables = Array.from({ length: 8 }, () => new Int32Array(256))
  for (let byte = 0; byte < 256; byte += 1) {
    let crc = byte
    for (let bit = 0; bit < 8; bit += 1) crc = (crc & 1 ? POLYNOMIAL : 0) ^ (crc >>> 1)
    tables[0]![byte] = crc
  }
  for (let slice = 1; slice < 8; slice += 1) {
    for (let byte = 0; byte < 256; byte += 1) {
      const crc = tables[slice - 1]![byte]!
      tables[slice]![byte] = tables[0]![crc & 255]! ^ (crc >>> 8)
    }
  }
  return tables
}

const [T0, T1, T2, T3, T4, T5, T6, T7] = makeTables() as [
  Int32Array,
  Int32Array,
  Int32Array,
  Int32Array,
  Int32Array,
  Int32Array,
  Int32Array,
  Int32Array,
]

/** CRC32C of buffer[offset, offset + length). `seed` is 0 or the CRC of what came before. */
export function crc32c(buffer: Uint8Array, offset: number, length: number, seed = 0): number {
  const end = offset + length
  if (!(offset >= 0 && length >= 0 && end <= buffer.length)) {
    throw new RangeError(`crc32c of [${offset}, ${end}) in a buffer of ${buffer.length} bytes`)
  }
  let crc = ~seed
  let at = offset
  for (; at + 8 <= end; at += 8) {
    crc =
      T7[(crc ^ buffer[at]!) & 255]! ^
      T6[((crc >>> 8) ^ buffer[at + 1]!) & 255]! ^
      T5[((crc >>> 16) ^ buffer[at + 2]!) & 255]! ^
      T4[(crc >>> 24) ^ buffer[at + 3]!]! ^
      T3[buffer[at + 4]!]! ^
      T2[buffer[at + 5]!]! ^
      T1[buffer[at + 6]!]! ^
      T0[buffer[at + 7]!]!
  }
  for (; at < end; at += 1) crc = T0[(crc ^ buffer[at]!) & 255]! ^ (crc >>> 8)
  return ~crc >>> 0
}
