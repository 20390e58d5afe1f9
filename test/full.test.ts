/**
 * A full filesystem, whatever else befalls it: files can always be removed, and what is in it can
 * always be reached.
 */
import t, { type Test } from 'tap'
import { bootId } from '../src/dax/identity.ts'
import type { SimulatedMemory } from '../src/dax/simulated-memory.ts'
import { checkIndex } from '../src/fs/check/check.ts'
import { type Examination, examine } from '../src/fs/check/examine.ts'
import { ENOSPC, FsError } from '../src/fs/errors.ts'
import type { Filesystem } from '../src/fs/filesystem.ts'
import type { Handle } from '../src/fs/handles.ts'
import { planRepair } from '../src/fs/repair/repair.ts'
import type { BlockRange } from '../src/media/superblock.ts'
import { isFull, remount, scratchFilesystem } from './support/core.ts'

const MIB = 2 ** 20
const BLOCK = 4096
const UNIT = 2 * MIB
const KEEP_AND_PUNCH = 3
const caller = { uid: 0, gid: 0, pid: 1, umask: 0 }
const plain = { cached: false, killPrivileges: false, append: false }
const name = (text: string) => Buffer.from(text)
const noSpace = new FsError(ENOSPC)

function create(fs: Filesystem, text: string): Handle {
  const handle = fs.create(1, name(text), 0o644, 2, caller)
  fs.forget(handle.ino, 1)
  return handle
}

/** One file takes every block that is left. */
function fillWithData(fs: Filesystem): Handle {
  const file = create(fs, 'fill')
  let size = 0
  for (const step of [16 * MIB, 2 * MIB, 65_536, BLOCK]) {
    while (!isFull(() => fs.fallocate(file, 0, size, step))) size += step
  }
  return file
}

function fillWithNames(fs: Filesystem): number {
  let count = 0
  const add = () => fs.mknod(1, name(`${count}`.padEnd(100, 'n')), 0o100644, 0, caller)
  while (!isFull(() => fs.forget(add().ino, 1))) count++
  return count
}

function standbyOf({ volume }: Filesystem): BlockRange {
  const { checkpoint, slots } = volume.superblock
  return slots[checkpoint.slot === 0 ? 1 : 0][0]!
}

function failBlock(fs: Filesystem, memory: SimulatedMemory, block: number): void {
  memory.poison(block * BLOCK, 1)
  fs.volume.device.memoryFailure(block * BLOCK, BLOCK)
}

function examined(memory: SimulatedMemory): Examination {
  const steps = examine(memory, { bootId: bootId(), bad: [] })
  for (;;) {
    const { done, value } = steps.next()
    if (done) return value
  }
}

function repair(memory: SimulatedMemory): string[] {
  const examination = examined(memory)
  const plan = planRepair(memory, examination, { now: 1 })
  plan.write()
  examination.salvaged?.index.close()
  return plan.actions.map(({ kind }) => kind)
}

function healthy(t: Test, { volume }: Filesystem): void {
  t.same(checkIndex(volume.index.database, volume.geometry, volume.superblock), [])
}

t.test('holes are punched until the index has no room for more of them', async (t) => {
  const { fs } = scratchFilesystem(512 * MIB, 'cacheline')
  const file = fillWithData(fs)
  const blocks = fs.getattr(file.ino).blocks
  const punch = (block: number) => fs.fallocate(file, KEEP_AND_PUNCH, block * BLOCK, BLOCK)
  let holes = 0
  while (2 * holes < blocks && !isFull(() => punch(2 * holes))) holes++
  t.ok(2 * holes < blocks, `ENOSPC after ${holes} holes`)
  t.equal(fs.statfs().free, holes)
  await fs.administration.checkpoint()
  t.ok(!isFull(() => fs.fallocate(file, KEEP_AND_PUNCH, 64 * MIB, 128 * MIB)), 'a large hole')
  punch(2 * holes)
  healthy(t, fs)
  fs.setattr(file.ino, { size: 0 }, caller)
  fs.unlink(1, name('fill'))
  await fs.administration.checkpoint()
  t.ok(fs.statfs().free > blocks / 2)
  await fs.unmount()
})

for (const mode of ['cacheline', 'page'] as const) {
  t.test(`the standby slot is lost, and times are written for ever (${mode})`, async (t) => {
    const { fs, memory } = scratchFilesystem(32 * MIB, mode)
    const file = create(fs, 'database')
    fs.write(file, 0, Buffer.alloc(BLOCK), 0, BLOCK, plain)
    fs.release(fillWithData(fs))
    failBlock(fs, memory, standbyOf(fs).block)
    const { journal } = fs.volume
    let used = -1
    // Each fsync has a record of its own, until there is only room for what deletes.
    while (journal.used > used) {
      used = journal.used
      fs.write(file, 0, Buffer.alloc(BLOCK, 1), 0, BLOCK, plain)
      await fs.fsync(file.ino, false)
    }
    t.ok(journal.size - used < journal.size / 32, `${used} of ${journal.size} bytes in use`)
    t.throws(() => create(fs, 'another'), noSpace)
    fs.unlink(1, name('fill'))
    await fs.administration.checkpoint()
    fs.release(create(fs, 'another'))
    healthy(t, fs)
    await fs.unmount()
  })
}

t.test('full of names, then shut down: fsck --repair needs no room for more', async (t) => {
  const { fs, memory } = scratchFilesystem(32 * MIB, 'cacheline')
  fillWithData(fs)
  const names = fillWithNames(fs)
  fs.administration.shutdown('a test')
  await fs.unmount()
  repair(memory)
  const again = remount(memory)
  t.equal(again.administration.status().inodes, names + 2)
  again.unlink(1, name('fill'))
  healthy(t, again)
  await again.unmount()
})

for (const [what, current] of [
  ['current', true],
  ['other', false],
] as const) {
  t.test(`full of data, then the unit of the ${what} image is lost for good`, async (t) => {
    const { fs, memory } = scratchFilesystem(32 * MIB, 'cacheline')
    create(fs, 'one')
    fillWithData(fs)
    await fs.administration.checkpoint()
    create(fs, 'two')
    const { checkpoint, slots } = fs.volume.superblock
    const block = current ? slots[checkpoint.slot][0]!.block : standbyOf(fs).block
    failBlock(fs, memory, block + 1)
    if (!current) fs.administration.shutdown('a test')
    t.equal(fs.administration.status().state, 'shutdown')
    await fs.unmount()
    for (const time of ['once', 'twice']) {
      t.notOk(repair(memory).includes('checkpoint'), `there is no room for an image, ${time}`)
    }
    const again = remount(memory)
    for (const file of ['one', 'two', 'fill']) {
      again.forget(again.lookup(1, name(file)).ino, 1)
    }
    t.throws(() => create(again, 'three'), noSpace)
    again.unlink(1, name('fill'))
    await again.administration.checkpoint()
    again.release(create(again, 'three'))
    healthy(t, again)
    await again.unmount()
    t.same(examined(memory).problems, [])
  })
}

/** Full, without a standby slot, and the journal used up but for its last room. */
async function exhausted(fs: Filesystem, memory: SimulatedMemory, file: Handle): Promise<void> {
  failBlock(fs, memory, standbyOf(fs).block)
  const { journal } = fs.volume
  for (let used = -1; journal.used > used; ) {
    used = journal.used
    fs.write(file, 0, Buffer.alloc(BLOCK, 1), 0, BLOCK, plain)
    await fs.fsync(file.ino, false)
  }
}

const turn = () => new Promise((resolve) => setTimeout(resolve, 20))

/** Files that grow in turn, block by block, with holes between: each block is a piece. */
function interleaved(fs: Filesystem, count: number, pieces: number): string[] {
  const names = Array.from({ length: count }, (_, i) => `in pieces ${i}`)
  const files = names.map((one) => create(fs, one))
  for (let piece = 0; piece < pieces; piece++) {
    for (const file of files) {
      fs.write(file, 2 * piece * BLOCK, Buffer.alloc(BLOCK, 1), 0, BLOCK, plain)
    }
  }
  for (const file of files) fs.release(file)
  return names
}

for (const { count, pieces } of [
  { count: 1, pieces: 1200 },
  { count: 64, pieces: 16 },
]) {
  t.test(`${count} files of ${pieces} pieces are deleted before a large one`, async (t) => {
    const { fs, memory } = scratchFilesystem(32 * MIB, 'cacheline')
    const database = create(fs, 'database')
    fs.write(database, 0, Buffer.alloc(BLOCK), 0, BLOCK, plain)
    const names = interleaved(fs, count, pieces)
    fs.release(fillWithData(fs))
    await exhausted(fs, memory, database)
    for (const one of names) fs.unlink(1, name(one))
    await turn()
    fs.unlink(1, name('fill'))
    await turn()
    await fs.administration.checkpoint()
    t.ok(fs.statfs().free > 4000, `${fs.statfs().free} blocks are free again`)
    fs.release(create(fs, 'another'))
    healthy(t, fs)
    await fs.unmount()
  })
}

t.test('a truncate that works is no error, though not all of it is freed', async (t) => {
  const { fs, memory } = scratchFilesystem(32 * MIB, 'cacheline')
  const database = create(fs, 'database')
  fs.write(database, 0, Buffer.alloc(BLOCK), 0, BLOCK, plain)
  const file = create(fs, 'file')
  fs.write(file, 0, Buffer.alloc(100 * BLOCK, 1), 0, 100 * BLOCK, plain)
  for (let piece = 100; piece < 800; piece++) {
    fs.write(file, 2 * piece * BLOCK, Buffer.alloc(BLOCK, 1), 0, BLOCK, plain)
  }
  fs.release(fillWithData(fs))
  await exhausted(fs, memory, database)
  const before = fs.getattr(file.ino).size
  const worked = !isFull(() => fs.setattr(file.ino, { size: 50 * BLOCK }, caller))
  t.equal(fs.getattr(file.ino).size, worked ? 50 * BLOCK : before)
  healthy(t, fs)
  fs.unlink(1, name('fill'))
  await turn()
  await fs.unmount()
})

t.test('a failure over the standby slot and the free unit behind it', async (t) => {
  for (const mode of ['cacheline', 'page'] as const) {
    const { fs, memory } = scratchFilesystem(64 * MIB, mode)
    const { block } = standbyOf(fs)
    memory.poison(block * BLOCK, 2 * UNIT)
    fs.volume.device.memoryFailure(block * BLOCK, 2 * UNIT)
    await fs.administration.checkpoint()
    t.equal(fs.administration.status().state, 'mounted')
    healthy(t, fs)
    await fs.unmount()
  }
})

for (const clean of [true, false]) {
  t.test(`full, unmounted (${clean ? 'cleanly' : 'not'}), and the image is lost`, async (t) => {
    const { fs, memory } = scratchFilesystem(32 * MIB, 'cacheline')
    create(fs, 'one')
    fillWithData(fs)
    await fs.administration.checkpoint()
    create(fs, 'two')
    const crashed = memory.crash()
    await fs.unmount()
    const region = clean ? memory : crashed
    const { slots, checkpoint } = examined(region).superblock!
    region.poison((slots[checkpoint.slot][0]!.block + 1) * BLOCK, 1)
    t.throws(() => remount(region), 'no mount')
    for (let time = 0; time < 2; time++) repair(region)
    const again = remount(region)
    for (const file of ['one', 'two', 'fill']) {
      again.forget(again.lookup(1, name(file)).ino, 1)
    }
    again.unlink(1, name('fill'))
    await turn()
    await again.administration.checkpoint()
    again.release(create(again, 'three'))
    healthy(t, again)
    await again.unmount()
    t.same(examined(region).problems, [])
  })
}
