/** One commit at a time; whoever comes while one is under way shares the next. */
export class GroupCommit {
  readonly #run: () => Promise<void>
  #running: Promise<void> | undefined
  /** INVARIANT: set only while #running is; not begun yet. */
  #next: Promise<void> | undefined

  constructor(run: () => Promise<void>) {
    this.#run = run
  }

  /** Resolves when a run that began after this call is over. */
  join(): Promise<void> {
    if (this.#next) return this.#next
    if (!this.#running) return this.#start()
    // The run under way may already have passed by what the caller wants covered.
    const ended = this.#running.catch(() => {})
    this.#next = ended.then(() => {
      this.#next = undefined
      return this.#start()
    })
    return this.#next
  }

  #start(): Promise<void> {
    const run = this.#run().finally(() => {
      this.#running = undefined
    })
    this.#running = run
    return run
  }
}
