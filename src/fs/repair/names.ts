/**
 * Repairs of directories: entries that lead nowhere go; what loses its last name is reconnected.
 */
import { findCycles } from '../check/links.ts'
import { ILLEGAL_NAME, ILLEGAL_XATTR } from '../check/names.ts'
import { fixRows, type RepairContext } from './context.ts'

const REMOVE_ENTRY = 'DELETE FROM dirent WHERE parent = @parent AND cookie = @cookie'

export function repairNames(context: RepairContext): void {
  removeEntries(context)
  keepOneName(context)
  breakCycles(context)
  fixRows(
    context,
    'dirent-kind',
    `SELECT d.parent, d.cookie, d.ino, (i.mode & 61440) >> 12 AS kind
     FROM dirent d JOIN inode i ON i.ino = d.ino WHERE d.kind <> (i.mode & 61440) >> 12`,
    'UPDATE dirent SET kind = @kind WHERE parent = @parent AND cookie = @cookie',
    (row) => `the name of inode ${row.ino} in directory ${row.parent} has its type again`,
  )
  fixRows(
    context,
    'xattr',
    `SELECT DISTINCT x.ino FROM xattr x LEFT JOIN inode i ON i.ino = x.ino
     WHERE i.ino IS NULL OR ${ILLEGAL_XATTR}`,
    `DELETE FROM xattr AS x WHERE x.ino = @ino
       AND (NOT EXISTS(SELECT 1 FROM inode WHERE inode.ino = x.ino) OR ${ILLEGAL_XATTR})`,
    (row) => `removed impossible extended attributes of inode ${row.ino}`,
  )
}

function removeEntries(context: RepairContext): void {
  fixRows(
    context,
    'dirent-removed',
    `SELECT d.parent, d.cookie, d.ino, i.ino IS NULL AS dangling
     FROM dirent d LEFT JOIN inode i ON i.ino = d.ino LEFT JOIN inode p ON p.ino = d.parent
     WHERE i.ino IS NULL OR d.ino = 1 OR p.ino IS NULL OR (p.mode & 61440) <> 16384
       OR ${ILLEGAL_NAME}`,
    REMOVE_ENTRY,
    (row) => {
      const why = row.dangling ? `leads to inode ${row.ino}, which is missing` : 'cannot be used'
      return `removed entry ${row.cookie} of directory ${row.parent}: it ${why}`
    },
  )
}

/** Of several names of a directory, the one its '..' agrees with stays; else the oldest. */
function keepOneName(context: RepairContext): void {
  fixRows(
    context,
    'directory-names',
    `SELECT parent, cookie, ino FROM (
       SELECT d.parent, d.cookie, d.ino, row_number() OVER
         (PARTITION BY d.ino ORDER BY d.parent <> i.parent, d.cookie) AS rank
       FROM dirent d JOIN inode i ON i.ino = d.ino WHERE (i.mode & 61440) = 16384)
     WHERE rank > 1`,
    REMOVE_ENTRY,
    (row) => `removed the second name of directory ${row.ino}, in directory ${row.parent}`,
  )
}

function breakCycles(context: RepairContext): void {
  const remove = context.index.database.prepare<[number]>('DELETE FROM dirent WHERE ino = ?')
  for (const ino of findCycles(context.index.database)) {
    remove.run(ino)
    context.actions.add('directory-cycle', `took directory ${ino} out of a loop of directories`)
  }
}

/** '..' follows the one name that is left; runs after everything is connected. */
export function repairParents(context: RepairContext): void {
  fixRows(
    context,
    'directory-parent',
    `SELECT d.ino, d.parent FROM dirent d JOIN inode i ON i.ino = d.ino
     WHERE (i.mode & 61440) = 16384 AND i.ino <> 1 AND i.parent <> d.parent`,
    'UPDATE inode SET parent = @parent WHERE ino = @ino',
    (row) => `directory ${row.ino}: '..' is ${row.parent} again`,
  )
}
