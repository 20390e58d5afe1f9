/** What every step of a repair works on. */
import type { Index } from '../../index/index.ts'
import type { Geometry } from '../../media/geometry.ts'
import type { BlockRange, Superblock } from '../../media/superblock.ts'
import type { Actions } from './actions.ts'

/**
 * What becomes of a range that two files claim, in the file that loses it: it reads as zeros, or it
 * cannot be read until somebody writes it or clears the poison.
 */
export type OverlapChoice = 'zero' | 'quarantine'

export interface RepairContext {
  readonly index: Index
  readonly geometry: Geometry
  readonly slots: Superblock['slots']
  readonly actions: Actions
  /** Seconds since 1970, for what the repair makes. */
  readonly now: number
  readonly overlap: OverlapChoice
  /** Blocks to be zeroed before the new checkpoint counts: nobody owned them so far. */
  readonly zeroed: BlockRange[]
  /**
   * The last sequence given out; a repair takes the next ones for the inodes and names it makes.
   */
  sequence: number
}

/** A row that a step is about to change: whom it is about, and what to say. */
export type IdRow = Readonly<Record<string, bigint>>

/**
 * Runs `change` on the rows `select` finds, and says so for each. The rows are read first: SQLite
 * does not like a table that changes under the statement that reads it. Integers are exact: a
 * damaged key that was rounded would name no row.
 */
export function fixRows(
  context: RepairContext,
  kind: string,
  select: string,
  change: string,
  say: (row: IdRow) => string,
): void {
  const { database } = context.index
  const rows = database.prepare<[], IdRow>(select).safeIntegers().all()
  if (rows.length === 0) return
  const statement = database.prepare<[IdRow]>(change)
  for (const row of rows) {
    statement.run(row)
    context.actions.add(kind, say(row))
  }
}
