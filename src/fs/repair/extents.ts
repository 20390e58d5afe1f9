/** Repairs of the rmap: rows that cannot be true go, and the metadata's rows are written anew. */
import { EXTENT_UNWRITTEN } from '../../media/change.ts'
import { BLOCK_SIZE } from '../../media/geometry.ts'
import { metadataRows } from '../check/layout.ts'
import { metadataExpected, metadataFound } from '../check/metadata.ts'
import { nameOwner } from '../check/space.ts'
import { fixRows, type RepairContext } from './context.ts'

/** Exact: a damaged key that was rounded would name no row. */
type RmapTuple = [block: bigint, blocks: bigint, owner: bigint, fileBlock: bigint]

const FILE_BLOCKS_MAX = Math.floor(Number.MAX_SAFE_INTEGER / BLOCK_SIZE)

export function repairExtents(context: RepairContext): void {
  fixRows(
    context,
    'extent-flags',
    `SELECT block, owner, file_block, flags FROM rmap
     WHERE flags <> 0 AND (owner < 0 OR flags <> ${EXTENT_UNWRITTEN})`,
    `UPDATE rmap SET flags = iif(owner > 0, flags & ${EXTENT_UNWRITTEN}, 0)
     WHERE block = @block AND owner = @owner AND file_block = @file_block`,
    (row) => `the extent of inode ${row.owner} at block ${row.block} had flags ${row.flags}`,
  )
  const { blocks } = context.geometry
  remove(context, 'extent-range', 'it is not in the region', [
    `block < 0 OR blocks < 1 OR block + blocks > ${blocks}`,
    `file_block < 0 OR file_block + blocks > ${FILE_BLOCKS_MAX}`,
  ])
  remove(context, 'extent-owner', 'it is of no regular file', [
    `owner >= 0 AND NOT EXISTS(SELECT 1 FROM inode WHERE ino = owner AND (mode & 61440) = 32768)`,
  ])
  rewriteMetadata(context)
  removeOverlaps(context)
}

function remove(
  context: RepairContext,
  kind: string,
  why: string,
  conditions: readonly string[],
): void {
  const sql = `SELECT block, blocks, owner, file_block FROM rmap WHERE ${conditions.join(' OR ')}`
  const rows = context.index.database.prepare<[], RmapTuple>(sql).raw().safeIntegers().all()
  removeRows(context, kind, why, rows)
}

function removeRows(
  context: RepairContext,
  kind: string,
  why: string,
  rows: readonly RmapTuple[],
): void {
  const statement = context.index.database.prepare(
    'DELETE FROM rmap WHERE block = ? AND owner = ? AND file_block = ?',
  )
  for (const [block, blocks, owner, fileBlock] of rows) {
    statement.run(block, owner, fileBlock)
    const whose = `of ${nameOwner(Number(owner))}, file block ${fileBlock}`
    context.actions.add(kind, `removed an extent of ${blocks} blocks at ${block} ${whose}: ${why}`)
  }
}

/** The superblock says where the metadata is; a file cannot have kept anything there. */
function rewriteMetadata(context: RepairContext): void {
  const { index, geometry, slots } = context
  const expected = metadataRows(geometry, slots.flat())
  for (const row of expected) {
    const others = index.database
      .prepare<[number, number], RmapTuple>(
        `SELECT block, blocks, owner, file_block FROM rmap
         WHERE owner > 0 AND block + blocks > ? AND block < ?`,
      )
      .raw()
      .safeIntegers()
      .all(row.block, row.block + row.blocks)
    removeRows(context, 'extent-metadata', `the ${nameOwner(row.owner)} is there`, others)
  }
  const [found, wanted] = [metadataFound(index.database), metadataExpected(expected)]
  if (found.join(' ') === wanted.join(' ')) return
  index.database.exec('DELETE FROM rmap WHERE owner <= 0')
  for (const row of expected) index.rmap.put(row)
  context.actions.add('metadata-extents', 'wrote the rmap rows of the metadata anew')
}

/** Of two extents for the same part of a file, the one that begins first stays. */
function removeOverlaps(context: RepairContext): void {
  const rows = context.index.database
    .prepare<[], RmapTuple>(
      'SELECT block, blocks, owner, file_block FROM rmap WHERE owner > 0 ORDER BY owner, file_block',
    )
    .raw()
    .safeIntegers()
  const doomed: RmapTuple[] = []
  let last = 0n
  let end = 0n
  for (const row of rows.iterate()) {
    const [, blocks, owner, fileBlock] = row
    if (owner === last && fileBlock < end) doomed.push(row)
    else end = fileBlock + blocks
    last = owner
  }
  removeRows(context, 'extent-overlap', 'another extent has that part of the file', doomed)
}
