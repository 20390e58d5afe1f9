/**
 * Repairs of the rmap: the metadata's rows are written anew, and of rows that cannot be true the
 * part goes that is in the way.
 */
import { EXTENT_UNWRITTEN } from '../../media/change.ts'
import { BLOCK_SIZE } from '../../media/geometry.ts'
import { joined, metadataRows } from '../check/layout.ts'
import { metadataExpected, metadataFound } from '../check/metadata.ts'
import { nameOwner } from '../check/space.ts'
import { fixRows, type RepairContext } from './context.ts'

/** Exact: a damaged key that was rounded would name no row. */
type RmapTuple = [block: bigint, blocks: bigint, owner: bigint, fileBlock: bigint, flags: bigint]

/** A row, and the part [from, to) of its blocks that stays. */
type Cut = [row: RmapTuple, from: bigint, to: bigint]

const COLUMNS = 'block, blocks, owner, file_block, flags'
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
  removeStray(context)
  rewriteMetadata(context)
  clipImpossible(context)
  cutOverlaps(context)
}

function cutRows(context: RepairContext, kind: string, why: string, cuts: readonly Cut[]): void {
  const { database } = context.index
  const remove = database.prepare(
    'DELETE FROM rmap WHERE block = ? AND owner = ? AND file_block = ?',
  )
  const put = database.prepare(`INSERT OR IGNORE INTO rmap(${COLUMNS}) VALUES (?, ?, ?, ?, ?)`)
  for (const [[block, , owner, fileBlock]] of cuts) remove.run(block, owner, fileBlock)
  for (const [[block, blocks, owner, fileBlock, flags], from, to] of cuts) {
    const kept = to > from
    if (kept) put.run(block + from, to - from, owner, fileBlock + from, flags)
    const where = `${block} of ${nameOwner(Number(owner))}, file block ${fileBlock}`
    const what = kept ? `${blocks - (to - from)} blocks of an extent` : 'an extent'
    context.actions.add(kind, `removed ${what} of ${blocks} blocks at ${where}: ${why}`)
  }
}

function removeStray(context: RepairContext): void {
  const rows = context.index.database
    .prepare<[], RmapTuple>(
      `SELECT ${COLUMNS} FROM rmap WHERE owner >= 0 AND NOT EXISTS(
         SELECT 1 FROM inode WHERE ino = owner AND (mode & 61440) = 32768)`,
    )
    .raw()
    .safeIntegers()
    .all()
  const cuts = rows.map((row): Cut => [row, 0n, 0n])
  cutRows(context, 'extent-owner', 'it is of no regular file', cuts)
}

/** The superblock says where the metadata is. */
function rewriteMetadata(context: RepairContext): void {
  const { index, geometry, slots } = context
  const expected = metadataRows(geometry, slots.flat())
  const [found, wanted] = [metadataFound(index.database), metadataExpected(expected)]
  if (found.join(' ') === wanted.join(' ')) return
  index.database.exec('DELETE FROM rmap WHERE owner <= 0')
  for (const row of expected) index.rmap.put(row)
  context.actions.add('metadata-extents', 'wrote the rmap rows of the metadata anew')
}

/**
 * A row that leaves the region or enters the metadata is wrong for certain, its length perhaps:
 * what it has behind the end of the file goes, too. Metadata itself keeps its blocks later on.
 */
function clipImpossible(context: RepairContext): void {
  const { geometry, slots, index } = context
  const metadata = joined(metadataRows(geometry, slots.flat()))
    .map(({ block, blocks }) => `block < ${block + blocks} AND stop > ${block}`)
    .join(' OR ')
  const rows = index.database
    .prepare<[], [...RmapTuple, size: bigint]>(
      `SELECT ${COLUMNS}, size FROM
         (SELECT rmap.*, size, block + rmap.blocks AS stop FROM rmap JOIN inode ON ino = owner)
       WHERE block < 0 OR blocks < 1 OR stop > ${geometry.blocks} OR ${metadata}
         OR file_block < 0 OR file_block + blocks > ${FILE_BLOCKS_MAX}`,
    )
    .raw()
    .safeIntegers()
    .all()
  const cuts = rows.map(([block, blocks, owner, fileBlock, flags, size]): Cut => {
    const fileEnd = BigInt(Math.min(Math.ceil(Number(size) / BLOCK_SIZE), FILE_BLOCKS_MAX))
    const to = least(blocks, BigInt(geometry.blocks) - block, fileEnd - fileBlock)
    const from = -least(0n, block, fileBlock)
    return [[block, blocks, owner, fileBlock, flags], from, to]
  })
  const smaller = cuts.filter(([[, blocks], from, to]) => to - from < blocks || blocks < 1n)
  cutRows(context, 'extent-range', 'it is not in the region, or not in the file', smaller)
}

function least(first: bigint, ...others: bigint[]): bigint {
  let found = first
  for (const other of others) if (other < found) found = other
  return found
}

/** Of two extents for the same part of a file, the one that begins first keeps it. */
function cutOverlaps(context: RepairContext): void {
  const rows = context.index.database
    .prepare<[], RmapTuple>(
      `SELECT ${COLUMNS} FROM rmap WHERE owner > 0 ORDER BY owner, file_block`,
    )
    .raw()
    .safeIntegers()
  const cuts: Cut[] = []
  let last = 0n
  let end = 0n
  for (const row of rows.iterate()) {
    const [, blocks, owner, fileBlock] = row
    if (owner !== last) end = 0n
    if (fileBlock < end) cuts.push([row, end - fileBlock, blocks])
    if (fileBlock + blocks > end) end = fileBlock + blocks
    last = owner
  }
  cutRows(context, 'extent-overlap', 'another extent has that part of the file', cuts)
}
