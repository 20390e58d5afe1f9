/**
 * Memory that refuses its bad ranges by itself. The kernel tells of poison on device-dax once; the
 * next fault maps the page again and reads on, so nobody but us keeps a bad page out of use.
 */
import type { BadRanges } from './bad-ranges.ts'
import { type Memory, MemoryFailure } from './memory.ts'

export class FencedMemory implements Memory {
  readonly size: number
  readonly durableStores: boolean
  readonly #inner: Memory
  readonly #bad: BadRanges

  constructor(inner: Memory, bad: BadRanges) {
    this.size = inner.size
    this.durableStores = inner.durableStores
    this.#inner = inner
    this.#bad = bad
  }

  get mapId(): number | undefined {
    return this.#inner.mapId
  }

  read(offset: number, target: Uint8Array, targetOffset: number, length: number): void {
    this.#refuse(offset, length)
    this.#inner.read(offset, target, targetOffset, length)
  }

  write(offset: number, source: Uint8Array, sourceOffset: number, length: number): void {
    this.#refuse(offset, length)
    this.#inner.write(offset, source, sourceOffset, length)
  }

  zero(offset: number, length: number): void {
    this.#refuse(offset, length)
    this.#inner.zero(offset, length)
  }

  move(from: number, to: number, length: number): void {
    this.#refuse(from, length)
    this.#refuse(to, length)
    this.#inner.move(from, to, length)
  }

  isZero(offset: number, length: number): boolean {
    this.#refuse(offset, length)
    return this.#inner.isZero(offset, length)
  }

  crc32c(offset: number, length: number, seed: number): number {
    this.#refuse(offset, length)
    return this.#inner.crc32c(offset, length, seed)
  }

  probe(offset: number, length: number): void {
    this.#refuse(offset, length)
    this.#inner.probe(offset, length)
  }

  /** Not fenced: a flush takes in whole neighbourhoods, and the good pages in them must get out. */
  flush(offset: number, length: number): void {
    this.#inner.flush(offset, length)
  }

  flushAsync(offset: number, length: number): Promise<void> {
    return this.#inner.flushAsync(offset, length)
  }

  close(): void {
    this.#inner.close()
  }

  #refuse(offset: number, length: number): void {
    if (this.#bad.empty) return
    const at = this.#bad.firstIn(offset, length)
    if (at !== -1) throw new MemoryFailure(at, undefined, true)
  }
}
