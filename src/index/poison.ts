/** The poison table: disjoint ranges of blocks whose memory failed, whoever owns them. */
import type { Database, Statement } from 'better-sqlite3'
import type { BlockRange } from './free-space.ts'

type Columns = [block: number, blocks: number]

export class PoisonTable {
  readonly #all: Statement<[], Columns>
  readonly #predecessor: Statement<[number], number>
  readonly #overlapping: Statement<[number, number, number], Columns>
  readonly #insert: Statement
  readonly #remove: Statement

  constructor(database: Database) {
    const all = database.prepare<[], Columns>('SELECT block, blocks FROM poison ORDER BY block')
    this.#all = all.raw() as unknown as typeof all
    this.#predecessor = database
      .prepare<[number], number>(
        'SELECT block FROM poison WHERE block <= ? ORDER BY block DESC LIMIT 1',
      )
      .pluck()
    const overlapping = database.prepare<[number, number, number], Columns>(
      `SELECT block, blocks FROM poison WHERE block >= ? AND block < ? AND block + blocks > ?
       ORDER BY block`,
    )
    this.#overlapping = overlapping.raw() as unknown as typeof overlapping
    this.#insert = database.prepare('INSERT INTO poison(block, blocks) VALUES (?, ?)')
    this.#remove = database.prepare('DELETE FROM poison WHERE block = ?')
  }

  all(): BlockRange[] {
    return this.#all.all().map((row) => ({ block: row[0], blocks: row[1] }))
  }

  /** INVARIANT: rows are disjoint, so at most one begins before the range and reaches into it. */
  overlapping(block: number, blocks: number): BlockRange[] {
    const first = this.#predecessor.get(block) ?? block
    const rows = this.#overlapping.all(first, block + blocks, block)
    return rows.map((row) => ({ block: row[0], blocks: row[1] }))
  }

  /** Adds a range, merged with what it overlaps or touches. */
  put(block: number, blocks: number): void {
    let start = block
    let end = block + blocks
    for (const row of this.overlapping(block - 1, blocks + 2)) {
      start = Math.min(start, row.block)
      end = Math.max(end, row.block + row.blocks)
      this.#remove.run(row.block)
    }
    this.#insert.run(start, end - start)
  }

  /** Removes a range, cutting the rows it overlaps. */
  remove(block: number, blocks: number): void {
    for (const row of this.overlapping(block, blocks)) {
      this.#remove.run(row.block)
      if (row.block < block) this.#insert.run(row.block, block - row.block)
      const rest = row.block + row.blocks - (block + blocks)
      if (rest > 0) this.#insert.run(block + blocks, rest)
    }
  }
}
