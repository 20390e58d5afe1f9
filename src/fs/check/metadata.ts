/** What the rmap says of the metadata against what the geometry and the superblock say. */
import type { Database } from 'better-sqlite3'
import type { ExtentRow } from '../../media/change.ts'
import { BLOCK_SIZE, OWNER_NAMES } from './layout.ts'
import type { Report } from './problem.ts'

export type MetadataTuple = [block: number, blocks: number, owner: number, fileBlock: number]

/** Rows of metadata owners (and of owner 0, which nobody is) in the rmap, in order. */
export function metadataFound(database: Database): MetadataTuple[] {
  return database
    .prepare<[], MetadataTuple>(
      `SELECT block, blocks, owner, file_block FROM rmap WHERE owner <= 0
       ORDER BY block, owner, file_block`,
    )
    .raw()
    .all()
}

/** The same of the rows there should be. */
export function metadataExpected(rows: readonly ExtentRow[]): MetadataTuple[] {
  return [...rows]
    .sort((a, b) => a.block - b.block)
    .map((row) => [row.block, row.blocks, row.owner, row.fileBlock])
}

export function checkMetadata(
  database: Database,
  report: Report,
  rows: readonly ExtentRow[],
): void {
  const found = metadataFound(database).filter((row) => OWNER_NAMES.has(row[2]))
  const expected = metadataExpected(rows)
  for (const [owner, name] of OWNER_NAMES) {
    const difference = firstDifference(ofOwner(expected, owner), ofOwner(found, owner))
    if (difference === undefined) continue
    report.add({
      structure: 'rmap',
      code: 'metadata-extents',
      offset: difference * BLOCK_SIZE,
      message: `the rmap has other blocks of the ${name} than the superblock, at ${difference}`,
      fixable: true,
    })
  }
}

function ofOwner(rows: readonly MetadataTuple[], owner: number): MetadataTuple[] {
  return rows.filter((row) => row[2] === owner)
}

/** The first block at which the two lists part. */
function firstDifference(
  a: readonly MetadataTuple[],
  b: readonly MetadataTuple[],
): number | undefined {
  for (let i = 0; i < Math.max(a.length, b.length); i++) {
    const [left, right] = [a[i], b[i]]
    if (left === undefined || right === undefined) return (left ?? right)![0]
    if (left.join() !== right.join()) return Math.min(left[0], right[0])
  }
  return undefined
}
