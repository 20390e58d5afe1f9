/** Memory that notes every touch outside it, also one whose error somebody swallowed. */
import type { Memory } from '../../src/dax/memory.ts'

export class WatchedMemory implements Memory {
  readonly size: number
  readonly durableStores: boolean
  readonly mapId = undefined
  readonly #inner: Memory
  /** Touches outside the region. */
  readonly outside: string[] = []

  constructor(inner: Memory) {
    this.size = inner.size
    this.durableStores = inner.durableStores
    this.#inner = inner
  }

  read(offset: number, target: Uint8Array, targetOffset: number, length: number): void {
    this.#watch('read', offset, length)
    this.#inner.read(offset, target, targetOffset, length)
  }

  write(offset: number, source: Uint8Array, sourceOffset: number, length: number): void {
    this.#watch('write', offset, length)
    this.#inner.write(offset, source, sourceOffset, length)
  }

  zero(offset: number, length: number): void {
    this.#watch('zero', offset, length)
    this.#inner.zero(offset, length)
  }

  move(from: number, to: number, length: number): void {
    this.#watch('move from', from, length)
    this.#watch('move to', to, length)
    this.#inner.move(from, to, length)
  }

  isZero(offset: number, length: number): boolean {
    this.#watch('isZero', offset, length)
    return this.#inner.isZero(offset, length)
  }

  crc32c(offset: number, length: number, seed: number): number {
    this.#watch('crc32c', offset, length)
    return this.#inner.crc32c(offset, length, seed)
  }

  probe(offset: number, length: number): void {
    this.#watch('probe', offset, length)
    this.#inner.probe(offset, length)
  }

  flush(offset: number, length: number): void {
    this.#watch('flush', offset, length)
    this.#inner.flush(offset, length)
  }

  async flushAsync(offset: number, length: number): Promise<void> {
    this.#watch('flush', offset, length)
    await this.#inner.flushAsync(offset, length)
  }

  close(): void {
    this.#inner.close()
  }

  #watch(what: string, offset: number, length: number): void {
    const whole = Number.isSafeInteger(offset) && Number.isSafeInteger(length)
    if (whole && offset >= 0 && length >= 0 && offset + length <= this.size) return
    const place = new Error().stack?.split('\n').slice(3, 6).join(' <') ?? ''
    this.outside.push(`${what} of ${offset}+${length}${place.replace(/\s+/g, ' ')}`)
  }
}
