/** Inodes of no valid type: what else is known of them says what they were. */
import { BAD_MODE, BAD_TARGET } from '../check/inodes.ts'
import { fixRows, type RepairContext } from './context.ts'

/** Entries make a directory, a target a symbolic link; everything else can only be a file. */
const GUESS = `CASE WHEN ino = 1 THEN ${0o040755}
  WHEN EXISTS(SELECT 1 FROM dirent WHERE parent = inode.ino) THEN ${0o040700}
  WHEN length(target) BETWEEN 1 AND 4095 AND NOT instr(target, x'00') THEN ${0o120777}
  ELSE ${0o100600} END`

export function repairTypes(context: RepairContext): void {
  fixRows(
    context,
    'inode-mode',
    `SELECT ino, mode, ${GUESS} AS guess FROM inode
     WHERE ${BAD_MODE} OR (ino = 1 AND (mode & 61440) <> 16384)`,
    'UPDATE inode SET mode = @guess WHERE ino = @ino',
    (row) => `inode ${row.ino}: mode is now ${octal(row.guess)}, was ${octal(row.mode)}`,
  )
  fixRows(
    context,
    'symlink-target',
    `SELECT ino FROM inode WHERE ${BAD_TARGET}`,
    'DELETE FROM inode WHERE ino = @ino',
    (row) => `removed symbolic link ${row.ino}: its target is lost`,
  )
}

function octal(mode: bigint | undefined): string {
  return (mode ?? 0n).toString(8)
}
