/** The reverse map as rows for people: owners, free space and poison, in region order. */
import type { Index } from '../index/index.ts'
import {
  type ExtentRow,
  OWNER_CHECKPOINT,
  OWNER_JOURNAL,
  OWNER_SUPERBLOCK,
} from '../media/change.ts'
import { BLOCK_SIZE } from '../media/geometry.ts'
import type { RmapRow } from './administration.ts'

const METADATA_OWNERS: ReadonlyMap<number, RmapRow['owner']> = new Map([
  [OWNER_SUPERBLOCK, 'superblock'],
  [OWNER_JOURNAL, 'journal'],
  [OWNER_CHECKPOINT, 'checkpoint'],
])

/**
 * Up to `limit` rows that overlap [offset, offset + length), each whole. A poison row stands beside
 * the row of the owner whose blocks it covers.
 */
export function rmapRows(
  index: Index,
  regionSize: number,
  offset: number,
  length: number,
  limit: number,
  pathOf: (ino: number) => string | undefined,
): RmapRow[] {
  const first = Math.floor(offset / BLOCK_SIZE)
  const end = Math.ceil(Math.min(offset + length, regionSize) / BLOCK_SIZE)
  const rows: RmapRow[] = []
  const paths = new Map<number, string | undefined>()
  let at = first
  for (const extent of index.rmap.walk(first, end - first)) {
    if (rows.length >= limit) break
    rows.push(...unowned(index, at, extent.block, limit - rows.length))
    rows.push(owned(extent, paths, pathOf))
    at = Math.max(at, extent.block + extent.blocks)
  }
  if (rows.length < limit) rows.push(...unowned(index, at, end, limit - rows.length))
  for (const { block, blocks } of index.poison.overlapping(first, end - first)) {
    rows.push(row(block, blocks, 'poison'))
  }
  return rows.sort((a, b) => a.regionOffset - b.regionOffset)
}

function row(block: number, blocks: number, owner: RmapRow['owner']): RmapRow {
  return { regionOffset: block * BLOCK_SIZE, length: blocks * BLOCK_SIZE, owner }
}

function owned(
  extent: ExtentRow,
  paths: Map<number, string | undefined>,
  pathOf: (ino: number) => string | undefined,
): RmapRow {
  const metadata = METADATA_OWNERS.get(extent.owner)
  if (metadata !== undefined) return row(extent.block, extent.blocks, metadata)
  if (!paths.has(extent.owner)) paths.set(extent.owner, pathOf(extent.owner))
  const path = paths.get(extent.owner)
  const result = row(extent.block, extent.blocks, extent.owner)
  if (path !== undefined) result.path = path
  result.fileOffset = extent.fileBlock * BLOCK_SIZE
  return result
}

function unowned(index: Index, from: number, to: number, limit: number): RmapRow[] {
  if (to <= from) return []
  const free = index.freeSpace.overlapping(from, to - from).slice(0, limit)
  return free.map(({ block, blocks }) => row(block, blocks, 'free'))
}
