/**
 * The reverse map: which owner has which blocks, and, through the second index, where a file's
 * blocks are. Both questions are one seek and a short scan.
 */
import type { Database, Statement } from 'better-sqlite3'
import { EXTENT_UNWRITTEN, type ExtentRow } from '../media/change.ts'
import { badRow } from './damage.ts'

type Columns = [block: number, blocks: number, owner: number, fileBlock: number, flags: number]

/** A region is untrusted: numbers that are none would spread from here. */
function toRow(row: Columns): ExtentRow {
  const [block, blocks, owner, fileBlock, flags] = row
  const whole = row.every(Number.isSafeInteger) && Number.isSafeInteger(fileBlock + blocks)
  const known = flags === 0 || flags === EXTENT_UNWRITTEN
  if (!whole || !known || block < 0 || blocks < 1 || fileBlock < 0) {
    badRow('an extent of owner', String(owner), `${blocks} blocks at ${block}, flags ${flags}`)
  }
  return { block, blocks, owner, fileBlock, flags }
}

export class RmapTable {
  readonly #predecessor: Statement<[number], number>
  readonly #range: Statement<[number, number], Columns>
  readonly #owned: Statement<[number], Columns>
  readonly #put: Statement
  readonly #remove: Statement

  constructor(database: Database) {
    const columns = 'block, blocks, owner, file_block, flags'
    this.#predecessor = database
      .prepare<[number], number>(
        'SELECT block FROM rmap WHERE block <= ? ORDER BY block DESC LIMIT 1',
      )
      .pluck()
    const range = database.prepare<[number, number], Columns>(
      `SELECT ${columns} FROM rmap WHERE block >= ? AND block < ? ORDER BY block, owner, file_block`,
    )
    this.#range = range.raw() as unknown as typeof range
    const owned = database.prepare<[number], Columns>(
      `SELECT ${columns} FROM rmap WHERE owner = ? ORDER BY file_block`,
    )
    this.#owned = owned.raw() as unknown as typeof owned
    this.#put = database.prepare(`INSERT OR REPLACE INTO rmap(${columns}) VALUES (?, ?, ?, ?, ?)`)
    this.#remove = database.prepare(
      'DELETE FROM rmap WHERE block = ? AND owner = ? AND file_block = ?',
    )
  }

  /**
   * Rows that overlap [block, block + blocks). Rows that overlap each other have the same start
   * and length, so the one predecessor seek finds all that begin before the range.
   */
  overlapping(block: number, blocks: number): ExtentRow[] {
    const first = this.#predecessor.get(block) ?? block
    const rows = this.#range.all(first, block + blocks).map(toRow)
    return rows.filter((row) => row.block + row.blocks > block)
  }

  /** The first `limit` rows that overlap the range, without reading the rest. */
  *walk(block: number, blocks: number): IterableIterator<ExtentRow> {
    const first = this.#predecessor.get(block) ?? block
    for (const row of this.#range.iterate(first, block + blocks)) {
      if (row[0] + row[1] > block) yield toRow(row)
    }
  }

  /** Every extent of an owner, in file order. */
  ofOwner(owner: number): ExtentRow[] {
    return this.#owned.all(owner).map(toRow)
  }

  put(row: ExtentRow): void {
    this.#put.run(row.block, row.blocks, row.owner, row.fileBlock, row.flags)
  }

  remove(block: number, owner: number, fileBlock: number): boolean {
    return this.#remove.run(block, owner, fileBlock).changes === 1
  }
}
