/** Every dirent and xattr: a legal name, and both its ends exist. */
import type { Database } from 'better-sqlite3'
import { SEQUENCE_MAX } from './inodes.ts'
import type { Report } from './problem.ts'
import { applyRules, type Rule } from './rules.ts'

const NAME_MAX = 255
/** What the kernel takes in one xattr. */
const XATTR_VALUE_MAX = 65536

/** `.` and `..` are made up by readdir, never stored. For `dirent d`. */
export const ILLEGAL_NAME = `(length(d.name) NOT BETWEEN 1 AND ${NAME_MAX} OR instr(d.name, x'2f')
  OR instr(d.name, x'00') OR d.name IN (x'2e', x'2e2e'))`

const ILLEGAL_XATTR_NAME = `(length(x.name) NOT BETWEEN 1 AND ${NAME_MAX} OR instr(x.name, x'00'))`
const ILLEGAL_XATTR_VALUE = `length(x.value) > ${XATTR_VALUE_MAX}`

/** For `xattr x`. */
export const ILLEGAL_XATTR = `(${ILLEGAL_XATTR_NAME} OR ${ILLEGAL_XATTR_VALUE})`

function direntRules(sequence: number): Rule[] {
  return [
    {
      code: 'dirent-name',
      when: ILLEGAL_NAME,
      say: (row) => `entry ${row.cookie} of directory ${row.parent} has an illegal name`,
      fixable: true,
    },
    {
      code: 'dirent-dangling',
      when: 'i.ino IS NULL',
      say: (row) => `entry ${row.cookie} of directory ${row.parent}: inode ${row.ino} is missing`,
      fixable: true,
    },
    {
      code: 'dirent-parent',
      when: 'p.ino IS NULL OR (p.mode & 61440) <> 16384',
      say: (row) => `a name of inode ${row.ino} is in ${row.parent}, which is no directory`,
      fixable: true,
    },
    {
      code: 'dirent-kind',
      when: 'i.ino IS NOT NULL AND d.kind <> (i.mode & 61440) >> 12',
      say: (row) => `a name of inode ${row.ino} says type ${row.kind}, the inode says otherwise`,
      fixable: true,
    },
    {
      code: 'dirent-cookie',
      when: `d.cookie < 1 OR d.cookie > ${SEQUENCE_MAX}`,
      say: (row) => `an entry of directory ${row.parent} has an impossible cookie: ${row.cookie}`,
      fixable: true,
    },
    {
      code: 'dirent-sequence',
      when: `d.cookie > ${sequence} AND d.cookie <= ${SEQUENCE_MAX}`,
      say: (row) =>
        `entry ${row.cookie} of directory ${row.parent}: the last sequence is ${sequence}`,
      fixable: true,
    },
    {
      code: 'dirent-root',
      when: 'd.ino = 1',
      say: (row) => `directory ${row.parent} has a name for the root`,
      fixable: true,
    },
    {
      code: 'directory-parent',
      when: 'd.ino <> 1 AND (i.mode & 61440) = 16384 AND i.parent <> d.parent',
      say: (row) => `directory ${row.ino} is in ${row.parent}, its '..' says ${row.dotdot}`,
      fixable: true,
    },
  ]
}

export function checkNames(database: Database, report: Report, sequence: number): void {
  applyRules(database, report, {
    structure: 'dirent',
    columns: 'd.parent, d.cookie, d.ino, d.kind, i.parent AS dotdot',
    from: `dirent d LEFT JOIN inode i ON i.ino = d.ino LEFT JOIN inode p ON p.ino = d.parent`,
    rules: direntRules(sequence),
    inode: (row) => row.ino ?? 0,
  })
  applyRules(database, report, {
    structure: 'xattr',
    columns: 'x.ino, length(x.name) AS name, length(x.value) AS value',
    from: 'xattr x LEFT JOIN inode i ON i.ino = x.ino',
    rules: XATTR_RULES,
    inode: (row) => row.ino ?? 0,
  })
}

const XATTR_RULES: readonly Rule[] = [
  {
    code: 'xattr-inode',
    when: 'i.ino IS NULL',
    say: (row) => `an extended attribute belongs to inode ${row.ino}, which is missing`,
    fixable: true,
  },
  {
    code: 'xattr-name',
    when: ILLEGAL_XATTR_NAME,
    say: (row) => `an extended attribute of inode ${row.ino} has an illegal name`,
    fixable: true,
  },
  {
    code: 'xattr-value',
    when: ILLEGAL_XATTR_VALUE,
    say: (row) => `an extended attribute of inode ${row.ino} has ${row.value} bytes`,
    fixable: true,
  },
]
