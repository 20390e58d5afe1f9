/** What clients do wrong, for the log: each kind once in a while, so that nobody can fill it. */

/** A sentence that was logged is not logged again for so long. */
const QUIET_MS = 60_000
/** Different sentences that are remembered; their number is ours, not the clients'. */
const SENTENCES_MAX = 100

interface Told {
  at: number
  /** How often it was left out since. */
  missed: number
}

export class Complaints {
  readonly #warn: (sentence: string) => void
  readonly #told = new Map<string, Told>()

  constructor(warn: (sentence: string) => void) {
    this.#warn = warn
  }

  tell(sentence: string): void {
    const now = Date.now()
    const before = this.#told.get(sentence)
    if (before !== undefined && now - before.at < QUIET_MS) {
      before.missed++
      return
    }
    const missed = before?.missed ?? 0
    if (this.#told.size >= SENTENCES_MAX) this.#told.clear()
    this.#told.set(sentence, { at: now, missed: 0 })
    this.#warn(missed === 0 ? sentence : `${sentence} (${missed} more since it was last said)`)
  }
}
