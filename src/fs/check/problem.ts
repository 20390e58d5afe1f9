/** What the checker finds, and how it collects it. */

export type Structure =
  | 'superblock'
  | 'journal'
  | 'checkpoint'
  | 'inode'
  | 'dirent'
  | 'xattr'
  | 'rmap'
  | 'free'
  | 'poison'

export interface Problem {
  structure: Structure
  /** Stable word for programs: 'dirent-dangling'. */
  code: string
  inode?: number
  /** Region offset, bytes. */
  offset?: number
  message: string
  /** fsck.holdfast --repair knows what to do about it. */
  fixable: boolean
}

/** A damaged index can break one rule a million times; the first few tell the story. */
const SHOWN_PER_CODE = 100

export class Report {
  readonly #problems: Problem[] = []
  readonly #counts = new Map<string, number>()
  readonly #limit: number

  constructor(limit: number = SHOWN_PER_CODE) {
    this.#limit = limit
  }

  add(problem: Problem): void {
    const count = (this.#counts.get(problem.code) ?? 0) + 1
    this.#counts.set(problem.code, count)
    if (count <= this.#limit) this.#problems.push(problem)
  }

  /** Every problem up to the limit of its kind, and one line per kind that had more. */
  problems(): Problem[] {
    const all = [...this.#problems]
    for (const [code, count] of this.#counts) {
      if (count <= this.#limit) continue
      const first = this.#problems.find((problem) => problem.code === code)!
      const { structure, fixable } = first
      all.push({
        structure,
        code,
        fixable,
        message: `and ${count - this.#limit} more of the kind: ${code}`,
      })
    }
    return all
  }
}
