/**
 * A host that cannot write a plain file back tells one msync, and may call the pages clean: whoever
 * meets the error, no later fsync may succeed.
 */
import { constants } from 'node:os'
import t from 'tap'
import type { SimulatedMemory } from '../src/dax/simulated-memory.ts'
import type { Filesystem } from '../src/fs/filesystem.ts'
import type { Handle } from '../src/fs/handles.ts'
import { BLOCK_SIZE } from '../src/media/geometry.ts'
import { readSuperblocks } from '../src/media/superblock.ts'
import { remount, scratchFilesystem } from './support/core.ts'

const MIB = 1024 * 1024
const caller = { uid: 0, gid: 0, pid: 1, umask: 0 }
const plain = { cached: false, killPrivileges: false, append: false }
const name = (text: string) => Buffer.from(text)
const UNDURABLE = { errno: constants.errno.EIO, message: /cannot be made durable: EIO/ }

function create(fs: Filesystem, file: string): Handle {
  return fs.create(1, name(file), 0o600, 2, caller)
}

function put(fs: Filesystem, handle: Handle, offset: number, length: number, fill: number): number {
  return fs.write(handle, offset, Buffer.alloc(length, fill), 0, length, plain)
}

const eio = () => Object.assign(new Error('EIO: i/o error, msync'), { code: 'EIO' })

/** From now on msync fails, until the kernel has forgotten. `when` chooses the calls that do. */
function failFlushes(memory: SimulatedMemory, when: (length: number) => boolean = () => true) {
  const { flush, flushAsync } = memory
  memory.flush = (offset, length) => {
    if (when(length)) throw eio()
    flush.call(memory, offset, length)
  }
  memory.flushAsync = async (offset, length) => {
    if (when(length)) throw eio()
    return flushAsync.call(memory, offset, length)
  }
  return () => Object.assign(memory, { flush, flushAsync })
}

/** Everything durable, then a store in place that is not. */
async function dirtied() {
  const scratch = scratchFilesystem(32 * MIB, 'page')
  const { fs } = scratch
  const handle = create(fs, 'file')
  put(fs, handle, 0, 8192, 7)
  await fs.fsync(handle.ino, false)
  put(fs, handle, 0, 8192, 9)
  return { ...scratch, handle }
}

/** Fills the filesystem: the blocks of a file that was cut off are not free before a commit. */
function fill(fs: Filesystem): void {
  const cut = create(fs, 'cut')
  put(fs, cut, 0, MIB, 1)
  fs.setattr(cut.ino, { size: 0 }, caller)
  const all = create(fs, 'all')
  for (let at = 0; ; ) at += put(fs, all, at, MIB, 2)
}

/** Names until the slots of the image must grow. */
function grow(fs: Filesystem): void {
  for (let file = 0; file < 30_000; file++) {
    fs.release(create(fs, `${'x'.repeat(200)}${file}`))
  }
}

const WHO: Record<string, (fs: Filesystem) => unknown> = {
  freeze: (fs) => fs.administration.freeze(),
  'a checkpoint that was asked for': (fs) => fs.administration.checkpoint(),
  'a write that needs space': fill,
  'a slot that grows': grow,
}

for (const [who, meet] of Object.entries(WHO)) {
  t.test(`${who} meets it: shut down, and no fsync succeeds`, async (t) => {
    const { fs, memory, handle } = await dirtied()
    const forget = failFlushes(memory)
    await t.rejects(async () => meet(fs), UNDURABLE)
    forget()
    t.match(fs.volume.shutdown?.reason, /cannot be made durable/)
    t.equal(fs.volume.frozen, false)
    await t.rejects(fs.fsync(handle.ino, false), { message: /EIO/ })
    await fs.unmount()
  })
}

/** Changes one inode until the journal is full: no turn of the event loop, so no checkpoint. */
function fillJournal(fs: Filesystem, ino: number): void {
  const value = Buffer.alloc(60_000, 1)
  for (let round = 0; round < 200; round++) {
    value[0] = round
    fs.setxattr(ino, name('user.large'), value, 0, false)
  }
}

/** Fails the msync of the checkpoint that a full journal forces. */
function failForced({ fs, memory }: { fs: Filesystem; memory: SimulatedMemory }): () => void {
  const { checkpoint } = fs.volume.superblock
  // The slots may grow before it, with an msync of their own.
  return failFlushes(memory, (length) => {
    const { journal } = fs.volume
    return length === memory.size && journal.used < journal.size / 2 && checkpoint.slot === 0
  })
}

t.test('a full journal meets it: shut down, and no fsync succeeds', async (t) => {
  const scratch = await dirtied()
  const { fs, handle } = scratch
  const forget = failForced(scratch)
  t.throws(() => fillJournal(fs, handle.ino), UNDURABLE)
  forget()
  t.match(fs.volume.shutdown?.reason, /cannot be made durable/)
  await t.rejects(fs.fsync(handle.ino, false), { message: /EIO/ })
  await fs.unmount()
})

t.test('nobody waits for a checkpoint that a full journal forced and that failed', async (t) => {
  const scratch = await dirtied()
  const { fs, handle } = scratch
  // Without the shutdown it is the checkpoints' own business to go on.
  fs.volume.hooks.checkpointFailed = () => {}
  const forget = failForced(scratch)
  t.throws(() => fillJournal(fs, handle.ino), { message: /EIO/ })
  forget()
  const { sequence } = await fs.administration.checkpoint()
  t.equal(sequence, fs.volume.journal.lastSequence)
  await fs.unmount()
})

t.test('the last writes of an unmount meet it: the unmount fails and says so', async (t) => {
  const { fs, memory } = await dirtied()
  const forget = failFlushes(memory)
  await t.rejects(fs.unmount(), UNDURABLE)
  forget()
  t.not(readSuperblocks(memory).best?.state, 'clean')
})

interface Late {
  readonly begun: Promise<void>
  /** The msync ends: well, or with the error. */
  readonly end: (error?: Error) => void
}

/** The next msync ends when it is told to; those beside it find nothing wrong. */
function endLate(memory: SimulatedMemory): Late {
  const { flushAsync } = memory
  let begin = () => {}
  const begun = new Promise<void>((resolve) => {
    begin = resolve
  })
  let end: Late['end'] = () => {}
  const over = new Promise<void>((resolve, reject) => {
    end = (error) => (error === undefined ? resolve() : reject(error))
  })
  memory.flushAsync = () => {
    memory.flushAsync = flushAsync
    begin()
    return over
  }
  return { begun, end }
}

async function turns(count: number): Promise<void> {
  for (let left = count; left > 0; left--) await new Promise((resolve) => setImmediate(resolve))
}

t.test('a commit under way meets it: an unmount beside it fails', async (t) => {
  const { fs, memory, handle } = await dirtied()
  const { begun, end } = endLate(memory)
  const synced = t.rejects(fs.fsync(handle.ino, false), UNDURABLE)
  await begun
  let over = false
  const unmounted = t.rejects(fs.unmount(), UNDURABLE).then(() => {
    over = true
  })
  await turns(10)
  t.notOk(over, 'it waits')
  end(eio())
  await Promise.all([synced, unmounted])
  t.match(readSuperblocks(memory).best, { state: 'shutdown', shutdownReason: 'io-error' })
})

const BESIDE: Record<string, (fs: Filesystem) => void> = {
  'an fsync': () => {},
  'an fsync after an msync that could not wait': (fs) => fs.volume.commitNow(),
}

for (const [who, before] of Object.entries(BESIDE)) {
  t.test(`a checkpoint under way meets it: ${who} beside it fails`, async (t) => {
    const { fs, memory, handle } = await dirtied()
    const { begun, end } = endLate(memory)
    const taken = t.rejects(fs.administration.checkpoint(), UNDURABLE)
    await begun
    before(fs)
    const synced = t.rejects(fs.fsync(handle.ino, false), { message: /EIO/ })
    await turns(10)
    end(eio())
    await Promise.all([taken, synced])
    await fs.unmount()
  })
}

t.test('a checkpoint that a full journal finishes while it waits for its msync', async (t) => {
  const { fs, memory, handle } = await dirtied()
  const { begun, end } = endLate(memory)
  const synced = fs.fsync(handle.ino, false)
  await begun
  const taken = fs.administration.checkpoint()
  await turns(10)
  fs.volume.hooks.makeJournalRoom()
  end()
  t.ok((await taken).sequence)
  await synced
  t.equal(fs.volume.shutdown, undefined)
  await fs.unmount()
})

t.test('the superblocks that list a slot meet it: as for any other flush', async (t) => {
  const { fs, memory } = await dirtied()
  let failures = 0
  const forget = failFlushes(memory, (length) => length === BLOCK_SIZE && failures++ === 0)
  t.throws(() => grow(fs), UNDURABLE)
  forget()
  t.match(fs.volume.shutdown?.reason, /cannot be made durable/)
  await fs.unmount()
  t.throws(() => remount(memory), /was shut down \(io-error\)/)
})
