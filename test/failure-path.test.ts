/** Narrow places of the failure path, on the core: what exactly is hit, and what is never lost. */
import t from 'tap'
import { openSimulated } from '../src/dax/device.ts'
import { FsError } from '../src/fs/errors.ts'
import type { Filesystem } from '../src/fs/filesystem.ts'
import { JournalFullError } from '../src/journal/journal.ts'
import { readSuperblocks, requireSuperblock } from '../src/media/superblock.ts'
import { mountDevice, type Scratch, scratchFilesystem } from './support/core.ts'

const MIB = 1024 * 1024
const BLOCK = 4096
const EIO = 5
const caller = { uid: 0, gid: 0, pid: 1, umask: 0 }
const plain = { cached: false, killPrivileges: false, append: false }

function make(fs: Filesystem, name: string, blocks: number): number {
  const handle = fs.create(1, Buffer.from(name), 0o600, 2, caller)
  fs.write(handle, 0, Buffer.alloc(blocks * BLOCK, 7), 0, blocks * BLOCK, plain)
  fs.release(handle)
  return handle.ino
}

function placeOf({ fs }: Scratch, ino: number): number {
  return fs.administration.getmap(ino).extents[0]!.regionOffset
}

/** The first byte of a block, or the errno. */
function look(fs: Filesystem, ino: number, block: number): number | string {
  const handle = fs.open(ino, 0, false)
  const bytes = Buffer.alloc(BLOCK)
  try {
    fs.readInto(handle, block * BLOCK, bytes, 0, BLOCK)
    return bytes[0]!
  } catch (error) {
    return `errno ${(error as FsError).errno}`
  } finally {
    fs.release(handle)
  }
}

/** Leaves no block free. Returns the inode that has them. */
function fill(fs: Filesystem): number {
  const handle = fs.create(1, Buffer.from('all the rest'), 0o600, 2, caller)
  let at = 0
  for (const length of [MIB, BLOCK]) {
    for (let written = length; written === length; at += written) {
      try {
        written = fs.write(handle, at, Buffer.alloc(length, 1), 0, length, plain)
      } catch {
        written = 0
      }
    }
  }
  fs.release(handle)
  return handle.ino
}

t.test('a failure met in the midst of a page is that page, and no other', async (t) => {
  const scratch = scratchFilesystem(32 * MIB, 'cacheline')
  const { fs } = scratch
  const ino = make(fs, 'two', 2)
  const place = placeOf(scratch, ino)
  fs.memoryFailed(place + 100)
  fs.memoryFailed(place + BLOCK - 1)
  const told = () =>
    fs.administration.status().failures.map(({ offset, length }) => [offset, length])
  t.same(told(), [[place, BLOCK]])
  t.equal(look(fs, ino, 1), 7, 'the next page is well')
  fs.memoryFailed(place + BLOCK + 8)
  t.same(told().at(-1), [place + BLOCK, BLOCK], 'it fails on its own account')
  await fs.unmount()
})

t.test('a bad block of a full filesystem stays EIO: it never becomes a hole', async (t) => {
  const scratch = scratchFilesystem(32 * MIB, 'cacheline')
  const { fs, device } = scratch
  const ino = make(fs, 'hit', 8)
  const rest = fill(fs)
  device.memoryFailure(placeOf(scratch, ino) + 5 * BLOCK, BLOCK)
  const handle = fs.open(ino, 2, false)
  const written = fs.write(handle, 4 * BLOCK, Buffer.alloc(2 * BLOCK, 9), 0, 2 * BLOCK, plain)
  fs.release(handle)
  t.equal(written, BLOCK, 'what lies before it')
  t.equal(look(fs, ino, 4), 9)
  t.equal(look(fs, ino, 5), `errno ${EIO}`)
  fs.setattr(rest, { size: 0 }, caller)
  const again = fs.open(ino, 2, false)
  t.equal(fs.write(again, 5 * BLOCK, Buffer.alloc(BLOCK, 9), 0, BLOCK, plain), BLOCK)
  fs.release(again)
  t.equal(look(fs, ino, 5), 9, 'with room again it heals')
  await fs.unmount()
})

/** A block of the slot that the next image goes to, as a region offset. */
function standbyOf({ volume }: Filesystem): number {
  const { slots, checkpoint } = volume.superblock
  return (slots[checkpoint.slot === 0 ? 1 : 0][0]!.block + 2) * BLOCK
}

/** Changes one inode until `part` of the active half is used, and no checkpoint begins. */
function useJournal(fs: Filesystem, part: number): void {
  const { hooks, journal } = fs.volume
  const { dirtied } = hooks
  hooks.dirtied = () => {}
  const { ino } = fs.create(1, Buffer.from('changed'), 0o600, 2, caller)
  // To just below it: the record that is to cross it comes next.
  for (let mode = 0; journal.used < journal.size * part - 256; mode++) {
    fs.setattr(ino, { mode: 0o600 + (mode % 8) }, caller)
  }
  hooks.dirtied = dirtied
}

t.test('bad memory in the unused slot costs nothing when a checkpoint is due', async (t) => {
  const { fs, device } = scratchFilesystem(32 * MIB, 'cacheline')
  useJournal(fs, 0.6)
  const taken: string[] = []
  fs.administration.subscribe(({ event }) => taken.push(event))
  device.memoryFailure(standbyOf(fs), BLOCK)
  // The record of a failure must have been what made it due.
  t.ok(fs.volume.journal.used < 1000, 'it has begun')
  await fs.administration.checkpoint()
  t.equal(fs.volume.shutdown, undefined)
  t.ok(taken.includes('checkpoint'))
  await fs.unmount()
})

t.test('... nor when the record of it needs a checkpoint to have room', async (t) => {
  const { fs, device } = scratchFilesystem(32 * MIB, 'cacheline')
  const { journal } = fs.volume
  const { append } = journal
  const { sequence } = fs.volume.superblock.checkpoint
  journal.append = (changes, claim) => {
    if (changes.every(({ type }) => type !== 'putPoison'))
      return append.call(journal, changes, claim)
    journal.append = append
    throw new JournalFullError(100)
  }
  device.memoryFailure(standbyOf(fs), BLOCK)
  t.equal(fs.volume.shutdown, undefined)
  t.ok(fs.volume.superblock.checkpoint.sequence > sequence, 'it took one')
  await fs.unmount()
})

t.test('... nor when it was known before the mount, with other memory', async (t) => {
  const { fs, memory, device } = scratchFilesystem(32 * MIB, 'cacheline')
  const [, half] = fs.volume.geometry.journal
  useJournal(fs, 0.7)
  const again = openSimulated(memory.crash(() => true))
  device.close()
  // The one that is told first makes the journal as full, and is no business of the slot.
  again.badRanges.add(half.offset, BLOCK)
  again.badRanges.add(standbyOf(fs), BLOCK)
  fs.volume.index.close()
  const next = mountDevice(again)
  t.ok(next.volume.journal.used > next.volume.journal.size * 0.6)
  t.equal(next.administration.status().failures.length, 2)
  await next.administration.checkpoint()
  t.equal(next.volume.shutdown, undefined)
  await next.unmount()
})

t.test('... nor when the filesystem is full: there is no other place for an image', async (t) => {
  const { fs, device } = scratchFilesystem(32 * MIB, 'cacheline')
  const rest = fill(fs)
  device.memoryFailure(standbyOf(fs), BLOCK)
  t.equal(fs.volume.shutdown, undefined)
  await t.rejects(fs.administration.checkpoint(), { message: /no room/ })
  fs.setattr(rest, { size: 0 }, caller)
  await fs.administration.checkpoint()
  await fs.unmount()
})

t.test('an index that cannot follow the journal ends the mount, unsaved', async (t) => {
  const { fs, memory } = scratchFilesystem(32 * MIB, 'cacheline')
  make(fs, 'before', 1)
  const { sequence } = requireSuperblock(readSuperblocks(memory)).checkpoint
  const { index } = fs.volume
  index.commit = () => {
    index.rollback()
    throw new Error('disk is full')
  }
  t.throws(() => make(fs, 'after', 1), { message: /cannot follow the journal/ })
  t.match(fs.volume.shutdown, { reason: /cannot follow the journal: disk is full/ })
  const after = requireSuperblock(readSuperblocks(memory))
  t.match(after, { state: 'shutdown', shutdownReason: 'corrupt-index', checkpoint: { sequence } })
  t.throws(() => fs.lookup(1, Buffer.from('before')), { message: 'EIO' })
  await fs.unmount()
})

t.test('times that no record has yet survive an attempt that is rolled back', async (t) => {
  const { fs } = scratchFilesystem(32 * MIB, 'cacheline')
  const ino = make(fs, 'file', 1)
  const long = { seconds: 1000, nanoseconds: 0 }
  fs.setattr(ino, { mtime: long }, caller)
  const handle = fs.open(ino, 2, false)
  fs.write(handle, 0, Buffer.alloc(BLOCK, 8), 0, BLOCK, plain)
  const { mtime } = fs.getattr(ino)
  t.not(mtime, long.seconds, 'a write in place, of which no record tells')
  const { journal } = fs.volume
  const { append } = journal
  for (const from of ['the body', 'the journal'] as const) {
    const fail = () => {
      throw new FsError(EIO)
    }
    const inode = fs.volume.inode(ino)
    if (from === 'the journal') journal.append = fail
    t.throws(() =>
      fs.volume.transact((transaction) => {
        transaction.touch(inode)
        if (from === 'the body') fail()
      }),
    )
    journal.append = append
    t.equal(fs.getattr(ino).mtime, mtime, `${from} failed`)
  }
  await fs.fsync(ino, false)
  t.equal(fs.getattr(ino).mtime, mtime)
  fs.release(handle)
  await fs.unmount()
})
