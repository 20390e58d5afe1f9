/** Every inode on its own: type, owner, size, times, target. */
import type { Database } from 'better-sqlite3'
import { ORPHANS } from '../../index/inodes.ts'
import { COUNTER_MAX } from '../../media/geometry.ts'
import type { Report } from './problem.ts'
import { applyRules, type Rule } from './rules.ts'

/** S_IFMT of an inode row, and the types there are. */
const TYPE = '(mode & 61440)'
export const IS_DIRECTORY = `${TYPE} = 16384`
export const IS_REGULAR = `${TYPE} = 32768`
const IS_SYMLINK = `${TYPE} = 40960`
const KNOWN_TYPES = '(4096, 8192, 16384, 24576, 32768, 40960, 49152)'

const SAFE = Number.MAX_SAFE_INTEGER
const TARGET_MAX = 4095

/** Above it a sequence is damage, not age: no mount can count as far. */
export const SEQUENCE_MAX = 2 * COUNTER_MAX

export const BAD_MODE = `(mode NOT BETWEEN 0 AND 65535 OR ${TYPE} NOT IN ${KNOWN_TYPES})`

export const BAD_TARGET = `(${IS_SYMLINK} AND (target IS NULL OR instr(target, x'00')
  OR length(target) NOT BETWEEN 1 AND ${TARGET_MAX}))`

/** What a record of the inode could not hold; `flags` are three bits. */
export const BAD_FIELD = `(rdev NOT BETWEEN 0 AND ${SAFE} OR flags NOT BETWEEN 0 AND 7)`

const STRAY_PARENT = `NOT (${IS_DIRECTORY}) AND parent <> 0`
/** Which it must be is in the name; a removed directory has none, and is read all the same. */
const IMPOSSIBLE_PARENT = `${IS_DIRECTORY} AND parent NOT BETWEEN 0 AND ${SAFE}`
export const BAD_PARENT = `(${STRAY_PARENT} OR ${IMPOSSIBLE_PARENT})`

/** The kernel's nanoseconds are below 10^9, and our numbers are exact up to 2^53. */
const BAD_TIMES = ['atime', 'mtime', 'ctime', 'btime']
  .map((t) => `${t}_ns NOT BETWEEN 0 AND 999999999 OR ${t} NOT BETWEEN -${SAFE} AND ${SAFE}`)
  .join(' OR ')

const RULES: readonly Rule[] = [
  {
    code: 'inode-mode',
    when: BAD_MODE,
    say: (row) => `inode ${row.ino} has no valid type: mode ${(row.mode ?? 0).toString(8)}`,
    fixable: true,
  },
  {
    code: 'inode-field',
    when: BAD_FIELD,
    say: (row) => `inode ${row.ino} has a device number or flags out of range`,
    fixable: true,
  },
  {
    code: 'inode-owner',
    when: 'uid NOT BETWEEN 0 AND 4294967295 OR gid NOT BETWEEN 0 AND 4294967295',
    say: (row) => `inode ${row.ino} belongs to uid ${row.uid}, gid ${row.gid}: not 32 bits`,
    fixable: true,
  },
  {
    code: 'inode-time',
    when: BAD_TIMES,
    say: (row) => `inode ${row.ino} has a time out of range`,
    fixable: true,
  },
  {
    code: 'inode-size',
    when: `size NOT BETWEEN 0 AND ${SAFE}`,
    say: (row) => `inode ${row.ino} has an impossible size: ${row.size}`,
    fixable: true,
  },
  {
    code: 'inode-parent',
    when: STRAY_PARENT,
    say: (row) => `inode ${row.ino} is no directory and has a parent: ${row.parent}`,
    fixable: true,
  },
  {
    code: 'inode-parent',
    when: IMPOSSIBLE_PARENT,
    say: (row) => `directory ${row.ino} has an impossible parent: ${row.parent}`,
    fixable: true,
  },
  {
    code: 'symlink-target',
    when: BAD_TARGET,
    say: (row) => `symbolic link ${row.ino} has no valid target`,
    fixable: true,
  },
  {
    code: 'symlink-size',
    when: `${IS_SYMLINK} AND target IS NOT NULL AND size <> length(target)`,
    say: (row) => `symbolic link ${row.ino}: size is ${row.size}, the target has ${row.length}`,
    fixable: true,
  },
  {
    code: 'inode-target',
    when: `NOT (${IS_SYMLINK}) AND target IS NOT NULL`,
    say: (row) => `inode ${row.ino} is no symbolic link and has a target`,
    fixable: true,
  },
]

function inodeRules(sequence: number): Rule[] {
  return [
    {
      code: 'inode-number',
      when: `ino < 1 OR ino > ${SEQUENCE_MAX}`,
      say: (row) => `inode number ${row.ino} is impossible`,
      fixable: true,
    },
    {
      code: 'inode-sequence',
      when: `ino > ${sequence} AND ino <= ${SEQUENCE_MAX}`,
      say: (row) => `inode number ${row.ino} was never given out: the last sequence is ${sequence}`,
      fixable: true,
    },
    ...RULES,
  ]
}

export function checkInodes(database: Database, report: Report, sequence: number): void {
  applyRules(database, report, {
    structure: 'inode',
    columns: 'ino, mode, uid, gid, size, parent, length(target) AS length',
    from: 'inode',
    rules: inodeRules(sequence),
    inode: (row) => row.ino ?? 0,
  })
  const root = database.prepare<[], { mode: number; parent: number }>(
    'SELECT mode, parent FROM inode WHERE ino = 1',
  )
  const row = root.get()
  const problem = { structure: 'inode', inode: 1, fixable: true } as const
  if (row === undefined) {
    report.add({ ...problem, code: 'root-missing', message: 'the root directory is missing' })
  } else if ((row.mode & 0o170000) !== 0o040000) {
    const message = 'inode 1 is not a directory: the root must be'
    report.add({ ...problem, code: 'root-mode', message })
  } else if (row.parent !== 1) {
    const message = `the root's parent is ${row.parent}: it must be the root itself`
    report.add({ ...problem, code: 'root-parent', message })
  }
}

/** Unlinked but open when the machine stopped: no damage, the next mount frees them. */
export function findOrphans(database: Database): number[] {
  return database.prepare<[], number>(ORPHANS).pluck().all()
}
