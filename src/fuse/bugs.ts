/** Failures that are bugs, for the log: each kind once, and not more than anybody reads. */
import type { Logger } from '../fs/volume.ts'

/** Kinds may differ in a number that a client chose. */
const KINDS_MAX = 100

export class Bugs {
  readonly #logger: Logger
  readonly #told = new Set<string>()

  constructor(logger: Logger) {
    this.#logger = logger
  }

  tell(operation: string, error: unknown): void {
    const kind = `${operation} ${error instanceof Error ? `${error.name} ${error.message}` : error}`
    if (this.#told.has(kind) || this.#told.size >= KINDS_MAX) return
    this.#told.add(kind)
    this.#logger.error(`${operation}: ${error instanceof Error ? error.stack : String(error)}`)
    if (this.#told.size === KINDS_MAX) this.#logger.error('further bugs of requests are not logged')
  }
}
