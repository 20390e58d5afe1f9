/**
 * One msync of the region at a time. A host tells one msync of an error, and another one beside it
 * that all is well: whoever comes while one is under way waits to see how it ends. The commits that
 * wait are one.
 */
export class GroupCommit {
  readonly #commit: () => Promise<void>
  /** The end of the queue; undefined: it is empty. */
  #last: Promise<void> | undefined
  /** INVARIANT: set only while something is under way; not begun yet. */
  #next: Promise<void> | undefined

  constructor(commit: () => Promise<void>) {
    this.#commit = commit
  }

  get busy(): boolean {
    return this.#last !== undefined
  }

  /** Resolves when a commit that began after this call is over. */
  join(): Promise<void> {
    if (this.#next) return this.#next
    if (!this.#last) return this.alone(this.#commit)
    // The one under way may already have passed by what the caller wants covered.
    this.#next = this.alone(() => {
      this.#next = undefined
      return this.#commit()
    })
    return this.#next
  }

  /** Runs what must not run beside a commit, when its turn comes. */
  alone(run: () => Promise<void>): Promise<void> {
    const begun = this.#last === undefined ? run() : this.#last.catch(() => {}).then(run)
    const turn = begun.finally(() => {
      if (this.#last === turn) this.#last = undefined
    })
    this.#last = turn
    return turn
  }

  /** Resolves when nothing is under way. */
  async idle(): Promise<void> {
    while (this.#last) await this.#last.catch(() => {})
  }
}
