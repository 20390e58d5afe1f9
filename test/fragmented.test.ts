/**
 * What one operation does to very many pieces: extents, names, ranges of free space. It is several
 * records then, none larger than the journal takes, and nobody waits for seconds.
 */
import t, { type Test } from 'tap'
import type { SimulatedMemory } from '../src/dax/simulated-memory.ts'
import { checkIndex } from '../src/fs/check/check.ts'
import { ENOSPC, FsError } from '../src/fs/errors.ts'
import { resize } from '../src/fs/file-space.ts'
import type { Filesystem } from '../src/fs/filesystem.ts'
import type { Handle } from '../src/fs/handles.ts'
import { mustFind } from '../src/fs/inode-cache.ts'
import { BLOCK_SIZE, UNIT_SIZE } from '../src/media/geometry.ts'
import { isFull, remount, scratchFilesystem } from './support/core.ts'

const CALLER = { uid: 0, gid: 0, pid: 1, umask: 0 }
const WRITE = { cached: false, killPrivileges: false, append: false }
const KEEP_SIZE = 1
const PUNCH = 3
const ZERO_RANGE = 0x10
const MIB = 1024 * 1024
const name = (text: string) => Buffer.from(text)
const settled = () => new Promise((resolve) => setTimeout(resolve, 20))

function create(fs: Filesystem, file: string): Handle {
  return fs.create(1, name(file), 0o644, 2, CALLER)
}

function healthy(t: Pick<Test, 'same'>, { volume }: Filesystem, what = 'healthy'): void {
  const { index, geometry, superblock, journal } = volume
  const options = { sequence: journal.lastSequence }
  t.same(checkIndex(index.database, geometry, superblock, options), [], what)
}

/** Every other block of a file of `blocks` blocks becomes a hole. */
async function punchHoles(fs: Filesystem, handle: Handle, blocks: number): Promise<void> {
  for (let block = 0; block < blocks; block += 2) {
    fs.fallocate(handle, PUNCH, block * BLOCK_SIZE, BLOCK_SIZE)
    if (block % 2000 === 0) await settled()
  }
}

/** No whole unit is free, but so many single blocks (and some rest). */
async function fragmented(mode: 'cacheline' | 'page', single: number) {
  const made = scratchFilesystem(128 * MIB, mode)
  const { fs } = made
  const comb = create(fs, 'comb')
  fs.fallocate(comb, 0, 0, 2 * single * BLOCK_SIZE)
  await punchHoles(fs, comb, 2 * single)
  // The images have grown: what is left is for files.
  await fs.administration.checkpoint()
  await fs.administration.checkpoint()
  const fill = create(fs, 'fill')
  for (let at = 0; fs.volume.index.freeSpace.wholeUnits() > 0; at += UNIT_SIZE) {
    fs.fallocate(fill, 0, at, UNIT_SIZE)
  }
  await fs.administration.checkpoint()
  return { ...made, comb }
}

function extentsOf({ volume }: Filesystem, { ino }: Handle): number {
  return volume.index.rmap.ofOwner(ino).length
}

/** What a fallocate that gave everything back has not changed. */
function shape(fs: Filesystem, { ino }: Handle) {
  const { size, blocks, mtime } = fs.getattr(ino)
  return { size, blocks, mtime, free: fs.volume.allocator.freeBlocks }
}

for (const mode of ['cacheline', 'page'] as const) {
  t.test(`fallocate and zero range over thousands of single blocks, ${mode}`, async (t) => {
    const { fs, memory } = await fragmented(mode, 9000)
    const file = create(fs, 'file')
    const before = shape(fs, file)
    fs.fallocate(file, KEEP_SIZE, 0, 8500 * BLOCK_SIZE)
    t.same(shape(fs, file), {
      ...before,
      blocks: before.blocks + 8500,
      free: before.free - 8500,
      mtime: fs.getattr(file.ino).mtime,
    })
    t.ok(extentsOf(fs, file) > 7700, `${extentsOf(fs, file)} extents: too many for one record`)
    fs.write(file, 0, Buffer.alloc(MIB, 1), 0, MIB, WRITE)
    fs.fallocate(file, ZERO_RANGE, 0, 8400 * BLOCK_SIZE)
    t.equal(fs.getattr(file.ino).size, 8400 * BLOCK_SIZE)
    const bytes = Buffer.alloc(MIB, 2)
    fs.readInto(file, 0, bytes, 0, MIB)
    t.ok(
      bytes.every((byte) => byte === 0),
      'zeros',
    )
    healthy(t, fs)
    await fs.unmount()
    const again = remount(memory.crash())
    t.equal(again.lookup(1, name('file')).size, 8400 * BLOCK_SIZE)
    await again.unmount()
  })
}

t.test('one search finds many fragments', async (t) => {
  const { fs } = await fragmented('cacheline', 9000)
  const file = create(fs, 'file')
  const { freeSpace } = fs.volume.index
  let pages = 0
  const { from, large } = freeSpace
  const counted = (read: typeof from) => (block: number) => {
    pages++
    return read.call(freeSpace, block)
  }
  Object.assign(freeSpace, { from: counted(from), large: counted(large) })
  fs.fallocate(file, 0, 0, 6000 * BLOCK_SIZE)
  t.ok(pages < 6000 / 4, `${pages} pages of free ranges read for ${extentsOf(fs, file)} extents`)
  pages = 0
  const free = fs.volume.allocator.freeBlocks
  t.ok(isFull(() => fs.fallocate(file, 0, 6000 * BLOCK_SIZE, (free + 1) * BLOCK_SIZE)))
  t.equal(pages, 0, 'more than is free is refused without a search')
  const at = fs.getattr(file.ino).size
  t.equal(fs.write(file, at, Buffer.alloc(MIB), 0, MIB, WRITE), MIB)
  t.ok(pages < 40, `${pages} pages read for a write of 1 MiB`)
  healthy(t, fs)
})

t.test('of fragments the longest come first', async (t) => {
  const { fs } = scratchFilesystem(32 * MIB, 'cacheline')
  const comb = create(fs, 'comb')
  fs.fallocate(comb, 0, 0, UNIT_SIZE)
  const fill = create(fs, 'fill')
  while (!isFull(() => fs.fallocate(fill, 0, fs.getattr(fill.ino).size, BLOCK_SIZE))) {}
  const lengths = [1, 5, 2, 4, 3]
  for (let [at, index] = [1, 0]; index < 20; index++) {
    const length = lengths[index % 5]!
    fs.fallocate(comb, PUNCH, at * BLOCK_SIZE, length * BLOCK_SIZE)
    at += length + 1
  }
  const file = create(fs, 'file')
  fs.fallocate(file, 0, 0, 50 * BLOCK_SIZE)
  const found = fs.volume.index.rmap.ofOwner(file.ino).map(({ blocks }) => blocks)
  t.same(found, [5, 5, 5, 5, 4, 4, 4, 4, 3, 3, 3, 3, 2])
  healthy(t, fs)
})

/** From the `count`-th transaction on there is no room; freeing is always possible. */
function noRoomAfter({ volume }: Filesystem, count: number): () => void {
  const { reserveImage } = volume.hooks
  let left = count
  volume.hooks.reserveImage = (freesSpace) => {
    reserveImage(freesSpace)
    if (!freesSpace && left-- <= 0) throw new FsError(ENOSPC)
  }
  return () => {
    volume.hooks.reserveImage = reserveImage
  }
}

t.test('a fallocate that runs out of space in the middle gives everything back', async (t) => {
  const { fs } = await fragmented('cacheline', 4000)
  const file = create(fs, 'file')
  fs.fallocate(file, 0, 0, 100 * BLOCK_SIZE)
  for (let block = 0; block < 100; block += 2) {
    fs.fallocate(file, PUNCH, block * BLOCK_SIZE, BLOCK_SIZE)
  }
  fs.fallocate(file, KEEP_SIZE, 200 * BLOCK_SIZE, BLOCK_SIZE)
  const before = { ...shape(fs, file), rows: fs.volume.index.rmap.ofOwner(file.ino) }
  for (const count of [0, 1, 4]) {
    const restore = noRoomAfter(fs, count)
    const { lastSequence } = fs.volume.journal
    t.ok(isFull(() => fs.fallocate(file, 0, 0, 3000 * BLOCK_SIZE)))
    restore()
    t.ok(fs.volume.journal.lastSequence >= lastSequence + count, 'it had begun')
    t.same({ ...shape(fs, file), rows: fs.volume.index.rmap.ofOwner(file.ino) }, before)
    healthy(t, fs)
  }
  fs.fallocate(file, 0, 0, 3000 * BLOCK_SIZE)
  t.equal(fs.getattr(file.ino).size, 3000 * BLOCK_SIZE)
  healthy(t, fs)
  await fs.unmount()
})

t.test('what cannot be given back later is not taken', async (t) => {
  const { fs } = await fragmented('cacheline', 9000)
  const { volume } = fs
  const { journal } = volume
  const file = create(fs, 'file')
  const before = shape(fs, file)
  const { makeJournalRoom } = volume.hooks
  volume.hooks.makeJournalRoom = () => {
    throw new FsError(ENOSPC)
  }
  let rounds = 0
  while (!isFull(() => fs.fallocate(file, KEEP_SIZE, 0, 8000 * BLOCK_SIZE))) {
    fs.fallocate(file, PUNCH, 0, 8000 * BLOCK_SIZE)
    rounds++
  }
  t.ok(rounds > 0, `${rounds} rounds`)
  const { blocks, free, size } = shape(fs, file)
  t.same({ blocks, free, size }, { blocks: before.blocks, free: before.free, size: before.size })
  t.ok(journal.used < journal.size * 0.8, `${journal.used} bytes of the journal are in use`)
  volume.hooks.makeJournalRoom = makeJournalRoom
  fs.fallocate(file, KEEP_SIZE, 0, 8000 * BLOCK_SIZE)
  healthy(t, fs)
})

t.test('blocks that wait to be durable are used before a large fallocate is refused', async (t) => {
  const { fs } = await fragmented('page', 4000)
  const file = create(fs, 'file')
  fs.fallocate(file, 0, 0, 2000 * BLOCK_SIZE)
  await fs.administration.checkpoint()
  fs.fallocate(file, PUNCH, 0, 2000 * BLOCK_SIZE)
  t.ok(fs.volume.allocator.pendingBlocks >= 2000)
  const wanted = fs.volume.allocator.freeBlocks
  const second = create(fs, 'second')
  fs.fallocate(second, 0, 0, wanted * BLOCK_SIZE)
  t.equal(fs.volume.allocator.freeBlocks, 0)
  healthy(t, fs)
})

t.test('power fails between the records of one fallocate', async (t) => {
  const { fs, memory } = await fragmented('cacheline', 4000)
  const file = create(fs, 'file')
  const states = new Set<number>()
  let spare: SimulatedMemory | undefined
  let last = fs.volume.journal.lastSequence
  memory.onPersist = () => {
    const { lastSequence } = fs.volume.journal
    if (lastSequence === last) return
    last = lastSequence
    spare = memory.crash(undefined, undefined, spare)
    const crashed = remount(spare)
    healthy(t, crashed, 'healthy after the crash')
    const { size, blocks } = crashed.lookup(1, name('file'))
    t.equal(size, 0, 'the size grows last')
    states.add(blocks)
    crashed.volume.index.close()
  }
  fs.fallocate(file, 0, 0, 3000 * BLOCK_SIZE)
  memory.onPersist = undefined
  t.ok(states.size > 3, `${[...states]} blocks`)
  t.equal(fs.getattr(file.ino).size, 3000 * BLOCK_SIZE)
})

/** As a truncate leaves it that a crash cut off: data behind the end, in many pieces. */
async function cutOff(t: Test, fs: Filesystem, size = 0): Promise<Handle> {
  const file = create(fs, 'file')
  const piece = Buffer.alloc(MIB, 0xaa)
  for (let at = 0; at < 64; at++) fs.write(file, at * MIB, piece, 0, MIB, WRITE)
  await punchHoles(fs, file, (64 * MIB) / BLOCK_SIZE)
  const inode = mustFind(fs.volume.inodes, file.ino)
  fs.volume.transact((transaction) => resize(fs.volume, transaction, inode, size), true)
  t.ok(extentsOf(fs, file) > 7600, `${extentsOf(fs, file)} extents behind the end`)
  return file
}

const GROW: Record<string, (fs: Filesystem, file: Handle) => void> = {
  write: (fs, file) => fs.write(file, 70 * MIB, Buffer.alloc(1, 1), 0, 1, WRITE),
  truncate: (fs, file) => fs.setattr(file.ino, { size: 70 * MIB }, CALLER),
  fallocate: (fs, file) => fs.fallocate(file, 0, 70 * MIB, BLOCK_SIZE),
}

for (const [how, grow] of Object.entries(GROW)) {
  t.test(`${how} far behind the end, where thousands of extents still lie`, async (t) => {
    const { fs } = scratchFilesystem(128 * MIB, 'cacheline')
    const file = await cutOff(t, fs)
    grow(fs, file)
    t.ok(fs.getattr(file.ino).size >= 70 * MIB)
    const bytes = Buffer.alloc(64 * MIB, 2)
    for (let at = 0; at < 64 * MIB; at += MIB) fs.readInto(file, at, bytes, at, MIB)
    t.ok(
      bytes.every((byte) => byte === 0),
      'nothing of the old bytes comes to light',
    )
    healthy(t, fs)
    await fs.unmount()
  })
}

t.test('growth within the last block, where thousands of extents still lie behind', async (t) => {
  const { fs } = scratchFilesystem(128 * MIB, 'cacheline')
  const file = await cutOff(t, fs, 5000)
  fs.setattr(file.ino, { size: 5010 }, CALLER)
  const bytes = Buffer.alloc(100)
  t.equal(fs.readInto(file, 5000, bytes, 0, 100), 10)
  t.same(bytes, Buffer.alloc(100))
  healthy(t, fs)
  await fs.unmount()
})

/** Gives a file attributes of one byte, in records of 512. */
function giveNames({ volume }: Filesystem, ino: number, count: number, length: number): void {
  const names = Array.from({ length: count }, (_, at) => name(`user.${at}`.padEnd(length, 'x')))
  for (let at = 0; at < count; at += 512) {
    volume.transact((transaction) => {
      for (const name of names.slice(at, at + 512)) {
        transaction.apply({ type: 'putXattr', ino, name, value: Buffer.alloc(1) })
      }
    })
  }
}

/** Files that nobody holds: with as many bytes of names as one list takes, and one with far more. */
async function filesWithNames(fs: Filesystem): Promise<string[]> {
  const files = Array.from({ length: 12 }, (_, at) => `file ${at}`)
  for (const [at, file] of files.entries()) {
    const handle = create(fs, file)
    fs.write(handle, 0, Buffer.alloc(65536, at), 0, 65536, WRITE)
    if (at === 0) giveNames(fs, handle.ino, 65536 / 10, 9)
    else if (at === 1) giveNames(fs, handle.ino, 6000, 255)
    else giveNames(fs, handle.ino, 256, 255)
    fs.release(handle)
    fs.forget(handle.ino, 1)
  }
  return files
}

t.test('unlinked files with long names of attributes are freed', async (t) => {
  const { fs } = scratchFilesystem(64 * MIB, 'cacheline')
  const { inodeCount } = fs.volume
  for (const file of await filesWithNames(fs)) fs.unlink(1, name(file))
  await settled()
  t.equal(fs.volume.inodeCount, inodeCount)
  healthy(t, fs)
  await fs.unmount()
})

for (const [names, records] of [
  [16, 1],
  [40, 65],
] as const) {
  t.test(`sixty-four unlinked files of ${names} names are ${records} records or so`, async (t) => {
    const { fs } = scratchFilesystem(64 * MIB, 'cacheline')
    const { inodeCount } = fs.volume
    for (let at = 0; at < 64; at++) {
      const handle = create(fs, `file ${at}`)
      giveNames(fs, handle.ino, names, 255)
      fs.release(handle)
      fs.forget(handle.ino, 1)
    }
    for (let at = 0; at < 64; at++) fs.unlink(1, name(`file ${at}`))
    const { lastSequence } = fs.volume.journal
    await settled()
    t.equal(fs.volume.inodeCount, inodeCount)
    // A few more when a checkpoint moves its slot.
    const made = fs.volume.journal.lastSequence - lastSequence
    t.ok(made >= records && made < records + 8, `${made} records`)
    await fs.unmount()
  })
}

t.test('a write on a full filesystem waits for them, and so does the unmount', async (t) => {
  const { fs, memory } = scratchFilesystem(64 * MIB, 'cacheline')
  const { inodeCount } = fs.volume
  const files = await filesWithNames(fs)
  const fill = create(fs, 'fill')
  for (const step of [UNIT_SIZE, BLOCK_SIZE]) {
    while (!isFull(() => fs.fallocate(fill, 0, fs.getattr(fill.ino).size, step))) {}
  }
  t.equal(fs.volume.allocator.freeBlocks, 0)
  for (const file of files.slice(0, 10)) fs.unlink(1, name(file))
  t.equal(fs.write(fill, fs.getattr(fill.ino).size, Buffer.alloc(65536), 0, 65536, WRITE), 65536)
  t.equal(fs.volume.inodeCount, inodeCount + 3, 'what waited is freed')
  for (const file of files.slice(10)) fs.unlink(1, name(file))
  await fs.unmount()
  const again = remount(memory.crash())
  t.equal(again.volume.inodeCount, inodeCount + 1)
  healthy(t, again)
  await again.unmount()
})

t.test('free space that begins one block behind the first is found', async (t) => {
  const { fs } = scratchFilesystem(32 * MIB, 'cacheline')
  const { dataStartBlock } = fs.volume.geometry
  // Nobody's any more: the first checkpoint went to the other slot.
  await fs.administration.checkpoint()
  fs.administration.inject({
    target: { kind: 'offset', offset: dataStartBlock * BLOCK_SIZE },
    length: 1,
    method: 'soft',
  })
  const file = create(fs, 'file')
  const free = fs.volume.index.freeSpace.containing(dataStartBlock + 1)
  t.equal(free?.block, dataStartBlock + 1, 'the case')
  while (!isFull(() => fs.fallocate(file, 0, fs.getattr(file.ino).size, BLOCK_SIZE))) {}
  t.equal(fs.volume.allocator.freeBlocks, 0)
  healthy(t, fs)
})
