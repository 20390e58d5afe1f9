/** What can be counted is counted again: links, blocks, poison and free space. */
import { type BlockRange, joined } from '../check/layout.ts'
import { fixRows, type RepairContext } from './context.ts'

export function repairCounts(context: RepairContext): void {
  fixRows(
    context,
    'link-count',
    `SELECT ino, nlink, links FROM (SELECT ino, nlink, CASE WHEN (mode & 61440) = 16384
       THEN 2 + (SELECT count(*) FROM dirent d WHERE d.parent = inode.ino AND d.kind = 4)
       ELSE (SELECT count(*) FROM dirent d WHERE d.ino = inode.ino) END AS links FROM inode)
     WHERE nlink <> links`,
    'UPDATE inode SET nlink = @links WHERE ino = @ino',
    (row) => `inode ${row.ino}: link count is now ${row.links}, was ${row.nlink}`,
  )
  fixRows(
    context,
    'inode-blocks',
    `SELECT ino, i.blocks AS was, coalesce(sum(r.blocks), 0) AS blocks
     FROM inode i LEFT JOIN rmap r ON r.owner = i.ino GROUP BY i.ino
     HAVING i.blocks <> coalesce(sum(r.blocks), 0)`,
    'UPDATE inode SET blocks = @blocks WHERE ino = @ino',
    (row) => `inode ${row.ino}: block count is now ${row.blocks}, was ${row.was}`,
  )
  repairPoison(context)
  rebuildFree(context)
}

function repairPoison(context: RepairContext): void {
  const { index, geometry, actions } = context
  const rows = index.poison.all()
  const inside = rows.filter((row) => {
    return row.block >= 0 && row.blocks >= 1 && row.block + row.blocks <= geometry.blocks
  })
  const right = joined(inside)
  const disjoint = right.reduce((sum, row) => sum + row.blocks, 0)
  const listed = inside.reduce((sum, row) => sum + row.blocks, 0)
  if (inside.length === rows.length && disjoint === listed) return
  index.database.exec('DELETE FROM poison')
  const insert = index.database.prepare('INSERT INTO poison(block, blocks) VALUES (?, ?)')
  for (const row of right) insert.run(row.block, row.blocks)
  actions.add('poison', 'put the list of poisoned ranges in order')
}

/** Free is what nobody owns and what is not poisoned. */
export function rebuildFree(context: RepairContext): void {
  const { index, geometry, actions } = context
  const right = unowned(context, geometry.blocks)
  const found = index.database
    .prepare<[], BlockRange>('SELECT block, blocks FROM free ORDER BY block')
    .all()
  const same = right.length === found.length && right.every((row, i) => equal(row, found[i]!))
  if (same) return
  index.database.exec('DELETE FROM free')
  const insert = index.database.prepare('INSERT INTO free(block, blocks) VALUES (@block, @blocks)')
  for (const row of right) insert.run(row)
  const total = (rows: readonly BlockRange[]) => rows.reduce((sum, row) => sum + row.blocks, 0)
  const change = `${total(right)} blocks, was ${total(found)}`
  actions.add('free', `rebuilt the free space from the reverse map: ${change}`)
}

function unowned(context: RepairContext, blocks: number): BlockRange[] {
  const rows = context.index.database
    .prepare<[], [block: number, end: number]>(
      `SELECT block, block + blocks FROM rmap UNION ALL
       SELECT block, block + blocks FROM poison ORDER BY 1`,
    )
    .raw()
  const gaps: BlockRange[] = []
  let covered = 0
  for (const [block, end] of rows.iterate()) {
    if (block > covered) gaps.push({ block: covered, blocks: block - covered })
    covered = Math.max(covered, end)
  }
  if (covered < blocks) gaps.push({ block: covered, blocks: blocks - covered })
  return gaps
}

function equal(a: BlockRange, b: BlockRange): boolean {
  return a.block === b.block && a.blocks === b.blocks
}
