/** What a repair did, sentence by sentence. */

/** One kind of damage can be everywhere; the first few sentences tell the story. */
const SHOWN_PER_KIND = 100
/** Bytes that a file has lost are told for every file, but not without end. */
const SHOWN_LOSSES = 10_000

function shownOf(kind: string): number {
  return kind === 'extent-shared' ? SHOWN_LOSSES : SHOWN_PER_KIND
}

export interface Action {
  kind: string
  message: string
}

export class Actions {
  readonly #list: Action[] = []
  readonly #counts = new Map<string, number>()

  add(kind: string, message: string): void {
    const count = (this.#counts.get(kind) ?? 0) + 1
    this.#counts.set(kind, count)
    if (count <= shownOf(kind)) this.#list.push({ kind, message })
  }

  /** True when nothing was done. */
  get empty(): boolean {
    return this.#list.length === 0
  }

  list(): Action[] {
    const all = [...this.#list]
    for (const [kind, count] of this.#counts) {
      const rest = count - shownOf(kind)
      if (rest > 0) all.push({ kind, message: `and ${rest} more of the kind: ${kind}` })
    }
    return all
  }
}
