/** Which files have lost bytes to bad memory, and which bytes. */
import type { Index } from '../../index/index.ts'
import { BLOCK_SIZE } from '../../media/geometry.ts'
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

const PARTS = `
  SELECT r.owner, r.file_block, r.block, r.blocks, p.block AS bad, p.blocks AS badBlocks
  FROM poison p JOIN rmap r ON r.block < p.block + p.blocks AND r.block + r.blocks > p.block
  WHERE r.owner > 0 ORDER BY r.owner, r.file_block LIMIT ${PARTS_MAX}`

interface Part {
  readonly owner: number
  readonly file_block: number
  readonly block: number
  readonly blocks: number
  readonly bad: number
  readonly badBlocks: number
}

export function findBadFiles(index: Index): BadFile[] {
  return index.database
    .prepare<[], Part>(PARTS)
    .all()
    .map((part) => {
      const start = Math.max(part.block, part.bad)
      const end = Math.min(part.block + part.blocks, part.bad + part.badBlocks)
      return {
        inode: part.owner,
        path: pathOf(index, part.owner),
        fileOffset: (part.file_block + start - part.block) * BLOCK_SIZE,
        length: (end - start) * BLOCK_SIZE,
        regionOffset: start * BLOCK_SIZE,
      }
    })
}
