import { t } from 'tap'
import { checkIndex } from '../src/fs/check/check.ts'
import { findOrphans } from '../src/fs/check/inodes.ts'
import { metadataRows } from '../src/fs/check/layout.ts'
import { Actions } from '../src/fs/repair/actions.ts'
import type { OverlapChoice, RepairContext } from '../src/fs/repair/context.ts'
import { repairIndex } from '../src/fs/repair/repair-index.ts'
import { Index } from '../src/index/index.ts'
import { BLOCKS_PER_UNIT, geometryFor } from '../src/media/geometry.ts'
import type { BlockRange, Slots } from '../src/media/superblock.ts'

const geometry = geometryFor(32 * 1024 * 1024)
const DATA = geometry.dataStartBlock + 2 * BLOCKS_PER_UNIT
const slots: Slots = [
  [{ block: geometry.dataStartBlock, blocks: BLOCKS_PER_UNIT }],
  [{ block: geometry.dataStartBlock + BLOCKS_PER_UNIT, blocks: BLOCKS_PER_UNIT }],
]
const SEQUENCE = 100

/**
 * /dir (2), /dir/file (3, also /link, with an xattr), /symlink (4), /empty (5), /one (6) and /two
 * (7), which is a hole, /gone (8) unlinked while open, /device (9), a quarantined block.
 */
function scratchIndex(): Index {
  const index = Index.create()
  for (const row of metadataRows(geometry, slots.flat())) index.rmap.put(row)
  const times = { atime: 1, mtime: 1, ctime: 1, btime: 1 }
  const nanoseconds = { atimeNs: 0, mtimeNs: 0, ctimeNs: 0, btimeNs: 0 }
  const base = { uid: 0, gid: 0, rdev: 0, flags: 0, parent: 0, ...times, ...nanoseconds }
  const inode = (ino: number, mode: number, nlink: number, size: number, more: object = {}) =>
    index.inodes.put({ ...base, ino, mode, nlink, size, blocks: 0, target: null, ...more })
  inode(1, 0o040755, 3, 0, { parent: 1 })
  inode(2, 0o040755, 2, 0, { parent: 1 })
  inode(3, 0o100644, 2, 8192, { blocks: 2 })
  inode(4, 0o120777, 1, 4, { target: Buffer.from('dir/') })
  inode(5, 0o100644, 1, 0)
  inode(6, 0o100644, 1, 4096, { blocks: 1 })
  inode(7, 0o100644, 1, 4096)
  inode(8, 0o100644, 0, 4096, { blocks: 1 })
  inode(9, 0o020600, 1, 0, { rdev: 259 })
  const name = (parent: number, cookie: number, text: string, ino: number, kind: number) =>
    index.dirents.put(parent, cookie, Buffer.from(text), ino, kind)
  name(1, 2, 'dir', 2, 4)
  name(2, 3, 'file', 3, 8)
  name(1, 10, 'link', 3, 8)
  name(1, 4, 'symlink', 4, 10)
  name(1, 5, 'empty', 5, 8)
  name(1, 6, 'one', 6, 8)
  name(1, 7, 'two', 7, 8)
  name(1, 9, 'device', 9, 2)
  index.xattrs.put(3, Buffer.from('user.a'), Buffer.from('b'))
  const extent = (block: number, blocks: number, owner: number, fileBlock = 0) =>
    index.rmap.put({ block, blocks, owner, fileBlock, flags: 0 })
  extent(DATA, 2, 3)
  extent(DATA + 2, 1, 6)
  extent(DATA + 3, 1, 8)
  index.database.exec(`INSERT INTO poison VALUES(${DATA + 4}, 1), (${DATA}, 1)`)
  index.freeSpace.free(DATA + 5, geometry.dataEndBlock - DATA - 5)
  return index
}

const check = (index: Index, sequence = SEQUENCE) =>
  checkIndex(index.database, geometry, { slots }, { sequence })

function repair(index: Index, sequence = SEQUENCE, overlap: OverlapChoice = 'quarantine') {
  const actions = new Actions()
  const zeroed: BlockRange[] = []
  const context: RepairContext = {
    ...{ index, geometry, slots, actions, now: 1, sequence },
    overlap,
    zeroed,
  }
  repairIndex(context)
  const list = actions.list()
  return {
    kinds: list.map((action) => action.kind),
    lost: list.filter(({ kind }) => kind === 'extent-shared').map(({ message }) => message),
    sequence: context.sequence,
    zeroed,
  }
}

const FREE = DATA + 5
const FREE_BLOCKS = geometry.dataEndBlock - FREE

/** /gone (10), unlinked while open. */
function removedDirectory(parent: number): string {
  return `INSERT INTO inode VALUES(10, ${0o40755}, 0, 0, 0, 0, 0, 0, 0, ${parent},
    1, 0, 1, 0, 1, 0, 1, 0, NULL)`
}

/** The damage, and the codes of what the checker must say: these and nothing else. */
const DAMAGE: readonly (readonly [sql: string, ...codes: string[]])[] = [
  [
    'UPDATE inode SET mode = 0 WHERE ino = 9; UPDATE dirent SET kind = 0 WHERE ino = 9',
    'inode-mode',
  ],
  ['UPDATE inode SET uid = -1 WHERE ino = 5', 'inode-owner'],
  ['UPDATE inode SET gid = 4294967296 WHERE ino = 5', 'inode-owner'],
  ['UPDATE inode SET mtime_ns = 1000000000 WHERE ino = 5', 'inode-time'],
  ['UPDATE inode SET ctime = 9223372036854775807 WHERE ino = 5', 'inode-time'],
  ['UPDATE inode SET size = -1 WHERE ino = 3', 'inode-size'],
  ['UPDATE inode SET parent = 1 WHERE ino = 3', 'inode-parent'],
  [removedDirectory(-5), 'inode-parent'],
  [removedDirectory(2 ** 60), 'inode-parent'],
  [
    `${removedDirectory(1)};
     INSERT INTO dirent VALUES(10, 50, x'7a', 5, 8); UPDATE inode SET nlink = 2 WHERE ino = 5`,
    'inode-unnamed',
  ],
  ['UPDATE inode SET target = NULL WHERE ino = 4', 'symlink-target'],
  ['UPDATE inode SET size = 5 WHERE ino = 4', 'symlink-size'],
  ["UPDATE inode SET target = x'61' WHERE ino = 3", 'inode-target'],
  [
    'UPDATE inode SET ino = 101 WHERE ino = 8; UPDATE rmap SET owner = 101 WHERE owner = 8',
    'inode-sequence',
  ],
  [
    'UPDATE inode SET ino = -5 WHERE ino = 5; UPDATE dirent SET ino = -5 WHERE ino = 5',
    'inode-number',
  ],
  ['UPDATE inode SET parent = 2 WHERE ino = 1', 'root-parent'],
  ['DELETE FROM inode WHERE ino = 1', 'root-missing', 'dirent-parent'],
  ["UPDATE dirent SET name = x'612f62' WHERE ino = 5", 'dirent-name'],
  ["UPDATE dirent SET name = x'2e2e' WHERE ino = 5", 'dirent-name'],
  ["UPDATE dirent SET name = x'' WHERE ino = 5", 'dirent-name'],
  ['UPDATE dirent SET name = zeroblob(256) WHERE ino = 5', 'dirent-name'],
  ["INSERT INTO dirent VALUES(1, 50, x'7a', 99, 8)", 'dirent-dangling'],
  [
    "INSERT INTO dirent VALUES(6, 50, x'7a', 5, 8); UPDATE inode SET nlink = 2 WHERE ino = 5",
    'dirent-parent',
  ],
  [
    "INSERT INTO dirent VALUES(66, 50, x'7a', 5, 8); UPDATE inode SET nlink = 2 WHERE ino = 5",
    'dirent-parent',
  ],
  ['UPDATE dirent SET kind = 1 WHERE ino = 5', 'dirent-kind'],
  ['UPDATE dirent SET cookie = 101 WHERE ino = 5', 'dirent-sequence'],
  ['UPDATE dirent SET cookie = -1 WHERE ino = 5', 'dirent-cookie'],
  [
    "INSERT INTO dirent VALUES(2, 50, x'7a', 1, 4); UPDATE inode SET nlink = 3 WHERE ino = 2",
    'dirent-root',
  ],
  ['UPDATE inode SET parent = 3 WHERE ino = 2', 'directory-parent'],
  [
    "INSERT INTO dirent VALUES(1, 50, x'7a', 2, 4); UPDATE inode SET nlink = 4 WHERE ino = 1",
    'directory-names',
  ],
  [
    'UPDATE dirent SET parent = 2 WHERE ino = 2; UPDATE inode SET parent = 2, nlink = 3 WHERE ino = 2; UPDATE inode SET nlink = 2 WHERE ino = 1',
    'directory-cycle',
  ],
  ['UPDATE inode SET nlink = 3 WHERE ino = 3', 'link-count'],
  ['UPDATE inode SET nlink = 0 WHERE ino = 5', 'link-count'],
  ['UPDATE inode SET nlink = 2 WHERE ino = 1', 'link-count'],
  ['DELETE FROM dirent WHERE ino = 5', 'inode-unnamed'],
  ['DELETE FROM dirent WHERE ino = 2; UPDATE inode SET nlink = 2 WHERE ino = 1', 'inode-unnamed'],
  ["INSERT INTO xattr VALUES(99, x'61', x'62')", 'xattr-inode'],
  ["INSERT INTO xattr VALUES(3, x'', x'62')", 'xattr-name'],
  ["INSERT INTO xattr VALUES(3, x'61', zeroblob(65537))", 'xattr-value'],
  ['UPDATE inode SET blocks = 3 WHERE ino = 3', 'inode-blocks'],
  ['UPDATE inode SET blocks = 1 WHERE ino = 5', 'inode-blocks'],
  [
    'UPDATE rmap SET owner = 99 WHERE owner = 8; UPDATE inode SET blocks = 0 WHERE ino = 8',
    'extent-owner',
  ],
  [
    'UPDATE rmap SET owner = 9 WHERE owner = 8; UPDATE inode SET blocks = 0 WHERE ino = 8; UPDATE inode SET blocks = 1 WHERE ino = 9',
    'extent-owner',
  ],
  [
    'UPDATE rmap SET owner = 0 WHERE owner = 8; UPDATE inode SET blocks = 0 WHERE ino = 8',
    'extent-owner',
  ],
  ['UPDATE rmap SET file_block = -1 WHERE owner = 8', 'extent-file-block'],
  [
    `INSERT INTO rmap VALUES(${FREE}, 1, 3, 1, 0); UPDATE inode SET blocks = 3 WHERE ino = 3; UPDATE free SET block = block + 1, blocks = blocks - 1`,
    'extent-overlap',
  ],
  [
    `INSERT INTO rmap VALUES(${geometry.blocks}, 1, 5, 0, 0); UPDATE inode SET blocks = 1 WHERE ino = 5`,
    'extent-range',
  ],
  [
    `INSERT INTO rmap VALUES(${DATA + 1}, 1, 5, 0, 0); UPDATE inode SET blocks = 1 WHERE ino = 5`,
    'extent-shared',
  ],
  [
    `INSERT INTO rmap VALUES(${DATA + 2}, 1, 7, 0, 0); UPDATE inode SET blocks = 1 WHERE ino = 7`,
    'extent-shared',
  ],
  ['UPDATE inode SET rdev = -1 WHERE ino = 9', 'inode-field'],
  ['UPDATE inode SET flags = 8 WHERE ino = 9', 'inode-field'],
  [
    `UPDATE inode SET ino = ${2 ** 60} WHERE ino = 8; UPDATE rmap SET owner = ${2 ** 60} WHERE owner = 8`,
    'inode-number',
  ],
  [`UPDATE dirent SET cookie = ${2 ** 62} WHERE ino = 5`, 'dirent-cookie'],
  [`INSERT INTO dirent VALUES(1, 50, x'7a', ${2 ** 62}, 8)`, 'dirent-dangling'],
  ['UPDATE inode SET mode = 33188 WHERE ino = 1', 'root-mode', 'dirent-parent', 'inode-parent'],
  [
    'INSERT INTO rmap VALUES(0, 512, 5, 0, 0); UPDATE inode SET blocks = 512 WHERE ino = 5',
    'extent-metadata',
  ],
  ['UPDATE rmap SET flags = 2 WHERE owner = 3', 'extent-flags'],
  ['DELETE FROM rmap WHERE owner = -1 AND block = 0', 'metadata-extents', 'space-lost'],
  ['UPDATE rmap SET owner = -3 WHERE owner = -2', 'metadata-extents'],
  ['UPDATE free SET blocks = blocks - 1', 'space-lost'],
  ['UPDATE free SET block = block + 1, blocks = blocks - 1', 'space-lost'],
  ['UPDATE free SET block = block - 1, blocks = blocks + 1', 'free-overlap'],
  ['UPDATE free SET block = block - 2, blocks = blocks + 2', 'free-overlap'],
  ['UPDATE free SET blocks = blocks + 1', 'free-overlap'],
  [
    `UPDATE free SET blocks = 1; INSERT INTO free VALUES(${FREE + 1}, ${FREE_BLOCKS - 1})`,
    'free-adjacent',
  ],
  [`INSERT INTO free VALUES(${FREE + 1}, 1)`, 'free-overlap'],
  [`INSERT INTO free VALUES(${geometry.blocks}, 1)`, 'free-range'],
  [`INSERT INTO poison VALUES(${geometry.blocks}, 1)`, 'poison-range'],
  [`UPDATE poison SET blocks = 5 WHERE block = ${DATA}`, 'poison-overlap'],
  [`UPDATE poison SET blocks = 2 WHERE block = ${DATA + 4}`, 'free-overlap'],
]

t.test('a healthy index has no problems, and nothing to repair but its orphan', (t) => {
  const index = scratchIndex()
  t.same(check(index), [])
  t.same(findOrphans(index.database), [8])
  t.same(repair(index).kinds, ['orphan', 'free'])
  t.same(check(index), [])
  t.same(repair(index).kinds, [])
  t.end()
})

t.test('each damage is reported as just what it is', (t) => {
  for (const [sql, ...codes] of DAMAGE) {
    const index = scratchIndex()
    index.database.exec(sql)
    const found = new Set(check(index).map((problem) => problem.code))
    t.same([...found].sort(), [...codes].sort(), sql)
    index.close()
  }
  t.end()
})

t.test('what is called fixable is fixed, and fixed once', (t) => {
  for (const [sql] of DAMAGE) {
    const index = scratchIndex()
    index.database.exec(sql)
    const hopeless = check(index).filter((problem) => !problem.fixable)
    const { sequence } = repair(index)
    const left = check(index, sequence).map((problem) => problem.code)
    const expected = hopeless.map((problem) => problem.code)
    t.same(left, expected, `left of: ${sql}`)
    if (hopeless.length === 0) t.same(repair(index, sequence).kinds, [], `again: ${sql}`)
    index.close()
  }
  t.end()
})

t.test('inodes that lost their names are found in lost+found', (t) => {
  const index = scratchIndex()
  index.database.exec('DELETE FROM dirent WHERE ino IN (2, 5)')
  const { sequence } = repair(index)
  t.equal(sequence, SEQUENCE + 3)
  const folder = index.dirents.find(1, Buffer.from('lost+found'))
  t.match(folder, { ino: SEQUENCE + 1, kind: 4 })
  t.match(index.dirents.find(folder!.ino, Buffer.from('#5')), { ino: 5, kind: 8 })
  t.match(index.dirents.find(folder!.ino, Buffer.from('#2')), { ino: 2, kind: 4 })
  t.match(index.dirents.find(2, Buffer.from('file')), { ino: 3 }, 'what was below is still below')
  t.end()
})

t.test('damage everywhere is told once in full, then counted', (t) => {
  const index = scratchIndex()
  const insert = index.database.prepare("INSERT INTO xattr VALUES(?, x'61', x'62')")
  for (let ino = 1000; ino < 1500; ino++) insert.run(ino)
  const problems = check(index)
  t.equal(problems.length, 101)
  t.match(problems.at(-1)?.message, /400 more/)
  t.end()
})

/**
 * /one (6), changed last, claims `shared` blocks of /link (3). Of what comes behind them /two
 * (7) has `owned`, and nobody has the rest.
 */
function sharedIndex(shared: number, owned: Iterable<BlockRange>): Index {
  const index = scratchIndex()
  index.database.exec(`DELETE FROM poison; DELETE FROM rmap WHERE owner > 0; DELETE FROM free;
    UPDATE inode SET mtime = 9 WHERE ino = 6; UPDATE inode SET size = 4096 WHERE ino = 3`)
  const extent = (block: number, blocks: number, owner: number, fileBlock: number) =>
    index.rmap.put({ block, blocks, owner, fileBlock, flags: 0 })
  extent(DATA, shared, 3, 0)
  extent(DATA, shared, 6, 0)
  for (const { block, blocks } of owned) extent(block, blocks, 7, block - DATA)
  return index
}

/** Every other block, so that what is free is nowhere two blocks long. */
function* everyOther(from: number): Generator<BlockRange> {
  for (let block = from; block < geometry.dataEndBlock; block += 2) yield { block, blocks: 1 }
}

/** The free unit behind it is as good as two pieces of 300 blocks, but a checkpoint needs units. */
function* aroundAUnit(): Generator<BlockRange> {
  yield { block: DATA + 600, blocks: 2 * BLOCKS_PER_UNIT - 600 }
  yield* everyOther(DATA + 3 * BLOCKS_PER_UNIT)
}

const lossOf = (blocks: number, what: string) =>
  `inode 3: ${blocks * 4096} bytes at 0 of /link are ${what}; ` +
  'inode 6 keeps their blocks for /one'

t.test('a range that a file loses is quarantined in pieces where free space is in pieces', (t) => {
  for (const [shared, owned, units] of [
    [4, everyOther(DATA + 4), 0],
    [600, aroundAUnit(), 1],
  ] as const) {
    const index = sharedIndex(shared, owned)
    const { lost, sequence, zeroed } = repair(index)
    t.same(lost, [lossOf(shared, 'quarantined: reading them fails')])
    const rows = index.rmap.ofOwner(3)
    t.same(
      rows.map(({ fileBlock, blocks }) => [fileBlock, blocks]),
      Array.from({ length: shared }, (_, i) => [i, 1]),
      'block by block, all of it',
    )
    t.ok(rows.every(({ block }) => index.poison.overlapping(block, 1).length === 1))
    t.same(
      zeroed,
      rows.map(({ block, blocks }) => ({ block, blocks })),
    )
    t.equal(index.freeSpace.wholeUnits(), units)
    t.match(index.rmap.ofOwner(6), [{ block: DATA, blocks: shared, fileBlock: 0 }])
    t.same(check(index, sequence), [])
    t.same(repair(index, sequence).kinds, [], 'again')
    index.close()
  }
  t.end()
})

t.test('it reads as zeros when that was asked for, or when too little is free', (t) => {
  const few = { block: DATA + 7, blocks: geometry.dataEndBlock - DATA - 7 }
  const reason = 'zeros now (only 12288 bytes are free, too few to quarantine them)'
  for (const [overlap, owned, what] of [
    ['quarantine', [few], reason],
    ['zero', [few], 'zeros now'],
    ['zero', everyOther(DATA + 4), 'zeros now'],
  ] as const) {
    const index = sharedIndex(4, owned)
    const { lost, sequence, zeroed } = repair(index, SEQUENCE, overlap)
    t.same(lost, [lossOf(4, what)])
    t.same(zeroed, [])
    t.same(index.rmap.ofOwner(3), [])
    t.same(index.poison.all(), [])
    t.same(check(index, sequence), [])
    t.same(repair(index, sequence, overlap).kinds, [], 'again')
    index.close()
  }
  t.end()
})

t.test('every file that lost something is told, not only the first hundred', (t) => {
  const index = sharedIndex(500, [])
  index.database.exec(`DELETE FROM rmap WHERE owner = 3;
    WITH RECURSIVE n(i) AS (SELECT 0 UNION ALL SELECT i + 1 FROM n WHERE i < 249)
    INSERT INTO rmap SELECT ${DATA} + 2 * i, 1, 3, 2 * i, 0 FROM n`)
  const { lost } = repair(index)
  t.equal(lost.length, 250)
  t.match(lost[249], `inode 3: 4096 bytes at ${498 * 4096} of /link `)
  t.end()
})

const UNIT = BLOCKS_PER_UNIT

/**
 * /one (6) has `size` blocks and was changed last, /link (3) has two behind DATA + 100; the extents
 * of /one, and what is left of them after a repair: [block, blocks, file block] each.
 */
const CONFLICTS: readonly {
  what: string
  size: number
  rows: readonly (readonly [block: number, blocks: number, fileBlock: number])[]
  left: readonly (readonly [block: number, blocks: number, fileBlock: number])[]
  lost?: readonly (string | RegExp)[]
}[] = [
  {
    what: 'one block is in a checkpoint slot',
    size: 10,
    rows: [[DATA - 1, 10, 0]],
    left: [[DATA, 9, 1]],
    lost: ['inode 6: 4096 bytes at 0 of /one are zeros now; the checkpoint has their blocks'],
  },
  {
    what: 'it goes on behind the region',
    size: 1000,
    rows: [[geometry.dataEndBlock - 10, 10 + UNIT + 1, 0]],
    left: [[geometry.dataEndBlock - 10, 10, 0]],
    lost: [/2097152 bytes at 40960 of .one are zeros now; the superblock has their blocks/],
  },
  {
    what: 'its length makes no sense',
    size: 4,
    rows: [[DATA, 2 ** 60, 0]],
    left: [[DATA, 4, 0]],
  },
  {
    what: 'it goes over another file into metadata: it is wrong about both',
    size: geometry.blocks,
    rows: [[DATA, geometry.dataEndBlock - DATA + 1, 0]],
    left: [
      [DATA, 100, 0],
      [DATA + 102, geometry.dataEndBlock - DATA - 102, 102],
    ],
    lost: [
      'inode 6: 8192 bytes at 409600 of /one are zeros now; inode 3 keeps their blocks for /link',
      /4096 bytes at \d+ of .one are zeros now; the superblock has their blocks/,
    ],
  },
  {
    what: 'it begins before the file',
    size: 10,
    rows: [[DATA, 11, -1]],
    left: [[DATA + 1, 10, 0]],
  },
  {
    what: 'two extents have one part of the file',
    size: 50,
    rows: [
      [DATA, 11, 0],
      [DATA + 11, 40, 10],
    ],
    left: [
      [DATA, 11, 0],
      [DATA + 12, 39, 11],
    ],
  },
  {
    what: 'one of three is inside another',
    size: 50,
    rows: [
      [DATA, 20, 0],
      [DATA + 30, 5, 10],
      [DATA + 40, 10, 15],
    ],
    left: [
      [DATA, 20, 0],
      [DATA + 45, 5, 20],
    ],
  },
]

t.test('of an extent that is in the way of something only that part goes', (t) => {
  for (const { what, size, rows, left, lost } of CONFLICTS) {
    const index = scratchIndex()
    index.database.exec(`DELETE FROM poison; DELETE FROM rmap WHERE owner > 0; DELETE FROM free;
      UPDATE inode SET mtime = 9, size = ${size * 4096} WHERE ino = 6`)
    const put = index.database.prepare('INSERT INTO rmap VALUES(?, ?, ?, ?, 0)')
    put.run(DATA + 100, 2, 3, 0)
    for (const [block, blocks, fileBlock] of rows) put.run(block, blocks, 6, fileBlock)
    const repaired = repair(index, SEQUENCE, 'zero')
    const found = index.rmap.ofOwner(6)
    t.strictSame(
      found.map(({ block, blocks, fileBlock }) => [block, blocks, fileBlock]),
      left,
      what,
    )
    t.match(index.rmap.ofOwner(3), [{ block: DATA + 100, blocks: 2 }], 'the other keeps its own')
    t.equal(repaired.lost.length, lost?.length ?? 0)
    t.match(repaired.lost, lost ?? [])
    t.same(check(index, repaired.sequence), [], what)
    t.same(repair(index, repaired.sequence, 'zero').kinds, [], `again: ${what}`)
    index.close()
  }
  t.end()
})

t.test('what metadata takes from a file is quarantined', (t) => {
  const index = scratchIndex()
  index.database.exec(`UPDATE rmap SET block = ${DATA - 1}, blocks = 3 WHERE owner = 3;
    UPDATE inode SET size = 12288 WHERE ino = 3`)
  const { lost, sequence, zeroed } = repair(index)
  t.match(lost, [
    /^inode 3: 4096 bytes at 0 of \/\S+ are quarantined: reading them fails; the check/,
  ])
  const [first, rest] = index.rmap.ofOwner(3)
  t.match(first, { fileBlock: 0, blocks: 1 })
  t.match(rest, { block: DATA, fileBlock: 1, blocks: 2 })
  t.same(zeroed, [{ block: first?.block, blocks: 1 }])
  t.equal(index.poison.overlapping(first?.block ?? 0, 1).length, 1)
  t.same(check(index, sequence), [])
  t.end()
})
