/** The free table: disjoint, never adjacent ranges of blocks that nobody owns. */
import type { Database, Statement } from 'better-sqlite3'

export interface BlockRange {
  block: number
  blocks: number
}

export function rangesOverlap(a: BlockRange, b: BlockRange): boolean {
  return a.block < b.block + b.blocks && b.block < a.block + a.blocks
}

type Columns = [block: number, blocks: number]

/** A range of `blocks` at least this long is a candidate for a whole, aligned 2 MiB unit. */
export const LARGE_BLOCKS = 512

export class FreeSpaceTable {
  readonly #before: Statement<[number], Columns>
  readonly #at: Statement<[number], number>
  readonly #from: Statement<[number], Columns>
  readonly #large: Statement<[number], Columns>
  readonly #insert: Statement
  readonly #remove: Statement
  readonly #resize: Statement
  readonly #move: Statement
  readonly #total: Statement<[], number>
  readonly #wholeUnits: Statement<[], number>

  constructor(database: Database) {
    const before = database.prepare<[number], Columns>(
      'SELECT block, blocks FROM free WHERE block <= ? ORDER BY block DESC LIMIT 1',
    )
    this.#before = before.raw() as unknown as typeof before
    this.#at = database.prepare<[number], number>('SELECT blocks FROM free WHERE block = ?').pluck()
    const from = database.prepare<[number], Columns>(
      'SELECT block, blocks FROM free WHERE block >= ? ORDER BY block LIMIT 64',
    )
    this.#from = from.raw() as unknown as typeof from
    const large = database.prepare<[number], Columns>(
      `SELECT block, blocks FROM free INDEXED BY free_large
       WHERE block >= ? AND blocks >= ${LARGE_BLOCKS} ORDER BY block LIMIT 64`,
    )
    this.#large = large.raw() as unknown as typeof large
    this.#insert = database.prepare('INSERT INTO free(block, blocks) VALUES (?, ?)')
    this.#remove = database.prepare('DELETE FROM free WHERE block = ?')
    this.#resize = database.prepare('UPDATE free SET blocks = ? WHERE block = ?')
    this.#move = database.prepare('UPDATE free SET block = ?, blocks = ? WHERE block = ?')
    this.#total = database.prepare<[], number>('SELECT coalesce(sum(blocks), 0) FROM free').pluck()
    const unit = LARGE_BLOCKS
    this.#wholeUnits = database
      .prepare<[], number>(
        `SELECT coalesce(sum(max(0, (block + blocks) / ${unit} - (block + ${unit - 1}) / ${unit})), 0)
         FROM free INDEXED BY free_large WHERE blocks >= ${unit}`,
      )
      .pluck()
  }

  /** The free range that contains `block`, if any. */
  containing(block: number): BlockRange | undefined {
    const row = this.#before.get(block)
    return row !== undefined && row[0] + row[1] > block
      ? { block: row[0], blocks: row[1] }
      : undefined
  }

  /** The free parts of [block, block + blocks), clipped to it. */
  overlapping(block: number, blocks: number): BlockRange[] {
    const parts: BlockRange[] = []
    const end = block + blocks
    for (let range = this.containing(block) ?? this.from(block)[0]; range !== undefined; ) {
      if (range.block >= end) break
      const start = Math.max(range.block, block)
      parts.push({ block: start, blocks: Math.min(range.block + range.blocks, end) - start })
      range = this.from(range.block + 1)[0]
    }
    return parts
  }

  /** Up to 64 ranges that begin at or after `block`. */
  from(block: number): BlockRange[] {
    return this.#from.all(block).map((row) => ({ block: row[0], blocks: row[1] }))
  }

  /** Up to 64 ranges of at least LARGE_BLOCKS that begin at or after `block`. */
  large(block: number): BlockRange[] {
    return this.#large.all(block).map((row) => ({ block: row[0], blocks: row[1] }))
  }

  total(): number {
    return this.#total.get() ?? 0
  }

  /** How many whole, aligned units are free. */
  wholeUnits(): number {
    return this.#wholeUnits.get() ?? 0
  }

  /** Takes a range out; false when not all of it was free. */
  allocate(block: number, blocks: number): boolean {
    const row = this.#before.get(block)
    if (row === undefined) return false
    const [start, length] = row
    const end = start + length
    if (end < block + blocks) return false
    const head = block - start
    const tail = end - (block + blocks)
    if (head === 0 && tail === 0) this.#remove.run(start)
    else if (head === 0) this.#move.run(block + blocks, tail, start)
    else {
      this.#resize.run(head, start)
      if (tail > 0) this.#insert.run(block + blocks, tail)
    }
    return true
  }

  /**
   * Gives a range back and joins it with its neighbours; false when part of it was free already.
   */
  free(block: number, blocks: number): boolean {
    let start = block
    let length = blocks
    const before = this.#before.get(block + blocks - 1)
    if (before !== undefined && before[0] + before[1] > block) return false
    if (before !== undefined && before[0] + before[1] === block) {
      start = before[0]
      length += before[1]
    }
    const after = this.#at.get(block + blocks)
    if (after !== undefined) {
      this.#remove.run(block + blocks)
      length += after
    }
    if (start === block) this.#insert.run(start, length)
    else this.#resize.run(length, start)
    return true
  }
}
