/** Field values that are more than a few byte stores: safe 64-bit integers, UUIDs, labels. */
import { MediaError } from './errors.ts'

const UUID = /^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$/
const HIGH = 4294967296

const encoder = new TextEncoder()
const decoder = new TextDecoder('utf-8', { fatal: true, ignoreBOM: true })

function getU32(buffer: Uint8Array, at: number): number {
  const high = (buffer[at + 2]! << 16) | (buffer[at + 3]! << 24)
  return (buffer[at]! | (buffer[at + 1]! << 8) | high) >>> 0
}

function unsafe(structure: string, field: string, mediaOffset: number): never {
  throw new MediaError(structure, mediaOffset, `${field} is not a safe integer`)
}

export function getU64(
  buffer: Uint8Array,
  at: number,
  structure: string,
  field: string,
  mediaOffset: number,
): number {
  const value = getU32(buffer, at + 4) * HIGH + getU32(buffer, at)
  return Number.isSafeInteger(value) ? value : unsafe(structure, field, mediaOffset)
}

export function getI64(
  buffer: Uint8Array,
  at: number,
  structure: string,
  field: string,
  mediaOffset: number,
): number {
  const value = (getU32(buffer, at + 4) | 0) * HIGH + getU32(buffer, at)
  return Number.isSafeInteger(value) ? value : unsafe(structure, field, mediaOffset)
}

export function isZeros(buffer: Uint8Array, start: number, end: number): boolean {
  for (let at = start; at < end; at += 1) if (buffer[at] !== 0) return false
  return true
}

/** False when `text` is not a UUID in its canonical, lower-case form. */
export function putUuid(text: string, buffer: Uint8Array, at: number): boolean {
  if (!UUID.test(text)) return false
  const digits = text.replaceAll('-', '')
  for (let byte = 0; byte < 16; byte += 1) {
    buffer[at + byte] = Number.parseInt(digits.slice(2 * byte, 2 * byte + 2), 16)
  }
  return true
}

export function getUuid(buffer: Uint8Array, at: number): string {
  const digits = Buffer.from(buffer.buffer, buffer.byteOffset + at, 16).toString('hex')
  return digits.replace(/^(.{8})(.{4})(.{4})(.{4})/, '$1-$2-$3-$4-')
}

/** False when `text` holds a NUL or takes more than `size` bytes of UTF-8. */
export function putLabel(text: string, buffer: Uint8Array, at: number, size: number): boolean {
  const bytes = encoder.encode(text)
  if (bytes.length > size || bytes.includes(0)) return false
  buffer.set(bytes, at)
  buffer.fill(0, at + bytes.length, at + size)
  return true
}

export function getLabel(
  buffer: Uint8Array,
  at: number,
  size: number,
  structure: string,
  field: string,
  mediaOffset: number,
): string {
  const bytes = buffer.subarray(at, at + size)
  const length = bytes.indexOf(0) < 0 ? size : bytes.indexOf(0)
  if (!isZeros(bytes, length, size)) {
    throw new MediaError(structure, mediaOffset, `${field} has bytes behind its end`)
  }
  try {
    return decoder.decode(bytes.subarray(0, length))
  } catch {
    throw new MediaError(structure, mediaOffset, `${field} is not UTF-8`)
  }
}

/** The longest prefix of `text` that fits a label of `size` bytes; never half a character. */
export function clipLabel(text: string, size: number): string {
  const [clean = ''] = text.split('\0')
  const { read } = encoder.encodeInto(clean, new Uint8Array(size))
  return clean.slice(0, read)
}
