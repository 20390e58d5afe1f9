/**
 * Are whole free units about to run out? Checkpoint slots grow by whole units, and a thousand small
 * files that are open at once would touch a thousand of them.
 */
import { type FreeSpaceTable, LARGE_BLOCKS } from '../index/free-space.ts'

/** One unit of so many is kept for slots, as long as small files find room elsewhere. */
const KEPT_FRACTION = 16
const KEPT_MIN = 4
/** Looks for room between two counts while there are few units. */
const RECOUNT = 64

export class WholeUnits {
  readonly #free: FreeSpaceTable
  readonly #kept: number
  #scarce = false
  /** Units that may be taken before they are counted again. */
  #left = 0

  constructor(free: FreeSpaceTable, dataBlocks: number) {
    this.#free = free
    this.#kept = Math.max(KEPT_MIN, Math.floor(dataBlocks / LARGE_BLOCKS / KEPT_FRACTION))
  }

  /** To be asked before every search: each may take a unit. */
  areScarce(): boolean {
    if (this.#left <= 0) {
      const units = this.#free.wholeUnits()
      this.#scarce = units <= this.#kept
      this.#left = this.#scarce ? RECOUNT : units - this.#kept
    }
    this.#left--
    return this.#scarce
  }

  /** A large piece was taken. */
  took(blocks: number): void {
    if (!this.#scarce) this.#left -= Math.ceil(blocks / LARGE_BLOCKS)
  }
}
