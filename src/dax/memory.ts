/**
 * Byte-addressable memory of a region. Every touch is guarded: a page that cannot be read or
 * written raises MemoryFailure, never a signal.
 */

/** Size of the page in which a memory failure is reported, bytes. */
export const PAGE_SIZE = 4096

/** Bytes [offset, offset + length) of the region could not be touched; page aligned. */
export class MemoryFailure extends Error {
  readonly offset: number
  readonly length: number
  /** True when the device knew of it and refused the touch: no news, nobody need be told. */
  readonly known: boolean

  constructor(offset: number, length: number = PAGE_SIZE, known = false) {
    const start = offset - (offset % PAGE_SIZE)
    super(`memory failure at region offset ${start}`)
    this.name = 'MemoryFailure'
    this.offset = start
    this.length = length
    this.known = known
  }
}

/**
 * Offsets and lengths are bytes. Every method but flushAsync throws MemoryFailure synchronously.
 */
export interface Memory {
  readonly size: number
  /**
   * True when a store followed by a cache-line write-back is durable (device-dax, MAP_SYNC): then
   * write, zero and move are durable when they return. False on plain files: durable at flush.
   */
  readonly durableStores: boolean
  /** The addon's mapping, for replies written straight from memory; undefined when simulated. */
  readonly mapId: number | undefined
  read(offset: number, target: Uint8Array, targetOffset: number, length: number): void
  write(offset: number, source: Uint8Array, sourceOffset: number, length: number): void
  zero(offset: number, length: number): void
  move(from: number, to: number, length: number): void
  isZero(offset: number, length: number): boolean
  crc32c(offset: number, length: number, seed: number): number
  /** Touches every page of the range. */
  probe(offset: number, length: number): void
  /** Durable when it returns, whatever the memory. */
  flush(offset: number, length: number): void
  /** The same off the JavaScript thread. */
  flushAsync(offset: number, length: number): Promise<void>
  close(): void
}
