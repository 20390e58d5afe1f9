/** SQL that makes a stranger's image: rows no operation writes, and a schema that is not ours. */
import type { Random } from '../crash/random.ts'
import { INTERESTING } from './generate.ts'

const INTEGERS: Readonly<Record<string, readonly string[]>> = {
  inode: [
    ...['ino', 'mode', 'uid', 'gid', 'nlink', 'rdev', 'flags', 'size', 'blocks', 'parent'],
    ...['atime', 'atime_ns', 'mtime', 'mtime_ns', 'ctime', 'ctime_ns', 'btime', 'btime_ns'],
  ],
  dirent: ['parent', 'cookie', 'ino', 'kind'],
  xattr: ['ino'],
  rmap: ['block', 'blocks', 'owner', 'file_block', 'flags'],
  free: ['block', 'blocks'],
  poison: ['block', 'blocks'],
}

const BLOBS: readonly (readonly [table: string, column: string])[] = [
  ['inode', 'target'],
  ['dirent', 'name'],
  ['xattr', 'name'],
  ['xattr', 'value'],
]

/** The primary keys: the tables without rowid have no other way to name one row. */
const KEYS: Readonly<Record<string, string>> = {
  inode: 'ino',
  dirent: 'parent, cookie',
  xattr: 'ino, name',
  rmap: 'block, owner, file_block',
  free: 'block',
  poison: 'block',
}

const STRANGE_BLOBS = [
  "x''",
  "x'2e'",
  "x'2e2e'",
  "x'612f62'",
  "x'00'",
  'zeroblob(300)',
  'zeroblob(70000)',
]
const STRANGE_VALUES = ["'text'", '1.5', "x'00ff'", '-9223372036854775808', '9223372036854775807']

const SCHEMAS = [
  'CREATE VIEW v AS SELECT * FROM inode',
  'CREATE TABLE other(a)',
  'CREATE INDEX other ON inode(size)',
  'DROP INDEX rmap_owner',
  'DROP INDEX dirent_name',
  'DROP TABLE poison; CREATE VIEW poison AS SELECT block, blocks FROM free',
  'CREATE TRIGGER t AFTER INSERT ON inode BEGIN DELETE FROM rmap; END',
  'CREATE TRIGGER t BEFORE DELETE ON free BEGIN SELECT load_extension(1); END',
  "PRAGMA writable_schema = ON; UPDATE sqlite_schema SET rootpage = 2 WHERE name = 'free'",
  "PRAGMA writable_schema = ON; UPDATE sqlite_schema SET rootpage = 1 WHERE name = 'rmap'",
  "PRAGMA writable_schema = ON; UPDATE sqlite_schema SET rootpage = 99999 WHERE name = 'inode'",
  "PRAGMA writable_schema = ON; UPDATE sqlite_schema SET name = 'x' WHERE name = 'poison'",
  "PRAGMA writable_schema = ON; UPDATE sqlite_schema SET tbl_name = 'inode' WHERE name = 'free_large'",
  "PRAGMA writable_schema = ON; DELETE FROM sqlite_schema WHERE name = 'free_large'",
  "PRAGMA writable_schema = ON; UPDATE sqlite_schema SET sql = 'CREATE TABLE inode(a)' WHERE name = 'inode'",
  'PRAGMA writable_schema = ON; UPDATE sqlite_schema SET sql = NULL',
  'PRAGMA user_version = 7; PRAGMA application_id = 9',
  'PRAGMA page_size = 1024; VACUUM',
  'PRAGMA page_size = 65536; VACUUM',
  'PRAGMA auto_vacuum = FULL; VACUUM',
]

export function randomSql(random: Random): { sql: string; loose?: boolean } {
  if (random.chance(0.12)) return { sql: random.pick(SCHEMAS) }
  if (random.chance(0.1)) return { sql: strangeValue(random), loose: true }
  if (random.chance(0.15)) return { sql: strangeBlob(random) }
  const table = random.pick(Object.keys(INTEGERS))
  if (random.chance(0.15)) return { sql: `DELETE FROM ${table} WHERE ${oneRow(random, table)}` }
  if (random.chance(0.2)) return { sql: insertion(random, table) }
  return { sql: update(random, table, number(random)) }
}

function update(random: Random, table: string, value: string): string {
  const column = random.pick(INTEGERS[table]!)
  const delta = random.chance(0.3) ? `${column} + ${random.pick([-1, 1, -2, 512])}` : value
  return `UPDATE ${table} SET ${column} = ${delta} WHERE ${oneRow(random, table)}`
}

function strangeValue(random: Random): string {
  const table = random.pick(Object.keys(INTEGERS))
  const column = random.pick(INTEGERS[table]!)
  const value = random.pick(STRANGE_VALUES)
  return `UPDATE ${table} SET ${column} = ${value} WHERE ${oneRow(random, table)}`
}

function strangeBlob(random: Random): string {
  const [table, column] = random.pick(BLOBS)
  return `UPDATE ${table} SET ${column} = ${random.pick(STRANGE_BLOBS)} WHERE ${oneRow(random, table)}`
}

/** A row like another one, with one column changed. */
function insertion(random: Random, table: string): string {
  const columns = INTEGERS[table]!
  const changed = random.pick(columns)
  const all = [...columns, ...BLOBS.filter(([of]) => of === table).map(([, column]) => column)]
  const values = all.map((column) => (column === changed ? number(random) : column))
  return `INSERT OR IGNORE INTO ${table}(${all}) SELECT ${values} FROM ${table} WHERE ${oneRow(random, table)}`
}

/** One of the rows, or every one. */
function oneRow(random: Random, table: string): string {
  if (random.chance(0.06)) return 'true'
  const key = KEYS[table]!
  const rows = `(SELECT count(*) FROM ${table})`
  const at = `${random.below(1000)} % max(${rows}, 1)`
  return `(${key}) = (SELECT ${key} FROM ${table} ORDER BY ${key} LIMIT 1 OFFSET ${at})`
}

function number(random: Random): string {
  if (random.chance(0.6)) return String(random.pick(INTERESTING))
  return String(1 + random.below(random.pick([20, 90, 8192, 2 ** 24])))
}
