/** A frozen filesystem can be copied: nothing in the region changes between freeze and thaw. */
import { createHash } from 'node:crypto'
import { constants } from 'node:os'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { SimulatedMemory, type SimulatedMode } from '../src/dax/simulated-memory.ts'
import type { Filesystem } from '../src/fs/filesystem.ts'
import type { Handle } from '../src/fs/handles.ts'
import { rebooted } from './crash/mounting.ts'
import { remount, scratchFilesystem } from './support/core.ts'

const MIB = 1024 * 1024
const { EBUSY } = constants.errno
const caller = { uid: 0, gid: 0, pid: 1, umask: 0 }
const plain = { cached: false, killPrivileges: false, append: false }
const name = (text: string) => Buffer.from(text)
const MODES: readonly SimulatedMode[] = ['cacheline', 'page']

function create(fs: Filesystem, file: string): Handle {
  return fs.create(1, name(file), 0o600, 2, caller)
}

/** What a copy of the region would hold. */
function digest(memory: SimulatedMemory): string {
  const bytes = Buffer.alloc(memory.size)
  memory.read(0, bytes, 0, memory.size)
  return createHash('sha1').update(bytes).digest('hex')
}

/** Records of 60 KB: they fill the journal, and the image takes several slices. */
function makeLarge(fs: Filesystem, first: number, files: number): void {
  for (let file = first; file < first + files; file++) {
    const handle = create(fs, `file-${file}`)
    fs.setxattr(handle.ino, name('user.large'), Buffer.alloc(60_000, file), 0, false)
    fs.release(handle)
  }
}

/** A file with a read that its times do not show yet. */
async function readLater(fs: Filesystem, file = 'read'): Promise<() => void> {
  const handle = create(fs, file)
  fs.write(handle, 0, Buffer.alloc(8192, 7), 0, 8192, plain)
  await sleep(10)
  return () => {
    fs.readInto(handle, 0, Buffer.alloc(10), 0, 10)
  }
}

async function turns(count: number): Promise<void> {
  for (let left = count; left > 0; left--) await new Promise((resolve) => setImmediate(resolve))
}

for (const mode of MODES) {
  t.test(`${mode}: a checkpoint under way is over when freeze resolves`, async (t) => {
    const { fs, memory } = scratchFilesystem(32 * MIB, mode)
    makeLarge(fs, 0, 60)
    await fs.administration.checkpoint()
    makeLarge(fs, 60, 5)
    const { generation } = fs.volume.superblock
    let over = false
    const taken = fs.administration.checkpoint().then(() => {
      over = true
    })
    const next = fs.administration.checkpoint()
    await turns(1)
    t.notOk(over, 'it takes several slices')
    await fs.administration.freeze()
    t.ok(fs.volume.superblock.generation > generation)
    const before = digest(memory)
    const copy = new SimulatedMemory(memory.size, mode)
    for (let at = 0; at < memory.size; at += 8 * MIB) {
      const bytes = Buffer.alloc(8 * MIB)
      memory.read(at, bytes, 0, bytes.length)
      copy.write(at, bytes, 0, bytes.length)
      await turns(3)
    }
    await taken
    t.equal(digest(memory), before)
    fs.administration.thaw()
    await next
    const mounted = remount(rebooted(copy))
    t.equal(mounted.getxattr(mounted.lookup(1, name('file-64')).ino, name('user.large'))[0], 64)
    await mounted.unmount()
    await fs.unmount()
  })

  t.test(`${mode}: none begins by itself while frozen`, async (t) => {
    const { fs, memory } = scratchFilesystem(32 * MIB, mode)
    const reads = [await readLater(fs, 'one'), await readLater(fs, 'other')]
    makeLarge(fs, 0, 4)
    const taken = fs.administration.checkpoint()
    // The other half fills up while the image is written.
    const { journal } = fs.volume
    for (let file = 4; journal.used < journal.size * 0.7; file++) makeLarge(fs, file, 1)
    await fs.administration.freeze()
    await taken
    t.ok(journal.used > journal.size * 0.6, 'a checkpoint is due')
    const before = digest(memory)
    for (const read of reads) read()
    await turns(20)
    t.equal(digest(memory), before)
    let later = 0
    fs.administration.subscribe(({ event }) => {
      if (event === 'checkpoint') later++
    })
    fs.administration.thaw()
    await turns(100)
    t.equal(later, 1, 'it comes after the thaw, once')
    await fs.unmount()
  })

  t.test(`${mode}: a checkpoint that is asked for waits for the thaw`, async (t) => {
    const { fs, memory } = scratchFilesystem(32 * MIB, mode)
    const read = await readLater(fs)
    await fs.administration.freeze()
    read()
    const before = digest(memory)
    let over = false
    const taken = fs.administration.checkpoint().then(() => {
      over = true
    })
    await turns(20)
    t.notOk(over)
    t.equal(digest(memory), before)
    fs.administration.thaw()
    await taken
    await fs.unmount()
  })

  t.test(`${mode}: fsync of what was read while frozen leaves its time for later`, async (t) => {
    const { fs, memory } = scratchFilesystem(32 * MIB, mode)
    const read = await readLater(fs)
    await fs.administration.freeze()
    const before = digest(memory)
    const { ino } = fs.lookup(1, name('read'))
    const { atime, atimeNs } = fs.getattr(ino)
    read()
    await fs.fsync(ino, false)
    t.equal(digest(memory), before)
    fs.administration.thaw()
    await fs.fsync(ino, false)
    t.not(digest(memory), before)
    const after = remount(rebooted(memory.crash()))
    const row = after.getattr(after.lookup(1, name('read')).ino)
    t.ok(row.atime > atime || row.atimeNs > atimeNs, 'the time is there after the thaw')
    await after.unmount()
    await fs.unmount()
  })
}

t.test('what lost its last name before or during a freeze is freed after the thaw', async (t) => {
  const { fs, memory } = scratchFilesystem(32 * MIB, 'cacheline')
  const { inodes, blocks } = fs.administration.status()
  const [before, during] = ['before', 'during'].map((file) => {
    const handle = create(fs, file)
    fs.write(handle, 0, Buffer.alloc(8192, 7), 0, 8192, plain)
    fs.unlink(1, name(file))
    return handle
  }) as [Handle, Handle]
  const letGo = (handle: Handle) => {
    fs.release(handle)
    fs.forget(handle.ino, 1)
  }
  letGo(before)
  await fs.administration.freeze()
  const copy = digest(memory)
  letGo(during)
  await turns(20)
  t.equal(digest(memory), copy)
  t.equal(fs.administration.status().inodes, inodes + 2)
  fs.administration.thaw()
  await turns(20)
  t.match(fs.administration.status(), { inodes, blocks: { free: blocks.free } })
  await fs.unmount()
})

/** Flushes take until `release` is called. */
function holdFlushes(memory: SimulatedMemory): () => void {
  const { flushAsync } = memory
  let release = () => {}
  const released = new Promise<void>((resolve) => {
    release = resolve
  })
  memory.flushAsync = async (offset, length) => {
    await released
    return flushAsync.call(memory, offset, length)
  }
  return release
}

t.test('a second freeze resolves when the first does', async (t) => {
  const { fs, memory } = scratchFilesystem(32 * MIB, 'page')
  create(fs, 'file')
  const release = holdFlushes(memory)
  const events: string[] = []
  fs.administration.subscribe(({ event }) => events.push(event))
  const order: string[] = []
  const both = ['first', 'second'].map((who) =>
    fs.administration.freeze().then(() => order.push(who)),
  )
  await turns(5)
  t.same(order, [])
  release()
  await Promise.all(both)
  t.ok(remount(rebooted(memory.crash())).lookup(1, name('file')), 'durable')
  t.same(events, ['freeze'])
  await fs.administration.freeze()
  t.same(events, ['freeze'], 'and it is frozen already')
  await fs.unmount()
})

t.test('a thaw that comes before all is durable: the freeze is none', async (t) => {
  const { fs, memory } = scratchFilesystem(32 * MIB, 'page')
  const handle = create(fs, 'file')
  const release = holdFlushes(memory)
  const freezing = fs.administration.freeze()
  await turns(2)
  fs.administration.thaw()
  t.equal(fs.write(handle, 0, name('x'), 0, 1, plain), 1)
  const again = fs.administration.freeze()
  release()
  await t.rejects(freezing, { errno: EBUSY, message: /freeze it again/ })
  await again
  t.equal(fs.volume.frozen, true, 'the next one is not its business')
  await fs.unmount()
})

t.test('who waits for the thaw with a checkpoint hears of its end', async (t) => {
  const dead = scratchFilesystem(32 * MIB, 'cacheline').fs
  await dead.administration.freeze()
  const refused = t.rejects(dead.administration.checkpoint(), { message: 'EIO' })
  dead.administration.shutdown('forced')
  await refused
  await dead.unmount()
  const { fs, memory } = scratchFilesystem(32 * MIB, 'cacheline')
  await fs.administration.freeze()
  const late = t.rejects(fs.administration.checkpoint(), { errno: EBUSY, message: /unmount/ })
  await fs.unmount()
  await late
  await remount(memory).unmount()
})
