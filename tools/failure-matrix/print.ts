/** What is told: a line for each cell as it is played, and in the end the matrix as a table. */
import { table } from '../bench/report.ts'
import { BLOCKS, METHODS, OPERATIONS } from './cells.ts'
import type { Played } from './main.ts'

/** Progress goes to standard error: the result is the only thing on standard output. */
export class Report {
  readonly played: Played[] = []
  readonly #total: number
  #told = 0

  constructor(total: number) {
    this.#total = total
  }

  /** A cell that has just been played, by all that is known of it. */
  progress({ cell, differences }: Played): void {
    this.#told += 1
    const counter = `${String(this.#told).padStart(3)}/${this.#total}`
    const what = `${cell.method}: ${cell.block}, ${cell.operation}`
    this.#tell(`${counter} ${verdict(differences).padEnd(6)} ${what}`, differences)
  }

  /** What was still to be known of cells that shared a mount. */
  nextMount(shared: readonly Played[]): void {
    this.played.push(...shared)
    const differences = new Set(
      shared.flatMap((one) => one.differences.filter((line) => line.startsWith('next: '))),
    )
    const what = `the next mount after ${shared.length} cells that shared one`
    this.#tell(`        ${verdict([...differences]).padEnd(6)} ${what}`, differences)
  }

  #tell(line: string, differences: Iterable<string>): void {
    process.stderr.write(`${line}\n`)
    for (const difference of differences) process.stderr.write(`            ${difference}\n`)
  }
}

function verdict(differences: readonly string[]): string {
  return differences.length === 0 ? 'ok' : 'FAILED'
}

/** A row for each block and method, a column for each operation. */
export function printMatrix(played: readonly Played[]): string {
  const columns = OPERATIONS.filter((name) => played.some(({ cell }) => cell.operation === name))
  const rows: string[][] = []
  for (const block of BLOCKS) {
    for (const method of METHODS) {
      const row = played.filter(({ cell }) => cell.block === block && cell.method === method)
      if (row.length === 0) continue
      const words = columns.map((operation) =>
        mark(row.find(({ cell }) => cell.operation === operation)),
      )
      rows.push([`${block} (${method})`, ...words])
    }
  }
  const failed = played.filter(({ differences }) => differences.length > 0).length
  const total = `${played.length - failed} as they should be, ${failed} not`
  const text = table(['memory that fails (how)', ...columns], rows)
  return `${text}\neach cell: how the operation ended; ✗: not as it should\n${total}`
}

function mark(one: Played | undefined): string {
  if (one === undefined) return ''
  return one.differences.length === 0 ? one.found.operation : `✗ ${one.found.operation}`
}
