/**
 * How results look: tables and colours for a person at a terminal, plain aligned text for a pipe.
 */
import { styleText } from 'node:util'

type Style = Parameters<typeof styleText>[0]

const terminal = process.stdout.isTTY === true
const colours = terminal && !process.env.NO_COLOR && process.env.TERM !== 'dumb'

export function paint(style: Style, text: string): string {
  return colours ? styleText(style, text) : text
}

export function print(line: string): void {
  process.stdout.write(`${line}\n`)
}

export function printJson(value: unknown): void {
  print(JSON.stringify(value, null, 2))
}

export interface Column {
  readonly head: string
  readonly right?: boolean
}

/** Rows under a head; `none` is said instead of an empty table. */
export async function printTable(
  columns: readonly Column[],
  rows: readonly (readonly string[])[],
  none: string,
): Promise<void> {
  if (rows.length === 0) print(none)
  else if (terminal) await printBoxed(columns, rows)
  else print(alignText(columns, rows))
}

async function printBoxed(
  columns: readonly Column[],
  rows: readonly (readonly string[])[],
): Promise<void> {
  const { default: Table } = await import('cli-table3')
  const table = new Table({
    head: columns.map((column) => column.head),
    colAligns: columns.map((column) => (column.right ? 'right' : 'left')),
    style: { head: colours ? ['bold'] : [], border: colours ? ['grey'] : [], compact: true },
  })
  for (const row of rows) table.push([...row])
  print(table.toString())
}

/** Columns two spaces apart, numbers to the right, no trailing blanks. */
export function alignText(
  columns: readonly Column[],
  rows: readonly (readonly string[])[],
): string {
  const lines = [columns.map((column) => column.head), ...rows]
  // Not Math.max(...): a call takes only so many arguments, and a file may have more extents.
  const widths = columns.map((_, i) =>
    lines.reduce((width, line) => Math.max(width, (line[i] ?? '').length), 0),
  )
  return lines
    .map((line) =>
      columns
        .map(({ right }, i) => {
          const cell = line[i] ?? ''
          return right ? cell.padStart(widths[i] ?? 0) : cell.padEnd(widths[i] ?? 0)
        })
        .join('  ')
        .trimEnd(),
    )
    .join('\n')
}

/** `label  value` lines under each other. */
export function printFields(fields: readonly (readonly [string, string])[]): void {
  const width = Math.max(...fields.map(([label]) => label.length))
  for (const [label, value] of fields) {
    print(`  ${paint('dim', label.padEnd(width))}  ${value}`)
  }
}

/** '1 handle', '2 handles'. */
export function plural(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? '' : 's'}`
}
