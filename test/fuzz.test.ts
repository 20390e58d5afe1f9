/** Regions from strangers: the images that once got through, a slice of new ones, hostile SQLite. */
import { readFileSync } from 'node:fs'
import t from 'tap'
import { openSimulated } from '../src/dax/device.ts'
import { fsDaxGet } from '../src/dax/holder.ts'
import type { Memory } from '../src/dax/memory.ts'
import { FsError } from '../src/fs/errors.ts'
import { Filesystem } from '../src/fs/filesystem.ts'
import { INDEX_PAGE_SIZE, Index } from '../src/index/index.ts'
import { SCHEMA } from '../src/index/schema.ts'
import { loadImage } from '../src/journal/checkpoint.ts'
import { OWNER_CHECKPOINT } from '../src/media/change.ts'
import { MediaError } from '../src/media/errors.ts'
import { BLOCK_SIZE } from '../src/media/geometry.ts'
import { readSuperblocks, requireSuperblock } from '../src/media/superblock.ts'
import { mixSeeds } from './crash/random.ts'
import { applyMutations } from './fuzz/apply.ts'
import { copyOfBase } from './fuzz/bases.ts'
import { generate } from './fuzz/generate.ts'
import type { Fixture, Mutation } from './fuzz/mutation.ts'
import { Runner } from './fuzz/runner.ts'
import { Tally } from './fuzz/tally.ts'
import { silent } from './support/core.ts'

/** What a slice takes on a machine that does something else as well. */
const SLICE_MS = 5000

const EIO = 5
const FIXTURES = new URL('./fuzz/fixtures.json', import.meta.url)
const fixtures = JSON.parse(readFileSync(FIXTURES, 'utf8')) as Fixture[]

const runner = new Runner()
t.teardown(() => runner.close())

t.test('images that once got through', async (t) => {
  for (const { name, base, mutations } of fixtures) {
    t.equal((await runner.judge({ base, mutations })).offence, undefined, name)
  }
})

t.test('a slice of new images', async (t) => {
  // The long run draws others: npm run test:fuzz.
  const seed = Number(process.env.FUZZ_SEED ?? 21)
  const tally = new Tally()
  for (const end = Date.now() + SLICE_MS; Date.now() < end; ) {
    const image = mixSeeds(seed, tally.images)
    const answer = await runner.judge({ seed: image })
    tally.add(answer)
    const again = `npm run test:fuzz -- --image ${image}`
    if (answer.offence !== undefined) t.fail(`${answer.offence}\n${again}`)
  }
  t.comment(`${tally.line()} (seed ${seed})`)
  t.ok(tally.images > 0 && tally.mounted > 0)
})

t.test('the fuzzer is reproducible, and its watchdog bites', async (t) => {
  t.same(generate(7), generate(7))
  const one = Buffer.alloc(4096)
  const other = Buffer.alloc(4096)
  for (const target of [one, other]) {
    const memory = await copyOfBase('crashed')
    applyMutations(memory, generate(7).mutations)
    memory.read(0, target, 0, 100)
  }
  t.ok(one.equals(other))
  t.match((await runner.judge({ hang: true })).offence, /hangs/)
  t.equal((await runner.judge({ seed: 7 })).offence, undefined, 'and goes on')
})

async function mountMutated(base: string, mutations: readonly Mutation[]) {
  const memory = await copyOfBase(base)
  applyMutations(memory, mutations)
  return mount(memory)
}

function mount(memory: Memory): Filesystem {
  const device = openSimulated(memory)
  fsDaxGet(device, { purpose: 'mount' })
  const options = { readOnly: false, commitSeconds: 3600, onFailure: 'handles' } as const
  return Filesystem.mount(device, { ...options, logger: silent })
}

t.test('what an image brings along is not run, and says what helps', async (t) => {
  const strange = [
    'CREATE TRIGGER t AFTER INSERT ON inode BEGIN DELETE FROM rmap; END',
    'CREATE VIEW v AS SELECT load_extension(1)',
    'DROP TABLE poison; CREATE VIEW poison AS SELECT block, blocks FROM free',
    'CREATE INDEX i ON inode(size) WHERE abs(size) > 1',
    "PRAGMA writable_schema = ON; UPDATE sqlite_schema SET name = 'x' WHERE name = 'poison'",
    "PRAGMA writable_schema = ON; UPDATE sqlite_schema SET rootpage = 2 WHERE name = 'free'",
    'CREATE TABLE more(block INTEGER PRIMARY KEY)',
  ]
  const mutations = strange.map((text): Mutation => ({ kind: 'sql', sql: text }))
  const pagesOf1024 = { kind: 'page', at: 16, hex: '0400' } as const
  for (const mutation of [...mutations, pagesOf1024]) {
    const refused = mountMutated('clean', [mutation])
    await t.rejects(refused, MediaError, JSON.stringify(mutation))
    await t.rejects(refused, /at region offset \d+: .*; run fsck.holdfast --repair/)
  }
})

t.test('an image that SQLite wrote anew is ours all the same', async (t) => {
  const fs = await mountMutated('clean', [{ kind: 'sql', sql: 'VACUUM' }])
  t.ok(fs.lookup(1, Buffer.from('a-hard link')).ino > 1)
  await fs.unmount()
})

t.test('the schema that is compared is the one that is made', (t) => {
  const { database } = Index.create()
  const rows = database.prepare('SELECT type, name, tbl_name, sql FROM sqlite_schema').raw().all()
  t.same(rows, SCHEMA)
  const opened = Index.open(Index.create().serialize())
  const pragma = (name: string) => opened.database.pragma(name, { simple: true })
  t.equal(pragma('trusted_schema'), 0)
  t.equal(pragma('cell_size_check'), 1)
  t.end()
})

/** Pages of one b-tree in which every cell leads to the same child: 300 ^ levels rows. */
function endlessTree(image: Buffer, root: number, levels: number): Buffer {
  const pages = image.length / INDEX_PAGE_SIZE
  const grown = Buffer.concat([image, Buffer.alloc(levels * INDEX_PAGE_SIZE)])
  grown.writeUInt32BE(pages + levels, 28)
  const leaf = Buffer.from(grown.subarray((root - 1) * INDEX_PAGE_SIZE, root * INDEX_PAGE_SIZE))
  leaf.copy(grown, (pages + levels - 1) * INDEX_PAGE_SIZE)
  for (let level = 0; level < levels; level++) {
    const page = level === 0 ? root : pages + level
    const start = (page - 1) * INDEX_PAGE_SIZE
    const cells = 300
    grown.fill(0, start, start + INDEX_PAGE_SIZE)
    grown[start] = 5
    grown.writeUInt16BE(cells, start + 3)
    grown.writeUInt16BE(4096 - 5 * cells, start + 5)
    grown.writeUInt32BE(pages + level + 1, start + 8)
    for (let cell = 0; cell < cells; cell++) {
      const place = 4096 - 5 * (cell + 1)
      grown.writeUInt16BE(place, start + 12 + 2 * cell)
      grown.writeUInt32BE(pages + level + 1, start + place)
    }
  }
  return grown
}

t.test('a b-tree of more rows than anybody can count is refused at once', (t) => {
  const image = Index.create().serialize()
  const probe = Index.open(image)
  const root = probe.database
    .prepare<[], number>("SELECT rootpage FROM sqlite_schema WHERE name = 'inode'")
    .pluck()
    .get()!
  const started = performance.now()
  t.throws(() => Index.open(endlessTree(image, root, 6), { offset: 8192 }), /in two places/)
  t.ok(performance.now() - started < 1000)
  t.end()
})

/** The first cell of an index's root is outside its page. */
async function brokenPage(index: string): Promise<Mutation> {
  const memory = await copyOfBase('clean')
  const opened = Index.open(loadImage(memory, requireSuperblock(readSuperblocks(memory))))
  const root = opened.database
    .prepare<[string], number>('SELECT rootpage FROM sqlite_schema WHERE name = ?')
    .pluck()
    .get(index)!
  return { kind: 'page', at: (root - 1) * INDEX_PAGE_SIZE + 8, hex: 'ffff'.repeat(60) }
}

t.test('damage met in use shuts the filesystem down', async (t) => {
  const damage: readonly (readonly [what: string, Mutation])[] = [
    [
      'an extent outside the region',
      sql('UPDATE rmap SET block = 8000, blocks = 900 WHERE owner > 0'),
    ],
    ['an extent over the journal', sql('UPDATE rmap SET block = 600 WHERE owner > 0')],
    [
      'an extent that is no number',
      { ...sql("UPDATE rmap SET file_block = 'x' WHERE owner > 0"), loose: true },
    ],
    ['an inode of no type', sql('UPDATE inode SET mode = 7 WHERE ino > 1')],
    ['SQLITE_CORRUPT', await brokenPage('dirent_name')],
  ]
  const { slots, checkpoint } = requireSuperblock(readSuperblocks(await copyOfBase('clean')))
  const place = slots[checkpoint.slot][0]!.block * BLOCK_SIZE
  for (const [what, mutation] of damage) {
    const fs = await mountMutated('clean', [mutation])
    const refused: unknown[] = []
    for (const name of ['a-hard link', 'b-hard link']) {
      try {
        const { ino } = fs.lookup(1, Buffer.from(name))
        fs.readInto(fs.open(ino, 0, false), 0, Buffer.alloc(4096), 0, 4096)
      } catch (error) {
        refused.push(error)
      }
    }
    t.ok(refused.length > 0 && refused.every((error) => isEio(error)), `${what}: EIO`)
    const status = fs.administration.status()
    t.equal(status.state, 'shutdown', what)
    t.equal(status.shutdown?.offset, place, what)
    t.ok(status.shutdown?.reason.startsWith(`index at region offset ${place}: `), what)
    await fs.unmount()
    const again = `^checkpoint at region offset ${place}: .*shut down \\(corrupt-index\\): run fsck`
    t.throws(() => mount(fs.volume.memory), { message: new RegExp(again) }, 'for good')
  }
  const stray = `INSERT INTO rmap VALUES(${1 << 20}, 512, ${OWNER_CHECKPOINT}, 0, 0)`
  const refused = ['UPDATE free SET blocks = 99999', 'DELETE FROM inode WHERE ino = 1', stray]
  for (const row of refused) {
    const told = new RegExp(`^index at region offset ${place}: .*; run fsck`)
    await t.rejects(mountMutated('clean', [sql(row)]), { message: told }, row)
  }
})

function sql(text: string): Extract<Mutation, { kind: 'sql' }> {
  return { kind: 'sql', sql: text }
}

const isEio = (error: unknown) => error instanceof FsError && error.errno === EIO
