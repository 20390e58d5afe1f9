/** A failing sequence with every operation left out that it fails without. */
import { explore, NORMAL, type Outcome } from './explorer.ts'
import type { Sequence } from './operations.ts'

export interface Shrunk {
  readonly sequence: Sequence
  readonly outcome: Outcome
}

/** Tries halves, quarters and so on down to single operations, again and again, while time lasts. */
export async function shrink(sequence: Sequence, found: Outcome, seconds = 20): Promise<Shrunk> {
  const end = Date.now() + seconds * 1000
  let best: Shrunk = { sequence, outcome: found }
  let size = Math.ceil(sequence.operations.length / 2)
  while (Date.now() < end) {
    const smaller = await withoutSome(best, size, end)
    if (smaller !== undefined) best = smaller
    else if (size === 1) return best
    else size = Math.ceil(size / 2)
  }
  return best
}

/** The first smaller sequence that fails, too, with `size` operations in a row left out. */
async function withoutSome({ sequence }: Shrunk, size: number, end: number) {
  const { operations } = sequence
  for (let from = operations.length - 1; from >= 0 && Date.now() < end; from -= size) {
    const first = Math.max(0, from - size + 1)
    const kept = operations.filter((_, index) => index < first || index > from)
    const smaller = { ...sequence, operations: kept }
    const outcome = await explore(smaller, NORMAL)
    if (outcome.failure !== undefined) return { sequence: smaller, outcome }
  }
  return undefined
}
