/** Promises of docs/DURABILITY.md that need a moment of their own; the rest is crash.test.ts's. */
import { constants } from 'node:os'
import t from 'tap'
import { format } from '../mkfs/format.ts'
import { openSimulated } from '../src/dax/device.ts'
import { fsDaxGet } from '../src/dax/holder.ts'
import { SimulatedMemory } from '../src/dax/simulated-memory.ts'
import { FsError } from '../src/fs/errors.ts'
import { Filesystem } from '../src/fs/filesystem.ts'
import { Index } from '../src/index/index.ts'
import { loadImage } from '../src/journal/checkpoint.ts'
import { BLOCK_SIZE } from '../src/media/geometry.ts'
import { readSuperblocks, requireSuperblock } from '../src/media/superblock.ts'
import { abandon, mountMemory, Plug, rebooted } from './crash/mounting.ts'
import { silent } from './support/core.ts'

const MIB = 1024 * 1024
const COMMIT_SECONDS = 0.2
const caller = { uid: 0, gid: 0, pid: 1, umask: 0 }
const plain = { cached: false, killPrivileges: false, append: false }
const name = (text: string) => Buffer.from(text)

function fresh(mode: 'cacheline' | 'page'): SimulatedMemory {
  const memory = new SimulatedMemory(32 * MIB, mode)
  format(memory, { label: 'test', uid: 0, gid: 0, now: 1_700_000_000 })
  return memory
}

function put(fs: Filesystem, file: string, bytes: Uint8Array): number {
  const handle = fs.create(1, name(file), 0o600, 2, caller)
  fs.write(handle, 0, bytes, 0, bytes.length, plain)
  fs.release(handle)
  return handle.ino
}

function get(fs: Filesystem, file: string): Buffer {
  const { ino, size } = fs.lookup(1, name(file))
  const bytes = Buffer.alloc(size)
  const handle = fs.open(ino, 0, false)
  fs.readInto(handle, 0, bytes, 0, size)
  fs.release(handle)
  return bytes
}

/** With a commit interval, which mountMemory() has not. */
function mountCommitting(memory: SimulatedMemory): Filesystem {
  const device = openSimulated(memory)
  fsDaxGet(device, { purpose: 'mount' })
  return Filesystem.mount(device, {
    readOnly: false,
    commitSeconds: COMMIT_SECONDS,
    onFailure: 'handles',
    logger: silent,
  })
}

/** Nothing of a daemon that was killed is written any more. */
function killed(memory: SimulatedMemory): { fs: Filesystem; kill: () => void } {
  const plug = new Plug(memory)
  const fs = mountMemory(plug)
  const kill = () => {
    plug.pull()
    abandon(fs)
  }
  return { fs, kill }
}

t.test('plain file: everything is durable after the commit interval', async (t) => {
  const memory = fresh('page')
  const fs = mountCommitting(memory)
  put(fs, 'file', Buffer.alloc(10_000, 7))
  t.throws(() => get(mountMemory(rebooted(memory.crash())), 'file'), 'not at once')
  await new Promise((resolve) => setTimeout(resolve, COMMIT_SECONDS * 1000 + 500))
  const after = rebooted(memory.crash())
  await fs.unmount()
  const again = mountMemory(after)
  t.ok(get(again, 'file').equals(Buffer.alloc(10_000, 7)), 'names and bytes')
  await again.unmount()
})

t.test('plain file: fsync covers what a killed daemon stored in place', async (t) => {
  const memory = fresh('page')
  const first = mountMemory(memory)
  put(first, 'file', Buffer.alloc(8192, 1))
  await first.unmount()
  const { fs, kill } = killed(memory)
  const handle = fs.open(fs.lookup(1, name('file')).ino, 2, false)
  fs.write(handle, 0, Buffer.alloc(8192, 2), 0, 8192, plain)
  kill()
  const again = mountMemory(memory)
  await again.fsync(again.lookup(1, name('file')).ino, false)
  const after = mountMemory(rebooted(memory.crash()))
  t.ok(get(after, 'file').equals(Buffer.alloc(8192, 2)))
  await after.unmount()
  await again.unmount()
})

t.test('plain file: fsync of one file makes all that came before it durable', async (t) => {
  const memory = fresh('page')
  const fs = mountMemory(memory)
  put(fs, 'first', Buffer.alloc(5000, 1))
  fs.mkdir(1, name('dir'), 0o700, caller)
  const ino = put(fs, 'second', Buffer.alloc(5000, 2))
  await fs.fsync(ino, true)
  put(fs, 'third', Buffer.alloc(5000, 3))
  const after = mountMemory(rebooted(memory.crash()))
  t.ok(get(after, 'first').equals(Buffer.alloc(5000, 1)))
  t.ok(after.lookup(1, name('dir')))
  t.ok(get(after, 'second').equals(Buffer.alloc(5000, 2)))
  t.throws(() => after.lookup(1, name('third')), 'and no more')
  await after.unmount()
  await fs.unmount()
})

t.test('plain file: an fsync while another one is under way waits for it', async (t) => {
  const memory = fresh('page')
  const fs = mountMemory(memory)
  const ino = put(fs, 'file', Buffer.alloc(BLOCK_SIZE, 1))
  await fs.fsync(ino, false)
  const handle = fs.open(ino, 2, false)
  fs.write(handle, 0, Buffer.alloc(BLOCK_SIZE, 2), 0, BLOCK_SIZE, plain)
  const first = fs.fsync(ino, true)
  await fs.fsync(1, true)
  const after = mountMemory(rebooted(memory.crash()))
  t.ok(get(after, 'file').equals(Buffer.alloc(BLOCK_SIZE, 2)))
  await after.unmount()
  await first
  await fs.unmount()
})

t.test('plain file: after an fsync that failed there is none that succeeds', async (t) => {
  const memory = fresh('page')
  const fs = mountMemory(memory)
  const ino = put(fs, 'file', Buffer.alloc(BLOCK_SIZE, 1))
  await fs.fsync(ino, false)
  const handle = fs.open(ino, 2, false)
  fs.write(handle, 0, Buffer.alloc(BLOCK_SIZE, 2), 0, BLOCK_SIZE, plain)
  const { flushAsync } = memory
  memory.flushAsync = () => Promise.reject(Object.assign(new Error('EIO'), { code: 'EIO' }))
  await t.rejects(fs.fsync(ino, true))
  // The kernel forgets: it reports an error once, and drops what it could not write.
  memory.flushAsync = flushAsync
  await t.rejects(fs.fsync(ino, true), new FsError(constants.errno.EIO))
  t.match(fs.volume.shutdown?.reason, /cannot be made durable/)
  await fs.unmount()
})

t.test(
  'checkpoints asked for at the same time: each one is on media when it resolves',
  async (t) => {
    const memory = fresh('page')
    const fs = mountMemory(memory)
    const { administration } = fs
    put(fs, 'one', Buffer.alloc(100, 1))
    const early = administration.checkpoint()
    put(fs, 'two', Buffer.alloc(100, 2))
    const images: SimulatedMemory[] = []
    const take = () => images.push(rebooted(memory.crash()))
    const both = [administration.checkpoint().then(take), administration.checkpoint().then(take)]
    await Promise.all([early, ...both])
    t.equal(images.length, 2)
    for (const image of images) {
      const after = mountMemory(image)
      t.ok(get(after, 'two').equals(Buffer.alloc(100, 2)))
      await after.unmount()
    }
    await fs.unmount()
  },
)

t.test('the unmount comes before checkpoints that wait for one another', async (t) => {
  const memory = fresh('page')
  const fs = mountMemory(memory)
  put(fs, 'file', Buffer.alloc(100, 1))
  const late = { errno: constants.errno.EBUSY, message: 'the unmount takes the last checkpoint' }
  const taken = fs.administration.checkpoint()
  const refused = [1, 2].map(() => t.rejects(fs.administration.checkpoint(), late))
  await fs.unmount()
  t.ok((await taken).sequence)
  await Promise.all(refused)
})

t.test('a checkpoint that is asked for during the unmount of a frozen filesystem', async (t) => {
  const fs = mountMemory(fresh('page'))
  await fs.administration.freeze()
  const unmounted = fs.unmount()
  await t.rejects(fs.administration.checkpoint(), {
    message: 'the unmount takes the last checkpoint',
  })
  await unmounted
})

t.test('times of a write in place: fsync has them, fdatasync and a crash need not', async (t) => {
  for (const mode of ['cacheline', 'page'] as const) {
    const memory = fresh(mode)
    const fs = mountCommitting(memory)
    const ino = put(fs, 'file', Buffer.alloc(100, 1))
    const set = { seconds: 1000, nanoseconds: 5 }
    fs.setattr(ino, { mtime: set, atime: set }, caller)
    const handle = fs.open(ino, 2, false)
    const written = () => {
      const crashed = mountMemory(rebooted(memory.crash()))
      const { mtime, size } = crashed.lookup(1, name('file'))
      t.same([size, get(crashed, 'file')], [100, Buffer.alloc(100, 2)], `${mode}: the bytes`)
      abandon(crashed)
      return mtime
    }
    fs.write(handle, 0, Buffer.alloc(100, 2), 0, 100, plain)
    await fs.fsync(ino, true)
    t.equal(written(), set.seconds, `${mode}: fdatasync: as it was`)
    await fs.fsync(ino, false)
    t.ok(written() > 1_700_000_000, `${mode}: fsync: when it was written`)
    fs.setattr(ino, { mtime: set }, caller)
    fs.write(handle, 0, Buffer.alloc(100, 2), 0, 100, plain)
    await new Promise((resolve) => setTimeout(resolve, COMMIT_SECONDS * 1000 + 500))
    t.ok(written() > 1_700_000_000, `${mode}: so has the commit interval`)
    await fs.unmount()
  }
})

t.test('a checkpoint is in the image, without any journal', async (t) => {
  for (const mode of ['cacheline', 'page'] as const) {
    const memory = fresh(mode)
    const fs = mountMemory(memory)
    put(fs, 'file', Buffer.alloc(100, 1))
    t.notOk(inImage(memory, 'file'), `${mode}: before, it is in the journal only`)
    await fs.administration.checkpoint()
    t.ok(inImage(memory.crash(), 'file'), `${mode}: after it`)
    await fs.unmount()
  }
})

function inImage(memory: SimulatedMemory, file: string): boolean {
  const index = Index.open(loadImage(memory, requireSuperblock(readSuperblocks(memory))))
  try {
    return index.dirents.inodeOf(1, name(file)) !== 0
  } finally {
    index.close()
  }
}

t.test('two crashes in a row never tear both superblocks', async (t) => {
  const memory = fresh('cacheline')
  const fs = mountMemory(memory)
  put(fs, 'file', Buffer.alloc(100, 1))
  await fs.unmount()
  // The first crash tore the backup; the second one comes while a mount writes its superblocks.
  memory.write(memory.size - BLOCK_SIZE + 100, Buffer.alloc(8, 0xee), 0, 8)
  const torn: SimulatedMemory[] = []
  memory.onPersist = () =>
    torn.push(
      memory.crash(
        () => true,
        (_, word) => word % 2 === 0,
      ),
    )
  abandon(mountMemory(memory))
  t.ok(torn.length >= 2)
  for (const image of torn) {
    t.ok(readSuperblocks(image).best, 'one of them is whole')
    const after = mountMemory(image)
    t.equal(get(after, 'file').length, 100)
    await after.unmount()
  }
})

t.test('a checkpoint slot lost to bad memory is replaced after a crash, too', async (t) => {
  const memory = fresh('cacheline')
  const { fs, kill } = killed(memory)
  put(fs, 'file', Buffer.alloc(100, 1))
  const { slots, checkpoint } = fs.volume.superblock
  const [standby] = slots[checkpoint.slot === 0 ? 1 : 0]
  let image: SimulatedMemory | undefined
  // Between the superblocks that no longer list the slot and the record that replaces it.
  memory.onPersist = () => {
    const { best } = readSuperblocks(memory)
    const empty = best?.slots.some((slot) => slot.length === 0)
    if (empty && image === undefined) image = memory.crash(() => true)
  }
  fs.volume.device.memoryFailure(standby!.block * BLOCK_SIZE, BLOCK_SIZE)
  memory.onPersist = undefined
  kill()
  t.ok(image, 'there is such a moment')
  const again = mountMemory(image!)
  t.equal(get(again, 'file').length, 100)
  await again.unmount()
  const clean = mountMemory(image!)
  t.ok(clean.volume.superblock.slots.every((slot) => slot.length > 0))
  await clean.unmount()
})
