/** Which files have lost bytes to bad memory, and which bytes. */
import type { ByteRange } from '../../dax/bad-ranges.ts'
import type { Index } from '../../index/index.ts'
import { BLOCK_SIZE, blockSpan } from '../../media/geometry.ts'
import { pathOf } from '../failure.ts'

/** Bytes [fileOffset, fileOffset + length) of a file cannot be read. */
export interface BadFile {
  readonly inode: number
  /** Undefined for a file without a name. */
  readonly path: string | undefined
  readonly fileOffset: number
  readonly length: number
  readonly regionOffset: number
}

/** Parts that are listed; a damaged index must not make the list endless. */
const PARTS_MAX = 10_000

/** Bad memory is what is on record, and what is known to be bad since: a JSON list of blocks. */
const PARTS = `
  WITH bad(block, blocks) AS (
    SELECT block, blocks FROM poison
    UNION ALL SELECT value ->> 0, value ->> 1 FROM json_each(?))
  SELECT r.owner, r.file_block, r.block, r.blocks, p.block AS bad, p.blocks AS badBlocks
  FROM bad p JOIN rmap r ON r.block < p.block + p.blocks AND r.block + r.blocks > p.block
  WHERE r.owner > 0 ORDER BY r.owner, r.file_block, r.block, p.block LIMIT ${PARTS_MAX}`

interface Part {
  readonly owner: number
  readonly file_block: number
  readonly block: number
  readonly blocks: number
  readonly bad: number
  readonly badBlocks: number
}

/** `known`: bytes of the region that are bad, whether the index says so or not. */
export function findBadFiles(index: Index, known: readonly ByteRange[]): BadFile[] {
  const listed = known.map(({ offset, length }) => blockSpan(offset, length))
  const parts = index.database.prepare<[string], Part>(PARTS).all(JSON.stringify(listed))
  const files: BadFile[] = []
  for (const part of parts) {
    const found = badPart(part)
    const last = files.at(-1)
    const joined = last && join(last, found)
    if (joined === undefined) files.push({ ...found, path: pathOf(index, part.owner) })
    else files[files.length - 1] = joined
  }
  return files
}

function badPart(part: Part): Omit<BadFile, 'path'> {
  const start = Math.max(part.block, part.bad)
  const end = Math.min(part.block + part.blocks, part.bad + part.badBlocks)
  return {
    inode: part.owner,
    fileOffset: (part.file_block + start - part.block) * BLOCK_SIZE,
    length: (end - start) * BLOCK_SIZE,
    regionOffset: start * BLOCK_SIZE,
  }
}

/** One part, if `next` begins in or right behind `last`, in the file as in the region. */
function join(last: BadFile, next: Omit<BadFile, 'path'>): BadFile | undefined {
  const skipped = next.fileOffset - last.fileOffset
  const together = last.inode === next.inode && next.regionOffset - last.regionOffset === skipped
  if (!together || skipped < 0 || skipped > last.length) return undefined
  return { ...last, length: Math.max(last.length, skipped + next.length) }
}
