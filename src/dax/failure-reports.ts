/**
 * Reports of failed memory that name more than has failed: the kernel knows the page, but tells the
 * unit that one entry of the page table maps (2 MiB). The list of bad blocks says which pages it
 * is; without one the whole unit is given up.
 */
import { native } from '../native/binding.ts'
import type { ByteRange } from './bad-ranges.ts'
import type { Badblocks } from './badblocks.ts'
import type { DaxDevice } from './device.ts'
import { MF_ACTION_REQUIRED } from './holder.ts'
import { MemoryFailure, PAGE_SIZE } from './memory.ts'

/** The list is written by a worker of the kernel, so it may come a moment after the signal. */
const PATIENCE_MS = 100
const PAUSE_MS = 2
/** A signal about what the list has told before: within this time it is the same failure. */
const SAME_FAILURE_MS = 1000

interface Listed extends ByteRange {
  readonly time: number
}

export class FailureReports {
  readonly #device: DaxDevice
  readonly #badblocks: Badblocks | undefined
  /** What the list has named lately, by itself or when it was asked. */
  #lately: Listed[] = []

  constructor(device: DaxDevice, badblocks: Badblocks | undefined) {
    this.#device = device
    this.#badblocks = badblocks
  }

  /**
   * A unit that a signal named. `touched`: by a touch of memory that was not refused, which is news;
   * otherwise it may be what was told before, for every mapping of a page has its signal.
   */
  unit(unit: ByteRange, flags: number, touched = false): void {
    for (const { offset, length } of this.#narrow(unit, touched)) {
      this.#device.memoryFailure(offset, length, flags)
    }
    this.#touchAgain(unit)
  }

  /** The list has changed, or is read for the first time. */
  listed(): void {
    const fresh = (this.#badblocks?.read() ?? []).flatMap((range) => this.#unknown(range))
    this.#remember(fresh)
    for (const { offset, length } of fresh) this.#device.memoryFailure(offset, length, 0)
    for (const range of fresh) this.#touchAgain(range)
  }

  #remember(named: readonly ByteRange[]): void {
    const time = performance.now()
    this.#lately = this.#lately.filter((told) => time - told.time < SAME_FAILURE_MS)
    for (const { offset, length } of named) this.#lately.push({ offset, length, time })
  }

  /**
   * The pages of a unit that are news. Waits on the JavaScript thread: while it is not known which
   * pages are bad, nobody may be served from any of them.
   */
  #narrow(unit: ByteRange, touched: boolean): ByteRange[] {
    const unknown = this.#unknown(unit)
    if (unknown.length === 0) return []
    if (unit.length <= PAGE_SIZE || this.#badblocks === undefined) return [unit]
    const deadline = performance.now() + PATIENCE_MS
    for (;;) {
      const listed = this.#badblocks
        .read()
        .flatMap((range) => overlap(range, unit))
        .flatMap((range) => this.#unknown(range))
      if (listed.length > 0) {
        this.#remember(listed)
        return listed
      }
      if (!touched && this.#toldLately(unit)) return []
      if (performance.now() >= deadline) return [unit]
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, PAUSE_MS)
    }
  }

  #toldLately(unit: ByteRange): boolean {
    const since = performance.now() - SAME_FAILURE_MS
    return this.#lately.some((told) => told.time > since && overlap(told, unit).length > 0)
  }

  /** The parts of a range that the device does not refuse yet. */
  #unknown({ offset, length }: ByteRange): ByteRange[] {
    const parts: ByteRange[] = []
    let at = offset
    for (const bad of this.#device.badRanges.within(offset, length)) {
      if (bad.offset > at) parts.push({ offset: at, length: bad.offset - at })
      at = bad.offset + bad.length
    }
    if (at < offset + length) parts.push({ offset: at, length: offset + length - at })
    return parts
  }

  /**
   * A failure takes the whole unit out of the page table, and only of pages that are present is
   * told early: so a healthy page of it is touched again.
   */
  #touchAgain({ offset, length }: ByteRange): void {
    const { align, kind, memory, size } = this.#device
    if (kind !== 'device-dax') return
    const end = Math.min(size, Math.ceil((offset + length) / align) * align)
    for (let unit = offset - (offset % align); unit < end; unit += align) {
      const healthy = this.#unknown({ offset: unit, length: Math.min(align, end - unit) })[0]
      if (healthy === undefined) continue
      try {
        memory.probe(healthy.offset, 1)
      } catch (error) {
        if (!(error instanceof MemoryFailure)) throw error
        this.#device.memoryFailure(unit, align, MF_ACTION_REQUIRED)
      }
    }
  }
}

/** What a guarded call met: the unit that the kernel named, around the byte where it failed. */
export function failedUnit(offset: number): ByteRange {
  const length = native.failedUnit()
  return { offset: offset - (offset % length), length }
}

function overlap(a: ByteRange, b: ByteRange): ByteRange[] {
  const offset = Math.max(a.offset, b.offset)
  const end = Math.min(a.offset + a.length, b.offset + b.length)
  return offset < end ? [{ offset, length: end - offset }] : []
}
