/**
 * What the model knows of durability: which states a crash may lead to.
 *
 * `states[floor]` was promised to be durable. A crash may show that state or any later one, whole;
 * in files, bytes that later operations stored in place may show through, word by word.
 */
import type { State } from './model.ts'

/** The states a crash now may lead to, oldest first. */
export type Candidates = readonly State[]

export class History {
  #states: State[]
  #inFlight: readonly State[] = []
  /** Number of the first state that is kept. */
  #first = 0

  constructor(initial: State) {
    this.#states = [initial]
  }

  get current(): State {
    return this.#states[this.#states.length - 1]!
  }

  /** How many states there have been: pass it to promised(). */
  get length(): number {
    return this.#first + this.#states.length
  }

  /** The operation under way goes through these states, the last being its result. */
  begin(steps: readonly State[]): void {
    this.#inFlight = steps
  }

  /** It is over; every state it went through may be found after a crash. */
  complete(steps: readonly State[]): void {
    this.#states.push(...steps)
    this.#inFlight = []
  }

  /** The first `length` states and what came before are durable: nothing older may be found. */
  promised(length: number): void {
    const drop = Math.min(length - 1 - this.#first, this.#states.length - 1)
    if (drop <= 0) return
    this.#states = this.#states.slice(drop)
    this.#first += drop
  }

  /** After power failed: what was not durable. */
  afterPowerFailure(): Candidates {
    return [...this.#states, ...this.#inFlight]
  }

  /** After the daemon died and the host did not: nothing that was complete may be missing. */
  afterDaemonCrash(): Candidates {
    return [this.current, ...this.#inFlight]
  }
}
