/** fsck, the mount and the repair are of one opinion about regions at the edge of what can be. */
import { type Test, t } from 'tap'
import { bootId } from '../src/dax/identity.ts'
import type { SimulatedMemory } from '../src/dax/simulated-memory.ts'
import { examine } from '../src/fs/check/examine.ts'
import type { Filesystem } from '../src/fs/filesystem.ts'
import { repairRegion } from '../src/fs/repair/repair.ts'
import { COUNTER_MAX, COUNTER_SPENT } from '../src/media/geometry.ts'
import {
  readSuperblocks,
  requireSuperblock,
  type Superblock,
  writeSuperblocks,
} from '../src/media/superblock.ts'
import { remount, scratchFilesystem } from './support/core.ts'

const SIZE = 32 * 1024 * 1024
const CALLER = { uid: 0, gid: 0, pid: 1, umask: 0 }
const O_RDWR = 2
const name = (text: string) => Buffer.from(text)

function look(memory: SimulatedMemory) {
  const stages = examine(memory, { bootId: bootId() })
  for (;;) {
    const { done, value } = stages.next()
    if (done) return value
  }
}

function codes(memory: SimulatedMemory): string[] {
  const { problems, salvaged } = look(memory)
  salvaged?.index.close()
  return problems.map(({ code }) => code)
}

function repair(memory: SimulatedMemory): void {
  const examination = look(memory)
  repairRegion(memory, examination, { now: 1 })
  examination.salvaged?.index.close()
}

function touch(filesystem: Filesystem, file: string): void {
  filesystem.release(filesystem.create(1, name(file), 0o644, O_RDWR, CALLER))
}

/** Mounts, makes a file, loses power, mounts again: the file is there. */
async function requireUsable(t: Test, memory: SimulatedMemory, file: string): Promise<void> {
  t.same(codes(memory), [])
  touch(remount(memory), file)
  const crashed = memory.crash()
  t.same(codes(crashed), [])
  const again = remount(crashed)
  t.ok(again.lookup(1, name(file)).ino, 'what was done after the repair is there')
  await again.unmount()
}

/** A region with one file, and its superblock changed. */
async function changed(change: (superblock: Superblock) => Superblock): Promise<SimulatedMemory> {
  const { fs, memory } = scratchFilesystem(SIZE, 'cacheline')
  touch(fs, 'before')
  await fs.unmount()
  writeSuperblocks(memory, change(requireSuperblock(readSuperblocks(memory))))
  return memory
}

const withSequence = (superblock: Superblock, sequence: number): Superblock => ({
  ...superblock,
  checkpoint: { ...superblock.checkpoint, sequence },
})

const SPENT: readonly [what: string, change: (superblock: Superblock) => Superblock][] = [
  ['epoch', (superblock) => ({ ...superblock, epoch: COUNTER_MAX })],
  ['epoch', (superblock) => ({ ...superblock, epoch: COUNTER_SPENT + 1 })],
  // Writing it makes it one more.
  ['generation', (superblock) => ({ ...superblock, generation: COUNTER_MAX - 1 })],
  ['generation', (superblock) => ({ ...superblock, generation: COUNTER_SPENT })],
  ['sequence', (superblock) => withSequence(superblock, COUNTER_MAX)],
  ['sequence', (superblock) => withSequence(superblock, COUNTER_SPENT + 1)],
]

t.test('a counter that no mount may count on from', async (t) => {
  for (const [what, change] of SPENT) {
    const memory = await changed(change)
    t.same(codes(memory), ['superblock-counter'], what)
    const refusal = new RegExp(`the ${what} \\d+ is so high .*; run fsck.holdfast --repair`)
    t.throws(() => remount(memory.crash()), refusal)
    repair(memory)
    await requireUsable(t, memory, 'after')
  }
})

t.test('the last numbers that a mount begins with leave it enough', async (t) => {
  for (const change of [
    (superblock: Superblock) => ({ ...superblock, epoch: COUNTER_SPENT }),
    (superblock: Superblock) => withSequence(superblock, COUNTER_SPENT),
  ]) {
    const memory = await changed(change)
    t.same(codes(memory), [])
    touch(remount(memory), 'more')
    const crashed = memory.crash()
    t.same(codes(crashed), ['superblock-counter'])
    t.throws(() => remount(crashed.crash()), /run fsck.holdfast --repair/)
    repair(crashed)
    t.ok(remount(crashed.crash()).lookup(1, name('more')), 'nothing is lost')
    await requireUsable(t, crashed, 'after')
  }
})

t.test('records of an epoch that no mount may count on from', async (t) => {
  const memory = await changed((superblock) => ({ ...superblock, epoch: COUNTER_SPENT }))
  touch(remount(memory), 'more')
  const crashed = memory.crash()
  const superblock = requireSuperblock(readSuperblocks(crashed))
  writeSuperblocks(crashed, { ...superblock, epoch: 1, bootEpoch: 1 })
  t.same(codes(crashed), ['superblock-counter'])
  t.throws(() => remount(crashed.crash()), /the epoch \d+ is so high/)
  repair(crashed)
  t.ok(remount(crashed.crash()).lookup(1, name('more')))
  await requireUsable(t, crashed, 'after')
})

t.test('an inode number far ahead does not take the sequence to where mounts end', async (t) => {
  const { fs, memory } = scratchFilesystem(SIZE, 'cacheline')
  touch(fs, 'far')
  const far = COUNTER_SPENT
  fs.volume.index.database.exec(`UPDATE inode SET ino = ${far} WHERE ino > 16;
    UPDATE dirent SET ino = ${far} WHERE ino > 16`)
  await fs.administration.checkpoint()
  const crashed = memory.crash()
  t.same(codes(crashed), ['inode-sequence'])
  repair(crashed)
  await requireUsable(t, crashed, 'after')
})

const REMOVED = '0, 0, 0, 0, 0, 0, 0'
const TIMES = '1, 0, 1, 0, 1, 0, 1, 0'
const removedDirectory = (parent: number) =>
  `INSERT INTO inode VALUES(10, ${0o40755}, ${REMOVED}, ${parent}, ${TIMES}, NULL)`

async function damaged(sql: string): Promise<SimulatedMemory> {
  const { fs, memory } = scratchFilesystem(SIZE, 'cacheline')
  touch(fs, 'file')
  fs.volume.index.database.exec(sql)
  await fs.administration.checkpoint()
  return memory.crash()
}

t.test('a removed directory with a parent that cannot be', async (t) => {
  for (const parent of [-5, 2 ** 60]) {
    const memory = await damaged(removedDirectory(parent))
    t.same(codes(memory), ['inode-parent'])
    t.throws(() => remount(memory.crash()), /inode 10 has the value .* run fsck.holdfast --repair/)
    repair(memory)
    await requireUsable(t, memory, 'after')
  }
})

t.test('a removed directory that has entries is not freed from above them', async (t) => {
  const memory = await damaged(`${removedDirectory(1)}; UPDATE inode SET nlink = 2 WHERE ino > 16;
    INSERT INTO dirent SELECT 10, 5, x'61', ino, 8 FROM inode WHERE ino > 16`)
  t.same(codes(memory), ['inode-unnamed'])
  const filesystem = remount(memory)
  touch(filesystem, 'new')
  await filesystem.unmount()
  t.same(codes(memory), ['inode-unnamed'], 'the mount left it as it was')
  repair(memory)
  const repaired = remount(memory.crash())
  const { ino } = repaired.lookup(1, name('lost+found'))
  const found = repaired.lookup(ino, name('#10'))
  t.equal(repaired.lookup(found.ino, name('a')).nlink, 2)
  await requireUsable(t, memory, 'after')
})
