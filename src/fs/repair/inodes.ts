/** Repairs of single inodes: values nobody can use are replaced by values everybody can. */

import { BLOCK_SIZE } from '../../media/geometry.ts'
import { BAD_FIELD, BAD_PARENT } from '../check/inodes.ts'
import { fixRows, type RepairContext } from './context.ts'

const SAFE = Number.MAX_SAFE_INTEGER
const NOBODY = 65534

export function repairInodes(context: RepairContext): void {
  restoreRoot(context)
  repairTimes(context)
  fixRows(
    context,
    'inode-field',
    `SELECT ino FROM inode WHERE ${BAD_FIELD}`,
    `UPDATE inode SET rdev = iif(rdev BETWEEN 0 AND ${SAFE}, rdev, 0),
       flags = iif(flags BETWEEN 0 AND 7, flags, 7) WHERE ino = @ino`,
    (row) => `inode ${row.ino}: device number and flags are in range again`,
  )
  fixRows(
    context,
    'inode-owner',
    `SELECT ino FROM inode
     WHERE uid NOT BETWEEN 0 AND 4294967295 OR gid NOT BETWEEN 0 AND 4294967295`,
    `UPDATE inode SET uid = iif(uid BETWEEN 0 AND 4294967295, uid, ${NOBODY}),
       gid = iif(gid BETWEEN 0 AND 4294967295, gid, ${NOBODY}) WHERE ino = @ino`,
    (row) => `inode ${row.ino}: the impossible owner is now ${NOBODY}`,
  )
  fixRows(
    context,
    'inode-size',
    `SELECT ino, coalesce((SELECT max(file_block + blocks) * ${BLOCK_SIZE} FROM rmap
       WHERE owner = ino), 0) AS size FROM inode WHERE size NOT BETWEEN 0 AND ${SAFE}`,
    'UPDATE inode SET size = @size WHERE ino = @ino',
    (row) => `inode ${row.ino}: size set to the end of its last extent, ${row.size}`,
  )
  fixRows(
    context,
    'inode-parent',
    `SELECT ino FROM inode WHERE ${BAD_PARENT}`,
    'UPDATE inode SET parent = 0 WHERE ino = @ino',
    (row) => `inode ${row.ino}: parent cleared`,
  )
  fixRows(
    context,
    'symlink-size',
    `SELECT ino, length(target) AS size FROM inode
     WHERE (mode & 61440) = 40960 AND target IS NOT NULL AND size <> length(target)`,
    'UPDATE inode SET size = @size WHERE ino = @ino',
    (row) => `symbolic link ${row.ino}: size set to that of its target, ${row.size}`,
  )
  fixRows(
    context,
    'inode-target',
    'SELECT ino FROM inode WHERE (mode & 61440) <> 40960 AND target IS NOT NULL',
    'UPDATE inode SET target = NULL WHERE ino = @ino',
    (row) => `inode ${row.ino}: target cleared, it is no symbolic link`,
  )
}

function restoreRoot(context: RepairContext): void {
  const { index, actions, now } = context
  const root = index.database.prepare('SELECT 1 FROM inode WHERE ino = 1').get()
  if (root === undefined) {
    index.inodes.put({ ...emptyInode(now), ino: 1, mode: 0o040755, nlink: 2, parent: 1 })
    actions.add('root-missing', 'made a new root directory')
  }
  fixRows(
    context,
    'root-parent',
    'SELECT ino FROM inode WHERE ino = 1 AND parent <> 1',
    'UPDATE inode SET parent = 1 WHERE ino = @ino',
    () => "the root's parent is the root again",
  )
}

/** An inode of the caller (root: fsck), with nothing in it. */
export function emptyInode(now: number) {
  const owner = { uid: 0, gid: 0, rdev: 0, flags: 0, size: 0, blocks: 0, target: null }
  const times = { atime: now, mtime: now, ctime: now, btime: now }
  return { ...owner, ...times, atimeNs: 0, mtimeNs: 0, ctimeNs: 0, btimeNs: 0 }
}

function repairTimes(context: RepairContext): void {
  for (const time of ['atime', 'mtime', 'ctime', 'btime']) {
    const good = `${time} BETWEEN -${SAFE} AND ${SAFE}`
    fixRows(
      context,
      'inode-time',
      `SELECT ino FROM inode WHERE NOT (${good}) OR ${time}_ns NOT BETWEEN 0 AND 999999999`,
      `UPDATE inode SET ${time} = iif(${good}, ${time}, 0),
         ${time}_ns = iif(${time}_ns BETWEEN 0 AND 999999999, ${time}_ns, 0) WHERE ino = @ino`,
      (row) => `inode ${row.ino}: ${time} was out of range and is reset`,
    )
  }
}
