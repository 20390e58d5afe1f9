/**
 * Memory that can lose power. Stores are volatile until they are persisted: every store at its end
 * in 'cacheline' mode (as on device-dax), at flush in 'page' mode (as on a plain file).
 *
 * One image is kept, the volatile one, and beside it the persistent content of every line that
 * differs from it; so a store costs what it touches, and a crash costs what was ever written.
 */
import { native } from '../native/binding.ts'
import { BadRanges } from './bad-ranges.ts'
import { type Memory, MemoryFailure, PAGE_SIZE } from './memory.ts'

export type SimulatedMode = 'cacheline' | 'page'

/** What a line holds if power fails now, and the flush it has that from. */
interface Persistent {
  readonly content: Uint8Array
  readonly flush: number
}

/** A store of one word never tears. */
const WORD = 8
/** What crash() copies is counted in pieces of this size. */
const PIECE = 64 * 1024

export class SimulatedMemory implements Memory {
  readonly size: number
  readonly mode: SimulatedMode
  readonly durableStores: boolean
  readonly mapId = undefined
  /** Bytes that persist or perish together. */
  readonly lineSize: number
  /** How many times something was made durable. */
  persistPoints = 0
  /**
   * Called before each persist point takes effect, its number first: crash() here gives every state
   * in the middle of it. If it throws, the lines stay unflushed.
   */
  onPersist: ((point: number, memory: SimulatedMemory) => void) | undefined
  /**
   * Called in the middle of each store that is no persist point, when half of it is there: whoever
   * kills the program now leaves that and every store before it.
   */
  onStore: ((memory: SimulatedMemory) => void) | undefined
  readonly #image: Buffer
  /** Line number → what it holds if power fails now. */
  readonly #unflushed = new Map<number, Persistent>()
  /** Counts flushes as they begin: of two contents, the one of the later is newer. */
  #flushes = 0
  readonly #touched: Uint8Array
  readonly #poisoned = new BadRanges()

  constructor(size: number, mode: SimulatedMode = 'cacheline') {
    if (!Number.isSafeInteger(size) || size <= 0 || size % PAGE_SIZE !== 0) {
      throw new RangeError(`simulated memory comes in whole pages, not ${size} bytes`)
    }
    this.size = size
    this.mode = mode
    this.durableStores = mode === 'cacheline'
    this.lineSize = mode === 'cacheline' ? 64 : PAGE_SIZE
    this.#image = Buffer.alloc(size)
    this.#touched = new Uint8Array(Math.ceil(size / PIECE))
  }

  read(offset: number, target: Uint8Array, targetOffset: number, length: number): void {
    this.probe(offset, length)
    checkBuffer(target, targetOffset, length)
    target.set(this.#image.subarray(offset, offset + length), targetOffset)
  }

  write(offset: number, source: Uint8Array, sourceOffset: number, length: number): void {
    checkBuffer(source, sourceOffset, length)
    this.#store(offset, length, (count) => {
      this.#image.set(source.subarray(sourceOffset, sourceOffset + count), offset)
    })
  }

  zero(offset: number, length: number): void {
    this.#store(offset, length, (count) => {
      this.#image.fill(0, offset, offset + count)
    })
  }

  move(from: number, to: number, length: number): void {
    this.probe(from, length)
    // They may overlap, and are stored in two halves.
    const bytes = Uint8Array.from(this.#image.subarray(from, from + length))
    this.#store(to, length, (count) => {
      this.#image.set(bytes.subarray(0, count), to)
    })
  }

  isZero(offset: number, length: number): boolean {
    this.probe(offset, length)
    // Equal to itself one byte further on, and the first byte is zero.
    const bytes = this.#image.subarray(offset, offset + length)
    return length === 0 || (bytes[0] === 0 && bytes.subarray(1).equals(bytes.subarray(0, -1)))
  }

  crc32c(offset: number, length: number, seed: number): number {
    this.probe(offset, length)
    return native.crc32cBuffer(this.#image, offset, length, seed)
  }

  probe(offset: number, length: number): void {
    this.#checkRange(offset, length)
    const bad = this.#poisoned.firstIn(offset, length)
    if (bad !== -1) throw new MemoryFailure(bad)
  }

  flush(offset: number, length: number): void {
    this.#checkRange(offset, length)
    const lines = this.#unflushedIn(offset, length)
    if (lines.length === 0) return
    this.#announce()
    this.#flushes++
    for (const line of lines) this.#unflushed.delete(line)
  }

  /**
   * Persists what the lines hold now; a store made before the promise resolves may be lost. What a
   * later flush has persisted meanwhile stays.
   */
  async flushAsync(offset: number, length: number): Promise<void> {
    this.#checkRange(offset, length)
    const flush = ++this.#flushes
    const snapshots = this.#unflushedIn(offset, length).map(
      (line) => [line, this.#copyOf(line)] as const,
    )
    await new Promise((resolve) => setImmediate(resolve))
    if (snapshots.length === 0) return
    this.#announce()
    for (const [line, content] of snapshots) {
      const known = this.#unflushed.get(line)
      if (known === undefined || known.flush > flush) continue
      if (this.#line(line).equals(content)) this.#unflushed.delete(line)
      else this.#unflushed.set(line, { content, flush })
    }
  }

  /** Like the page cache of a file, the image outlives whoever had it open. */
  close(): void {}

  /** Lines whose volatile and persistent content may differ, ascending. */
  unflushedLines(): number[] {
    return [...this.#unflushed.keys()].sort((a, b) => a - b)
  }

  /** The host writes the chosen unflushed lines back by itself, as it may at any time. */
  writeBack(choose: (line: number) => boolean): void {
    this.#flushes++
    for (const line of this.unflushedLines()) if (choose(line)) this.#unflushed.delete(line)
  }

  /**
   * The memory as it is after a power failure now: the persistent image plus the unflushed lines
   * that `choose` names, of these only the 8-byte words that `tear` lets through. This memory goes
   * on unharmed, so many outcomes can be had from one moment. `crash(() => true)` is a plain copy.
   * `into` is used again when given: a memory of the same kind that nobody needs any more.
   */
  crash(
    choose: (line: number) => boolean = () => false,
    tear?: (line: number, word: number) => boolean,
    into?: SimulatedMemory,
  ): SimulatedMemory {
    const after = into ?? new SimulatedMemory(this.size, this.mode)
    after.#forget()
    after.#takePieces(this)
    for (const line of this.unflushedLines()) {
      const persistent = this.#unflushed.get(line)!.content
      if (!choose(line)) after.#image.set(persistent, line * this.lineSize)
      else if (tear !== undefined) after.#restoreTorn(line, persistent, tear)
    }
    for (const { offset, length } of this.#poisoned.list()) after.#poisoned.add(offset, length)
    return after
  }

  /** From now on every touch of these pages fails, as with a memory error. */
  poison(offset: number, length: number): void {
    this.#checkRange(offset, length)
    const start = offset - (offset % PAGE_SIZE)
    const end = Math.ceil((offset + length) / PAGE_SIZE) * PAGE_SIZE
    this.#poisoned.add(start, end - start)
  }

  unpoison(offset: number, length: number): void {
    this.#poisoned.remove(offset, length)
  }

  #forget(): void {
    this.onPersist = undefined
    this.onStore = undefined
    this.persistPoints = 0
    this.#unflushed.clear()
    this.#poisoned.remove(0, this.size)
  }

  #takePieces(from: SimulatedMemory): void {
    for (let piece = 0; piece < this.#touched.length; piece++) {
      const start = piece * PIECE
      if (from.#touched[piece] !== 0) from.#image.copy(this.#image, start, start, start + PIECE)
      else if (this.#touched[piece] !== 0) this.#image.fill(0, start, start + PIECE)
    }
    this.#touched.set(from.#touched)
  }

  #restoreTorn(
    line: number,
    persistent: Uint8Array,
    tear: (line: number, word: number) => boolean,
  ): void {
    for (let word = 0; word < this.lineSize / WORD; word++) {
      if (tear(line, word)) continue
      const bytes = persistent.subarray(word * WORD, (word + 1) * WORD)
      this.#image.set(bytes, line * this.lineSize + word * WORD)
    }
  }

  /** `put` stores the first `count` bytes: fewer than all of them when a page in the way is bad. */
  #store(offset: number, length: number, put: (count: number) => void): void {
    this.#checkRange(offset, length)
    if (length === 0) return
    const bad = this.#poisoned.firstIn(offset, length)
    const count = bad === -1 ? length : bad - offset
    const visible = !this.durableStores || this.onPersist !== undefined || bad !== -1
    // Nobody can look between such a store and its persist point: no need to keep the old content.
    if (visible) this.#rememberLines(offset, count)
    this.#touch(offset, count)
    if (!this.durableStores && this.onStore !== undefined) {
      const half = Math.floor((offset + count / 2) / WORD) * WORD - offset
      put(Math.max(0, half))
      this.onStore(this)
    }
    put(count)
    if (bad !== -1) throw new MemoryFailure(bad)
    if (!this.durableStores) return
    this.#announce()
    if (this.#unflushed.size > 0) {
      for (const line of this.#unflushedIn(offset, length)) this.#unflushed.delete(line)
    }
  }

  #announce(): void {
    const point = this.persistPoints++
    this.onPersist?.(point, this)
  }

  #rememberLines(offset: number, length: number): void {
    const end = offset + length
    for (let line = Math.floor(offset / this.lineSize); line * this.lineSize < end; line++) {
      if (this.#unflushed.has(line)) continue
      this.#unflushed.set(line, { content: this.#copyOf(line), flush: this.#flushes })
    }
  }

  #unflushedIn(offset: number, length: number): number[] {
    const first = Math.floor(offset / this.lineSize)
    const last = Math.ceil((offset + length) / this.lineSize) - 1
    const lines: number[] = []
    if (last - first >= this.#unflushed.size) {
      for (const line of this.#unflushed.keys()) if (line >= first && line <= last) lines.push(line)
      return lines
    }
    for (let line = first; line <= last; line++) if (this.#unflushed.has(line)) lines.push(line)
    return lines
  }

  #line(line: number): Buffer {
    return this.#image.subarray(line * this.lineSize, (line + 1) * this.lineSize)
  }

  /** Not slice(): that of a Buffer is a view. */
  #copyOf(line: number): Uint8Array {
    return new Uint8Array(this.#line(line))
  }

  #touch(offset: number, length: number): void {
    if (length === 0) return
    const last = Math.floor((offset + length - 1) / PIECE)
    this.#touched.fill(1, Math.floor(offset / PIECE), last + 1)
  }

  #checkRange(offset: number, length: number): void {
    const whole = Number.isSafeInteger(offset) && Number.isSafeInteger(length)
    if (!whole || offset < 0 || length < 0 || offset + length > this.size) {
      throw new RangeError(`bytes ${offset}+${length} lie outside a region of ${this.size}`)
    }
  }
}

function checkBuffer(buffer: Uint8Array, offset: number, length: number): void {
  if (offset < 0 || offset + length > buffer.length) {
    throw new RangeError(`bytes ${offset}+${length} lie outside a buffer of ${buffer.length}`)
  }
}
