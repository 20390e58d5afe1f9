/**
 * The SQLite schema of the index. The index is derived: the truth is the checkpoint image and the
 * journal in the region. Images come from strangers, so the schema of an opened image is compared
 * with this text before a row is read.
 *
 * INVARIANT: rmap rows that overlap have the same block and blocks (shared extents).
 * INVARIANT: `free` rows are disjoint, never adjacent, and disjoint from every rmap and poison row.
 * INVARIANT: free + distinct rmap blocks + poison owned by nobody = all blocks of the region.
 * INVARIANT: every dirent's ino exists; a directory has exactly one dirent (the root none).
 * INVARIANT: inode.nlink = dirents naming it (directories: 2 + subdirectories); 0 only for orphans.
 * INVARIANT: inode.blocks = sum of its rmap blocks; rows of one owner never overlap in file_block.
 */
export const TABLES: readonly string[] = [
  `CREATE TABLE inode(
  ino INTEGER PRIMARY KEY,
  mode INTEGER NOT NULL, uid INTEGER NOT NULL, gid INTEGER NOT NULL, nlink INTEGER NOT NULL,
  rdev INTEGER NOT NULL, flags INTEGER NOT NULL, size INTEGER NOT NULL, blocks INTEGER NOT NULL,
  parent INTEGER NOT NULL,
  atime INTEGER NOT NULL, atime_ns INTEGER NOT NULL, mtime INTEGER NOT NULL, mtime_ns INTEGER NOT NULL,
  ctime INTEGER NOT NULL, ctime_ns INTEGER NOT NULL, btime INTEGER NOT NULL, btime_ns INTEGER NOT NULL,
  target BLOB
) STRICT`,
  // The cookie is the sequence of the transaction that made the entry: readdir order is creation
  // order.
  `CREATE TABLE dirent(
  parent INTEGER NOT NULL, cookie INTEGER NOT NULL, name BLOB NOT NULL, ino INTEGER NOT NULL, kind INTEGER NOT NULL,
  PRIMARY KEY(parent, cookie)
) STRICT, WITHOUT ROWID`,
  'CREATE UNIQUE INDEX dirent_name ON dirent(parent, name)',
  'CREATE INDEX dirent_ino ON dirent(ino)',
  `CREATE TABLE xattr(
  ino INTEGER NOT NULL, name BLOB NOT NULL, value BLOB NOT NULL,
  PRIMARY KEY(ino, name)
) STRICT, WITHOUT ROWID`,
  // Both directions in one table: by block for "who owns this?", by owner for "where is this
  // file?".
  `CREATE TABLE rmap(
  block INTEGER NOT NULL, blocks INTEGER NOT NULL, owner INTEGER NOT NULL, file_block INTEGER NOT NULL,
  flags INTEGER NOT NULL,
  PRIMARY KEY(block, owner, file_block)
) STRICT, WITHOUT ROWID`,
  'CREATE INDEX rmap_owner ON rmap(owner, file_block)',
  'CREATE TABLE free(block INTEGER PRIMARY KEY, blocks INTEGER NOT NULL) STRICT',
  // Room for whole 2 MiB units, found without walking the crumbs.
  'CREATE INDEX free_large ON free(block) WHERE blocks >= 512',
  'CREATE TABLE poison(block INTEGER PRIMARY KEY, blocks INTEGER NOT NULL) STRICT',
]

/** The rows of sqlite_schema, but for the root pages: type, name, table, SQL. */
export const SCHEMA: readonly (readonly string[])[] = TABLES.map((sql) => {
  const [, , type, name, table] = /^CREATE (UNIQUE )?(TABLE|INDEX) (\w+)(?: ON (\w+))?/.exec(sql)!
  return [type!.toLowerCase(), name!, table ?? name!, sql]
})
