/**
 * Full: of data, of names, of journal, of room for the checkpoint image. Nothing is half done,
 * what frees space is always possible, and in the end all space is free again.
 */
import { createHash } from 'node:crypto'
import { closeSync, ftruncateSync, openSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { format } from '../mkfs/format.ts'
import { openByName } from '../src/bus/open.ts'
import { fsPutDax } from '../src/dax/holder.ts'
import type { SimulatedMemory } from '../src/dax/simulated-memory.ts'
import { checkIndex } from '../src/fs/check/check.ts'
import type { Filesystem } from '../src/fs/filesystem.ts'
import { BLOCK_SIZE, UNIT_SIZE } from '../src/media/geometry.ts'
import { readSuperblocks, requireSuperblock } from '../src/media/superblock.ts'
import { MAX_SLOT_EXTENTS } from '../src/media/superblock-layout.ts'
import { isFull, mountDevice, remount, scratchFilesystem } from './support/core.ts'
import {
  cannotMount,
  type MountedRegion,
  mountRegion,
  type Outcome,
  runProgram,
  scratch,
} from './support/mounts.ts'
import { tellingClient } from './support/telling.ts'

const CALLER = { uid: 0, gid: 0, pid: 1, umask: 0 }
const WRITE = { cached: false, killPrivileges: false, append: false }
const MIB = 1024 * 1024
const O_RDWR = 2
const skip = cannotMount()

const name = (text: string) => Buffer.from(text)

function client(t: Test, mount: MountedRegion, words: [kind: string, ...rest: string[]]) {
  return tellingClient(t, mount, 'enospc.py', words)
}

async function isClean(t: Test, region: string): Promise<void> {
  const { status, stdout } = await runProgram('fsck.holdfast', ['-f', '-n', region])
  t.equal(status, 0, stdout)
}

/** A digest of all names and contents. */
async function digest(mount: MountedRegion): Promise<string> {
  const { stdout } = await mount.client(
    "find . -printf '%p %i %n %s %m\\n' | sort; find . -type f -size -2M | sort | xargs md5sum",
  )
  return createHash('sha1').update(stdout).digest('hex')
}

for (const left of [0, MIB]) {
  t.test(`full of data, ${left} bytes left`, { skip }, async (t) => {
    const mount = await mountRegion({ size: '32M' })
    await client(t, mount, ['data', String(left)])
    await mount.unmount()
    await isClean(t, mount.region)
  })
}

t.test('full of names, and no block left for a larger image', { skip }, async (t) => {
  const mount = await mountRegion({ size: '32M' })
  const { free } = (await mount.status()).blocks
  await client(t, mount, ['names'])
  t.equal((await runProgram('holdfast', ['checkpoint', mount.mountpoint])).status, 0)
  const before = await digest(mount)
  await mount.unmount()
  await isClean(t, mount.region)
  const again = await mount.mountAgain()
  t.equal(await digest(again), before, 'all is there after a mount')
  await client(t, again, ['remove', String(free)])
  await again.unmount()
  await isClean(t, mount.region)
})

/** Region offset of the slot that the next image goes to. */
function standbyOffset(region: string): number {
  const device = openByName(region, { readOnly: true })
  try {
    const { slots, checkpoint } = requireSuperblock(readSuperblocks(device.memory))
    return slots[checkpoint.slot === 0 ? 1 : 0][0]!.block * BLOCK_SIZE
  } finally {
    device.close()
  }
}

t.test('the standby slot fails, and no 2 MiB are free for another', { skip }, async (t) => {
  const mount = await mountRegion({ size: '32M' })
  await client(t, mount, ['prepare'])
  const before = await digest(mount)
  const offset = String(standbyOffset(mount.region))
  const command = (...words: string[]): Promise<Outcome> => runProgram('holdfast', words)
  t.equal((await command('inject', mount.mountpoint, '--offset', offset)).status, 0)
  const noRoom = { status: 1, stderr: /no room for a checkpoint image: remove files/ }
  t.match(await command('checkpoint', mount.mountpoint), noRoom)
  const { stdout } = await mount.client('echo x > more; mv new old; rm victim; echo $?; ls')
  t.match(stdout, /^0\n/, 'removing is possible')
  t.notMatch(stdout, /^(more|new|victim)$/m)
  t.match(await command('umount', mount.mountpoint), { status: 1, stderr: /replays the journal/ })
  t.match(mount.logText(), /the unmount failed: no room for a checkpoint image/)
  await isClean(t, mount.region)
  t.match((await runProgram('fsck.holdfast', ['-f', mount.region])).stdout, /clean/)

  const again = await mount.mountAgain()
  t.not(await digest(again), before)
  t.match((await again.client('cat old | tr -d n | wc -c; ls')).stdout, /^0\ndir\nfill\nlong\nold/)
  t.match(await command('checkpoint', again.mountpoint), noRoom, 'as before')
  t.equal((await again.client('rm fill && sync')).status, 0)
  t.match(await command('checkpoint', again.mountpoint), { status: 0 })
  await again.unmount()
  await isClean(t, mount.region)
})

function healthy(t: Pick<Test, 'same'>, { volume }: Filesystem): void {
  const { index, geometry, superblock, journal } = volume
  const options = { sequence: journal.lastSequence }
  t.same(checkIndex(index.database, geometry, superblock, options), [])
}

const settled = () => new Promise((resolve) => setTimeout(resolve, 20))

t.test('a full journal makes room for itself, in the middle of operations', async (t) => {
  const { fs, memory } = scratchFilesystem(32 * MIB, 'cacheline')
  const checkpoints: number[] = []
  fs.volume.subscribe((event) => {
    if (event.event === 'checkpoint') checkpoints.push(event.sequence)
  })
  const handle = fs.create(1, name('file 0'), 0o644, O_RDWR, CALLER)
  // No turn of the event loop in between: a checkpoint beside the operations gets nowhere.
  const rounds = 20_000
  for (let at = 0; at < rounds; at++) {
    fs.rename(1, name(`file ${at}`), 1, name(`file ${at + 1}`), 0)
    if (at % 100 === 0) fs.write(handle, at * 10, Buffer.alloc(100, at), 0, 100, WRITE)
  }
  t.ok(checkpoints.length > 2, `${checkpoints.length} checkpoints`)
  healthy(t, fs)
  const crashed = remount(memory.crash())
  t.equal(crashed.lookup(1, name(`file ${rounds}`)).ino, handle.ino, 'nothing of it is lost')
  healthy(t, crashed)
  await crashed.unmount()
})

t.test('a checkpoint beside the operations that finds no room is no failure', async (t) => {
  const { fs, memory } = scratchFilesystem(32 * MIB, 'cacheline')
  const handle = fs.create(1, name('fill'), 0o644, O_RDWR, CALLER)
  const inPlace = fs.create(1, name('in place'), 0o644, O_RDWR, CALLER)
  fs.write(inPlace, 0, Buffer.alloc(BLOCK_SIZE, 1), 0, BLOCK_SIZE, WRITE)
  while (!isFull(() => fs.fallocate(handle, 0, 0, fs.getattr(handle.ino).size + UNIT_SIZE))) {}
  const { slots, checkpoint } = fs.volume.superblock
  const standby = slots[checkpoint.slot === 0 ? 1 : 0][0]!
  fs.administration.inject({
    target: { kind: 'offset', offset: standby.block * BLOCK_SIZE },
    length: 1,
    method: 'soft',
  })
  // Times fill the journal to the end; the filesystem goes on, and says no when it must.
  let records = 0
  while (!isFull(() => fs.setattr(inPlace.ino, { size: BLOCK_SIZE, mtime: 'now' }, CALLER))) {
    if (++records % 1000 === 0) await settled()
  }
  t.ok(records > 5000, `${records} records`)
  t.equal(fs.administration.status().state, 'mounted')
  t.equal(fs.write(inPlace, 0, Buffer.alloc(BLOCK_SIZE, 2), 0, BLOCK_SIZE, WRITE), BLOCK_SIZE)
  healthy(t, fs)
  await t.rejects(fs.unmount(), /no room for a checkpoint image/)
  const again = remount(memory.crash())
  const bytes = Buffer.alloc(1)
  const { ino } = again.lookup(1, name('in place'))
  again.readInto(again.open(ino, 0, false), 10, bytes, 0, 1)
  t.equal(bytes[0], 2)
  healthy(t, again)
  again.volume.index.close()
})

/** A region in a file: sparse, for what is reserved in it is never touched. */
function largeRegion(size: number): string {
  const path = join(scratch('memory'), 'region')
  const fd = openSync(path, 'w+', 0o600)
  ftruncateSync(fd, size)
  closeSync(fd)
  const device = openByName(path)
  format(device.memory, { label: '', uid: 0, gid: 0, now: 1 })
  device.close()
  return path
}

/** Makes a file that nobody holds: gone as soon as it is unlinked. */
function make(fs: Filesystem, file: string, bytes = 0): number {
  const handle = fs.create(1, name(file), 0o600, O_RDWR, CALLER)
  if (bytes > 0) fs.fallocate(handle, 0, 0, bytes)
  fs.release(handle)
  fs.forget(handle.ino, 1)
  return handle.ino
}

t.test('names that go make room for others, where no block is free', async (t) => {
  const { fs } = scratchFilesystem(32 * MIB, 'cacheline')
  const handle = fs.create(1, name('fill'), 0o644, O_RDWR, CALLER)
  while (!isFull(() => fs.fallocate(handle, 0, 0, fs.getattr(handle.ino).size + BLOCK_SIZE))) {}
  t.equal(fs.statfs().free, 0)
  let made = 0
  while (!isFull(() => make(fs, `name ${made}`))) if (++made % 500 === 0) await settled()
  t.ok(made > 2000, `${made} names`)
  for (let at = 0; at < made; at++) fs.unlink(1, name(`name ${at}`))
  await settled()
  for (let at = 0; at < made / 2; at++) make(fs, `other ${at}`)
  healthy(t, fs)
  await fs.unmount()
})

t.test('slots in too many pieces move into one when there is one', async (t) => {
  const device = openByName(largeRegion(1024 * MIB))
  const fs = mountDevice(device)
  const units = Math.floor(fs.statfs().free / (UNIT_SIZE / BLOCK_SIZE))
  const single = 4 * MAX_SLOT_EXTENTS
  for (let at = 0; at < single; at++) make(fs, `unit ${at}`, UNIT_SIZE)
  make(fs, 'rest', (units - single) * UNIT_SIZE)
  for (let at = 0; at < single; at += 2) fs.unlink(1, name(`unit ${at}`))
  await settled()
  const value = Buffer.alloc(65536, 7)
  const files: number[] = []
  const grow = () => {
    const ino = make(fs, `attribute ${files.length}`)
    fs.setxattr(ino, name('user.large'), value, 0, false)
    files.push(ino)
  }
  while (!isFull(grow)) if (files.length % 64 === 0) await settled()
  const pieces = () => fs.volume.superblock.slots.map((slot) => slot.length)
  t.ok(Math.max(...pieces()) >= MAX_SLOT_EXTENTS - 1, `pieces of the slots: ${pieces()}`)
  healthy(t, fs)

  fs.unlink(1, name('rest'))
  await settled()
  for (let more = 0; more < 40; more++) grow()
  t.ok(Math.min(...pieces()) < 4, `pieces of the slots: ${pieces()}`)
  healthy(t, fs)
  await fs.administration.checkpoint()
  await fs.unmount()
  fsPutDax(device, device.holder!)
  const again = mountDevice(device)
  t.same(Buffer.from(again.getxattr(files.at(-1)!, name('user.large'))), value)
  healthy(t, again)
  await again.unmount()
  device.close()
})

t.test('many files open at once leave room for the index to grow', async (t) => {
  const { fs } = scratchFilesystem(64 * MIB, 'cacheline')
  const block = Buffer.alloc(BLOCK_SIZE, 1)
  // Each would set 2 MiB aside for itself: more than there are.
  for (let at = 0; at < 2000; at++) {
    const handle = fs.create(1, name(`open ${at}`), 0o600, O_RDWR, CALLER)
    fs.write(handle, 0, block, 0, BLOCK_SIZE, WRITE)
  }
  for (let at = 0; at < 20_000; at++) {
    make(fs, `file ${at}`)
    if (at % 1000 === 0) await settled()
  }
  const { free, blocks } = fs.statfs()
  t.ok(free > blocks / 2, `${free} of ${blocks} blocks are free`)
  healthy(t, fs)
  await fs.unmount()
})

t.test('an index that was large once gives its room back', async (t) => {
  const { fs, memory } = scratchFilesystem(64 * MIB, 'cacheline')
  const start = fs.statfs().free
  const files = 20_000
  for (let at = 0; at < files; at++) {
    make(fs, `file ${at}`)
    if (at % 1000 === 0) await settled()
  }
  const large = await fs.administration.checkpoint()
  const used = start - fs.statfs().free
  t.ok(used >= 2 * (UNIT_SIZE / BLOCK_SIZE), `${used} blocks are for larger images`)
  let spare: SimulatedMemory | undefined
  const slotsNow = () => JSON.stringify(fs.volume.superblock.slots)
  let [slots, crashes, soon] = [slotsNow(), 0, 0]
  memory.onPersist = () => {
    if (slotsNow() !== slots) soon = 12
    slots = slotsNow()
    if (soon-- <= 0) return
    // A power failure here: no unit is lost, none is given twice.
    spare = memory.crash(undefined, undefined, spare)
    const crashed = remount(spare)
    healthy(t, crashed)
    crashed.volume.index.close()
    crashes++
  }
  for (let at = 0; at < files; at++) {
    fs.unlink(1, name(`file ${at}`))
    if (at % 1000 === 0) await settled()
  }
  await settled()
  await fs.administration.checkpoint()
  const small = await fs.administration.checkpoint()
  memory.onPersist = undefined
  t.ok(crashes > 20, `${crashes} power failures while slots gave units back`)
  t.ok(small.bytes < MIB, `an image of ${small.bytes} bytes, was ${large.bytes}`)
  t.equal(fs.statfs().free, start, 'all space is free again')
  healthy(t, fs)
  const crashed = remount(memory.crash())
  t.equal(crashed.statfs().free, start)
  healthy(t, crashed)
  await crashed.unmount()
  await fs.unmount()
})
