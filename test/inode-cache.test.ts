/** More inodes in use than the cache keeps: they stay one object each, and finding stays cheap. */
import { type Test, t } from 'tap'
import { checkIndex } from '../src/fs/check/check.ts'
import { EINVAL, FsError } from '../src/fs/errors.ts'
import type { Filesystem } from '../src/fs/filesystem.ts'
import { InodeCache } from '../src/fs/inode-cache.ts'
import { Index } from '../src/index/index.ts'
import type { InodeRow } from '../src/media/change.ts'
import { geometryFor } from '../src/media/geometry.ts'
import { scratchFilesystem } from './support/core.ts'

const MIB = 1024 * 1024
/** Two generations and more. */
const OPEN = 17_500
const CALLER = { uid: 0, gid: 0, pid: 1, umask: 0 }
const O_RDWR = 2
const name = (text: string) => Buffer.from(text)

/** As a transport does it: every request is a turn of the event loop. */
const request = () => new Promise<void>((resolve) => setImmediate(resolve))

async function withOpenFiles(count: number): Promise<Filesystem> {
  const { fs } = scratchFilesystem(64 * MIB, 'cacheline')
  const { ino } = fs.mkdir(1, name('open'), 0o755, CALLER)
  for (let i = 0; i < count; i++) {
    fs.create(ino, name(`file${i}`), 0o644, O_RDWR, CALLER)
    if (i % 100 === 0) await request()
  }
  return fs
}

function requireWhole(t: Test, { volume }: Filesystem): void {
  const { index, geometry, superblock, journal } = volume
  const sequence = journal.lastSequence
  t.strictSame(checkIndex(index.database, geometry, superblock, { sequence }), [])
}

t.test('link counts of directories while many files are open', async (t) => {
  const fs = await withOpenFiles(OPEN)
  const into = fs.mkdir(1, name('into'), 0o755, CALLER).ino
  for (let i = 0; i < 8; i++) {
    const { ino } = fs.mkdir(1, name('moved'), 0o755, CALLER)
    await request()
    fs.rename(1, name('moved'), into, name(`moved${i}`), 0)
    await request()
    fs.mkdir(1, name(`new${i}`), 0o755, CALLER)
    await request()
    t.equal(fs.getattr(ino).parent, into)
  }
  const links = [fs.getattr(1).nlink, fs.getattr(into).nlink]
  t.strictSame(links, [2 + 2 + 8, 2 + 8], 'the root has open, into and eight more')
  requireWhole(t, fs)
})

t.test('a rename below more directories than the cache keeps', async (t) => {
  const { fs } = scratchFilesystem(64 * MIB, 'cacheline')
  let deepest = 1
  for (let depth = 0; depth < OPEN; depth++) {
    deepest = fs.mkdir(deepest, name('d'), 0o755, CALLER).ino
    if (depth % 100 === 0) await request()
  }
  fs.mkdir(1, name('moved'), 0o755, CALLER)
  await request()
  fs.rename(1, name('moved'), deepest, name('moved'), 0)
  await request()
  fs.mkdir(1, name('new'), 0o755, CALLER)
  t.equal(fs.getattr(1).nlink, 4)
  requireWhole(t, fs)
  const first = fs.lookup(1, name('d')).ino
  const loop = () => fs.rename(1, name('d'), deepest, name('loop'), 0)
  t.throws(loop, new FsError(EINVAL))
  t.equal(fs.lookup(1, name('d')).ino, first)
})

/** An index of so many inodes, and how often a cache of it asked whether one is pinned. */
function countingCache(inodes: number, isPinned: (ino: number) => boolean) {
  const index = Index.create()
  const owner = { uid: 0, gid: 0, rdev: 0, flags: 0, size: 0, blocks: 0, parent: 0, target: null }
  const times = { atime: 1, mtime: 1, ctime: 1, btime: 1 }
  const nanoseconds = { atimeNs: 0, mtimeNs: 0, ctimeNs: 0, btimeNs: 0 }
  const row = { ...owner, ...times, ...nanoseconds, mode: 0o100644, nlink: 1 }
  index.begin()
  for (let ino = 1; ino <= inodes; ino++) index.inodes.put({ ...row, ino } satisfies InodeRow)
  index.commit()
  const asked = { count: 0 }
  const cache = new InodeCache(index, geometryFor(64 * MIB), (ino) => {
    asked.count++
    return isPinned(ino)
  })
  return { cache, asked }
}

t.test('pinned inodes are not gone through again for every other one', async (t) => {
  const [pinned, others] = [30_000, 20_000]
  const { cache, asked } = countingCache(pinned + others, (ino) => ino <= pinned)
  const objects = []
  for (let ino = 1; ino <= pinned; ino++) {
    objects.push(cache.find(ino))
    if (ino % 100 === 0) await request()
  }
  for (let ino = pinned + 1; ino <= pinned + others; ino++) {
    cache.find(ino)
    await request()
  }
  t.ok(asked.count > 0, 'generations did turn')
  t.ok(asked.count < 4 * (pinned + others), `asked ${asked.count} times`)
  t.ok(
    objects.every((inode, i) => cache.find(i + 1) === inode),
    'pinned: still the same objects',
  )
})

t.test('what nobody has open is dropped, but not while an operation runs', async (t) => {
  const inodes = 50_000
  const { cache } = countingCache(inodes, () => false)
  const first = cache.find(1)
  for (let ino = 2; ino <= inodes; ino++) cache.find(ino)
  t.equal(cache.find(1), first, 'one object, whatever else the operation has asked for')
  await request()
  for (let ino = 2; ino <= inodes; ino++) {
    cache.find(ino)
    if (ino % 100 === 0) await request()
  }
  t.not(cache.find(1), first, 'read again')
})
