/**
 * Power fails while a region that is really damaged is repaired, and once more during the repair
 * after that: the next one that comes to its end leaves a region that the checker calls clean, with
 * everything in it that an undisturbed repair keeps.
 */
import { createHash } from 'node:crypto'
import { type Test, t } from 'tap'
import { bootId } from '../src/dax/identity.ts'
import type { SimulatedMemory, SimulatedMode } from '../src/dax/simulated-memory.ts'
import { type Examination, examine } from '../src/fs/check/examine.ts'
import type { Filesystem } from '../src/fs/filesystem.ts'
import type { OverlapChoice } from '../src/fs/repair/context.ts'
import { needsRepair, repairRegion } from '../src/fs/repair/repair.ts'
import type { Index } from '../src/index/index.ts'
import { Checkpointer } from '../src/journal/checkpoint.ts'
import { BLOCK_SIZE } from '../src/media/geometry.ts'
import type { Superblock } from '../src/media/superblock.ts'
import { giveBack, type Image, Moment } from './crash/images.ts'
import { abandon, mountMemory } from './crash/mounting.ts'
import { mixSeeds, Random } from './crash/random.ts'
import { survey } from './crash/survey.ts'
import { scratchFilesystem } from './support/core.ts'
import { recordOffset, superblockOf } from './support/records.ts'

const SIZE = 32 * 1024 * 1024
const FILES = 16
const CALLER = { uid: 0, gid: 0, pid: 1, umask: 0 }
const WRITE = { cached: false, killPrivileges: false, append: false }
const O_RDWR = 2
const name = (text: string) => Buffer.from(text)
/** Of the repairs that follow, so many in each case are stopped as well. */
const AGAIN = 2
const OTHER_BOOT = '00000000-0000-4000-8000-000000000001'

/** Numbered files of two blocks, the second half of them in the journal only, and more. */
async function populated(mode: SimulatedMode, clean: boolean): Promise<SimulatedMemory> {
  const { fs, memory } = scratchFilesystem(SIZE, mode)
  const { ino: dir } = fs.mkdir(1, name('dir'), 0o755, CALLER)
  addFiles(fs, dir, 0, FILES / 2)
  fs.symlink(dir, name('symlink'), name('../file0'), CALLER)
  await fs.administration.checkpoint()
  addFiles(fs, dir, FILES / 2, FILES)
  const { ino } = fs.lookup(1, name('file2'))
  fs.setxattr(ino, name('user.a'), Buffer.from('value'), 0, false)
  fs.link(ino, dir, name('link'))
  // Removed, and still open: a repair frees it.
  fs.create(1, name('gone'), 0o644, O_RDWR, CALLER)
  fs.unlink(1, name('gone'))
  await fs.fsync(ino, false)
  const crashed = memory.crash()
  await fs.unmount()
  return clean ? memory : crashed
}

/** Every other one in the directory. */
function addFiles(fs: Filesystem, dir: number, from: number, to: number): void {
  for (let at = from; at < to; at++) {
    const handle = fs.create(at % 2 === 0 ? 1 : dir, name(`file${at}`), 0o644, O_RDWR, CALLER)
    fs.write(handle, 0, Buffer.alloc(6000, 65 + at), 0, 6000, WRITE)
    fs.release(handle)
  }
}

function look(memory: SimulatedMemory, boot: string): Examination {
  const stages = examine(memory, { bootId: boot })
  for (;;) {
    const next = stages.next()
    if (next.done) return next.value
  }
}

function scribble(memory: SimulatedMemory, offset: number, length: number): void {
  memory.write(offset, Buffer.alloc(length, 0x5a), 0, length)
  memory.flush(offset, length)
}

/** Puts an index on media that was changed by hand. */
function damageIndex(memory: SimulatedMemory, damage: (index: Index) => void): void {
  const { superblock, salvaged } = look(memory, bootId())
  const { index, sequence } = salvaged!
  damage(index)
  const slot = superblock!.checkpoint.slot === 0 ? 1 : 0
  const checkpointer = new Checkpointer(memory)
  checkpointer.begin(index.serialize(), sequence, slot, superblock!.slots[slot])
  checkpointer.finish(superblock!)
  index.close()
}

function damageRows(sql: string): (memory: SimulatedMemory) => void {
  return (memory) => damageIndex(memory, ({ database }) => database.exec(sql))
}

const currentSlot = ({ slots, checkpoint }: Superblock) =>
  slots[checkpoint.slot][0]!.block * BLOCK_SIZE

const FIRST = "(SELECT ino FROM dirent WHERE name = CAST('file0' AS BLOB))"
const SECOND = "(SELECT ino FROM dirent WHERE name = CAST('file1' AS BLOB))"
/** The second file claims the last block of the first as its own first one. */
const SHARED = `UPDATE inode SET mtime = mtime + 10 WHERE ino = ${SECOND};
  UPDATE rmap SET block = (SELECT block + 1 FROM rmap WHERE owner = ${FIRST}) WHERE owner = ${SECOND}`

interface Case {
  readonly what: string
  readonly clean: boolean
  readonly damage: (memory: SimulatedMemory) => void
  /** What the checker says, among others. */
  readonly code: string
  readonly overlap?: OverlapChoice
}

const lostImage = (memory: SimulatedMemory) =>
  scribble(memory, currentSlot(superblockOf(memory)) + 9000, 100)
const lostPrimary = (memory: SimulatedMemory) => scribble(memory, 100, 8)
const lostBackup = (memory: SimulatedMemory) => scribble(memory, SIZE - BLOCK_SIZE + 100, 8)
const counts = damageRows(`UPDATE inode SET nlink = 7, blocks = 9 WHERE ino > 1;
  UPDATE free SET blocks = blocks - 3; INSERT INTO dirent VALUES(1, 16, x'78', 12345, 8)`)
const nameless = damageRows(`DELETE FROM dirent WHERE ino % 3 = 0;
  DELETE FROM dirent WHERE name = CAST('dir' AS BLOB)`)
const shared = damageRows(SHARED)

function cutJournal(how: 'scribble' | 'poison'): (memory: SimulatedMemory) => void {
  return (memory) => {
    const offset = recordOffset(memory, 7)
    if (how === 'scribble') scribble(memory, offset + 70, 4)
    else memory.poison(offset, 1)
  }
}

const CASES: readonly Case[] = [
  { what: 'counts, dangling names', clean: true, damage: counts, code: 'link-count' },
  { what: 'lost names', clean: true, damage: nameless, code: 'inode-unnamed' },
  { what: 'overlap, zero', clean: true, damage: shared, code: 'extent-shared', overlap: 'zero' },
  { what: 'overlap, quarantine', clean: true, damage: shared, code: 'extent-shared' },
  { what: 'image lost, clean', clean: true, damage: lostImage, code: 'checkpoint-damaged' },
  { what: 'image lost, crashed', clean: false, damage: lostImage, code: 'checkpoint-damaged' },
  {
    what: 'image in bad memory',
    clean: false,
    damage: (memory) => memory.poison(currentSlot(superblockOf(memory)) + 8192, BLOCK_SIZE),
    code: 'checkpoint-damaged',
  },
  { what: 'journal cut', clean: false, damage: cutJournal('scribble'), code: 'journal-damaged' },
  { what: 'journal bad', clean: false, damage: cutJournal('poison'), code: 'journal-damaged' },
  { what: 'primary lost', clean: false, damage: lostPrimary, code: 'superblock-damaged' },
  { what: 'backup lost', clean: false, damage: lostBackup, code: 'superblock-damaged' },
  {
    what: 'image and primary lost',
    clean: false,
    damage: (memory) => {
      lostImage(memory)
      lostPrimary(memory)
    },
    code: 'checkpoint-damaged',
  },
  {
    what: 'overlap, lost names, backup lost',
    clean: true,
    damage: (memory) => {
      shared(memory)
      nameless(memory)
      lostBackup(memory)
    },
    code: 'extent-shared',
  },
]

/** What a repair that comes to its end leaves: what fsck says, and every name and byte. */
function finish(memory: SimulatedMemory, boot: string, overlap: OverlapChoice): string[] {
  repairNow(memory, boot, overlap)
  const after = look(memory, boot)
  const said = after.problems.map(({ code }) => `fsck: ${code}`)
  if (needsRepair(memory, after)) said.push('fsck: needs another repair')
  for (const { path, fileOffset, length } of after.badFiles) {
    said.push(`bad: ${path} ${fileOffset} ${length}`)
  }
  after.salvaged?.index.close()
  const fs = mountMemory(memory)
  const tree = [...survey(fs)].map(([path, { bytes, unreadable, xattrs, ...rest }]) => {
    const digest = createHash('sha1').update(bytes).digest('hex')
    return `${path} ${JSON.stringify({ ...rest, unreadable: [...unreadable] })} ${[...xattrs]} ${digest}`
  })
  abandon(fs)
  return [...said, ...tree.sort()]
}

function repairNow(memory: SimulatedMemory, boot: string, overlap: OverlapChoice): void {
  const found = look(memory, boot)
  try {
    if (needsRepair(memory, found)) repairRegion(memory, found, { now: 1, overlap })
  } finally {
    found.salvaged?.index.close()
  }
}

/** Who repairs next: the same boot when a process was killed, another when the power failed. */
interface Stopped {
  readonly image: Image
  readonly boot: string
  readonly how: string
}

/** A repair, and what is in memory when it is stopped at any of its persist points. */
function stops(
  memory: SimulatedMemory,
  options: { boot: string; overlap: OverlapChoice; random: Random },
): Stopped[] {
  const { boot, overlap, random } = options
  const found: Stopped[] = []
  const stop = (point: number) => {
    const moment = new Moment(memory, `${point}`, `${point}+`)
    const at = `stopped at persist point ${point}`
    found.push({ image: moment.none(), boot: OTHER_BOOT, how: `${at}, nothing open came through` })
    found.push({ image: moment.all(), boot, how: `${at}, killed` })
    if (moment.openWords === 0) return
    const image = moment.some(random)
    found.push({ image, boot: OTHER_BOOT, how: `${at}, ${image.text}` })
  }
  memory.onPersist = stop
  repairNow(memory, boot, overlap)
  memory.onPersist = undefined
  return found
}

async function disturb(t: Test, mode: SimulatedMode, one: Case, seed: number): Promise<number> {
  const { clean, damage, code, overlap = 'quarantine' } = one
  const base = await populated(mode, clean)
  damage(base)
  const copy = () => base.crash(() => true)
  const before = look(copy(), bootId())
  t.ok(
    before.problems.some((problem) => problem.code === code),
    `${one.what}: ${before.problems.map((problem) => problem.code)}`,
  )
  before.salvaged?.index.close()
  const kept = finish(copy(), bootId(), overlap)
  t.same(
    kept.filter((line) => line.startsWith('fsck')),
    [],
    'undisturbed: nothing is left',
  )
  t.ok(kept.length > FILES / 2, `undisturbed: ${kept.length} names and bad ranges`)
  const random = new Random(seed)
  let count = 0
  const expect = (stopped: Stopped, how: string) => {
    count++
    const found = finish(stopped.image.memory, stopped.boot, overlap)
    if (JSON.stringify(found) !== JSON.stringify(kept)) t.same(found, kept, `${mode}, ${how}`)
    giveBack(stopped.image.memory)
  }
  const firsts = stops(copy(), { boot: bootId(), overlap, random })
  // Of the first half: behind it there is often nothing left to repair.
  const early = firsts.slice(0, firsts.length / 2)
  const again = new Set(Array.from({ length: AGAIN }, () => random.pick(early)))
  for (const first of firsts) {
    if (!again.has(first)) {
      expect(first, first.how)
      continue
    }
    const { boot } = first
    for (const second of stops(first.image.memory, { boot, overlap, random })) {
      expect(second, `${first.how}, then ${second.how}`)
    }
  }
  return count
}

for (const mode of ['cacheline', 'page'] as const) {
  t.test(`a repair that is stopped, and done again: ${mode}`, async (t) => {
    for (const [at, one] of CASES.entries()) {
      const count = await disturb(t, mode, one, mixSeeds(at, mode.length))
      t.ok(count > 10, `${one.what}: ${count} stopped repairs`)
    }
  })
}
