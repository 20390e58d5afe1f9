/** The matrix as a table: a row for each block and method, a column for each operation. */
import { table } from '../bench/report.ts'
import { BLOCKS, METHODS, OPERATIONS } from './cells.ts'
import type { Played } from './main.ts'

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
