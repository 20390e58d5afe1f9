/** The filesystem core over simulated memory: every operation, without a kernel in between. */
import t from 'tap'
import { checkIndex } from '../src/fs/check/check.ts'
import { errnoName, FrozenError, FsError } from '../src/fs/errors.ts'
import { createPieces, SEEK_DATA, SEEK_HOLE } from '../src/fs/file-read.ts'
import type { Filesystem } from '../src/fs/filesystem.ts'
import type { Handle } from '../src/fs/handles.ts'
import { RENAME_EXCHANGE, RENAME_NOREPLACE } from '../src/fs/operations.ts'
import { remount, scratchFilesystem } from './support/core.ts'

const caller = { uid: 1000, gid: 1000, pid: 1, umask: 0o022 }
const plain = { cached: false, killPrivileges: false, append: false }
const MIB = 1024 * 1024
const O_RDWR = 2

const name = (text: string) => Buffer.from(text)

function pattern(length: number, seed: number): Buffer {
  const bytes = Buffer.alloc(length)
  for (let at = 0; at < length; at++) bytes[at] = (at * 31 + seed * 7 + (at >> 8)) & 0xff
  return bytes
}

function create(fs: Filesystem, file: string, parent = 1): Handle {
  return fs.create(parent, name(file), 0o644, O_RDWR, caller)
}

function put(fs: Filesystem, handle: Handle, offset: number, bytes: Uint8Array): number {
  return fs.write(handle, offset, bytes, 0, bytes.length, plain)
}

function get(fs: Filesystem, handle: Handle, offset: number, length: number): Buffer {
  const target = Buffer.alloc(length)
  const count = fs.readInto(handle, offset, target, 0, length)
  return target.subarray(0, count)
}

function names(fs: Filesystem, ino = 1): string[] {
  const found: string[] = []
  const handle = fs.opendir(ino)
  fs.readdir(handle, 0, (entry) => {
    found.push(Buffer.from(entry.name).toString())
    return true
  })
  fs.release(handle)
  return found.filter((entry) => entry !== '.' && entry !== '..')
}

function errnoOf(operation: () => unknown): string {
  try {
    operation()
    return 'no error'
  } catch (error) {
    if (error instanceof FsError) return errnoName(error.errno)
    throw error
  }
}

/** The same checker that fsck runs. */
function healthy(test: Pick<typeof t, 'same'>, fs: Filesystem): void {
  const { index, geometry, superblock } = fs.volume
  const problems = checkIndex(index.database, geometry, superblock)
  test.same(
    problems.map((problem) => problem.message),
    [],
    'the checker finds nothing',
  )
}

for (const mode of ['cacheline', 'page'] as const) {
  t.test(`over ${mode} memory`, async (t) => {
    t.test('write, read back, holes and short reads', async (t) => {
      const { fs } = scratchFilesystem(64 * MIB, mode)
      const file = create(fs, 'a')
      const bytes = pattern(3 * MIB + 17, 1)
      t.equal(put(fs, file, 0, bytes), bytes.length)
      t.ok(get(fs, file, 0, bytes.length + 100).equals(bytes), 'short at the end of the file')
      t.equal(put(fs, file, 5 * MIB + 3, name('tail')), 4)
      t.ok(get(fs, file, bytes.length, 1000).equals(Buffer.alloc(1000)), 'a gap reads as zeros')
      t.equal(get(fs, file, 5 * MIB + 3, 10).toString(), 'tail')
      t.equal(put(fs, file, 100, name('inside')), 6)
      t.equal(get(fs, file, 100, 6).toString(), 'inside')
      healthy(t, fs)
      await fs.unmount()
    })

    t.test('truncation never shows old bytes again', async (t) => {
      const { fs } = scratchFilesystem(64 * MIB, mode)
      const file = create(fs, 'a')
      put(fs, file, 0, pattern(10_000, 2))
      fs.setattr(file.ino, { size: 5000 }, caller)
      fs.setattr(file.ino, { size: 20_000 }, caller)
      t.ok(get(fs, file, 5000, 15_000).equals(Buffer.alloc(15_000)))
      put(fs, file, 0, pattern(20_000, 3))
      fs.setattr(file.ino, { size: 100 }, caller)
      put(fs, file, 9000, name('x'))
      t.ok(get(fs, file, 100, 8900).equals(Buffer.alloc(8900)))
      healthy(t, fs)
      await fs.unmount()
    })

    t.test('fallocate: reserve, punch, zero; SEEK_DATA and SEEK_HOLE', async (t) => {
      const { fs } = scratchFilesystem(64 * MIB, mode)
      const file = create(fs, 'a')
      fs.fallocate(file, 0, 0, 2 * MIB)
      t.equal(fs.getattr(file.ino).size, 2 * MIB)
      t.equal(fs.getattr(file.ino).blocks, 512)
      t.ok(get(fs, file, 0, 4096).equals(Buffer.alloc(4096)), 'unwritten reads as zeros')
      t.equal(
        errnoOf(() => fs.seek(file, 0, SEEK_DATA)),
        'ENXIO',
      )
      put(fs, file, MIB, pattern(8192, 4))
      t.equal(fs.seek(file, 0, SEEK_DATA), MIB)
      t.equal(fs.seek(file, MIB, SEEK_HOLE), MIB + 8192)
      fs.fallocate(file, 3, MIB + 100, 4096)
      t.ok(get(fs, file, MIB + 100, 4096).equals(Buffer.alloc(4096)), 'punched')
      t.ok(get(fs, file, MIB, 100).equals(pattern(8192, 4).subarray(0, 100)), 'before it untouched')
      fs.fallocate(file, 1, 10 * MIB, 4096)
      t.equal(fs.getattr(file.ino).size, 2 * MIB, 'keep size')
      fs.fallocate(file, 0x10, 0, 4 * MIB)
      t.equal(fs.getattr(file.ino).size, 4 * MIB)
      t.ok(get(fs, file, MIB, 8192).equals(Buffer.alloc(8192)), 'zeroed')
      healthy(t, fs)
      await fs.unmount()
    })

    t.test('names: link, unlink while open, rename in all its ways', async (t) => {
      const { fs } = scratchFilesystem(64 * MIB, mode)
      const a = create(fs, 'a')
      put(fs, a, 0, name('contents'))
      fs.link(a.ino, 1, name('b'))
      t.equal(fs.getattr(a.ino).nlink, 2)
      fs.unlink(1, name('a'))
      fs.unlink(1, name('b'))
      t.equal(get(fs, a, 0, 8).toString(), 'contents', 'an unlinked open file stays')
      const dir = fs.mkdir(1, name('d'), 0o755, caller)
      t.equal(fs.getattr(1).nlink, 3)
      create(fs, 'x', dir.ino)
      t.equal(
        errnoOf(() => fs.rmdir(1, name('d'))),
        'ENOTEMPTY',
      )
      create(fs, 'y')
      t.equal(
        errnoOf(() => fs.rename(1, name('y'), dir.ino, name('x'), RENAME_NOREPLACE)),
        'EEXIST',
      )
      fs.rename(1, name('y'), dir.ino, name('x'), RENAME_EXCHANGE)
      t.same(names(fs), ['d', 'y'])
      fs.rename(1, name('y'), 1, name('z'), 0)
      t.same(names(fs), ['d', 'z'])
      const { ino } = fs.lookup(1, name('z'))
      fs.rename(1, name('z'), 1, name('d'), RENAME_EXCHANGE)
      t.equal(fs.lookup(1, name('d')).ino, ino, 'an exchange within one directory')
      t.same(names(fs).sort(), ['d', 'z'])
      fs.rename(1, name('z'), 1, name('d'), RENAME_EXCHANGE)
      t.equal(
        errnoOf(() => fs.rename(1, name('d'), dir.ino, name('inside'), 0)),
        'EINVAL',
      )
      fs.mkdir(1, name('e'), 0o755, caller)
      fs.rename(1, name('d'), fs.lookup(1, name('e')).ino, name('d2'), 0)
      t.equal(fs.getattr(1).nlink, 3, 'a moved directory takes its link along')
      t.equal(
        errnoOf(() => fs.lookup(1, Buffer.alloc(256, 97))),
        'ENAMETOOLONG',
      )
      t.equal(
        errnoOf(() => fs.mkdir(1, name('e'), 0o755, caller)),
        'EEXIST',
      )
      healthy(t, fs)
      await fs.unmount()
    })

    t.test('everything is there after an unmount, and after a crash', async (t) => {
      for (const how of ['unmount', 'crash'] as const) {
        const { fs, memory } = scratchFilesystem(64 * MIB, mode)
        const file = create(fs, 'kept')
        put(fs, file, 0, pattern(300_000, 5))
        fs.setxattr(file.ino, name('user.note'), name('value'), 0, false)
        const dir = fs.mkdir(1, name('dir'), 0o700, caller)
        fs.symlink(dir.ino, name('link'), name('../kept'), caller)
        const open = create(fs, 'gone')
        put(fs, open, 0, pattern(100_000, 6))
        fs.unlink(1, name('gone'))
        await fs.fsync(file.ino, false)
        if (how === 'unmount') await fs.unmount()
        const again = remount(how === 'crash' ? memory.crash() : memory)
        const found = again.lookup(1, name('kept'))
        const handle = again.open(found.ino, 0, false)
        t.ok(get(again, handle, 0, 300_000).equals(pattern(300_000, 5)), how)
        t.equal(Buffer.from(again.getxattr(found.ino, name('user.note'))).toString(), 'value')
        const link = again.lookup(again.lookup(1, name('dir')).ino, name('link'))
        t.equal(Buffer.from(again.readlink(link.ino)).toString(), '../kept')
        await new Promise((resolve) => setImmediate(resolve))
        t.equal(again.statfs().free, freeOf(again), 'the orphan was freed')
        healthy(t, again)
        await again.unmount()
      }
    })

    t.test('no space: nothing damaged, deletes work, space comes back', async (t) => {
      const { fs } = scratchFilesystem(32 * MIB, mode)
      const before = fs.statfs().free
      let count = 0
      let errno = ''
      while (errno === '') {
        errno = errnoOf(() => {
          const file = create(fs, `f${count}`)
          put(fs, file, 0, pattern(200_000, count))
          fs.release(file)
          fs.forget(file.ino, 1)
          count++
        }).replace('no error', '')
      }
      t.equal(errno, 'ENOSPC')
      t.ok(count > 80, `${count} files fit`)
      healthy(t, fs)
      for (const file of names(fs)) fs.forget(fs.lookup(1, name(file)).ino, 2)
      for (const file of names(fs)) fs.unlink(1, name(file))
      const big = create(fs, 'big')
      t.equal(put(fs, big, 0, pattern(10 * MIB, 9)), 10 * MIB, 'the freed space is usable at once')
      healthy(t, fs)
      fs.release(big)
      fs.unlink(1, name('big'))
      fs.forget(big.ino, 1)
      await new Promise((resolve) => setImmediate(resolve))
      t.ok(before - fs.statfs().free <= 1024, 'and is free again (but for a grown slot)')
      await fs.unmount()
    })

    t.test('checkpoints: many, while operations go on, then replay', async (t) => {
      const { fs, memory } = scratchFilesystem(64 * MIB, mode)
      for (let round = 0; round < 5; round++) {
        for (let at = 0; at < 200; at++) {
          const file = create(fs, `r${round}-${at}`)
          put(fs, file, 0, pattern(100 + at, at))
          fs.release(file)
        }
        const taken = fs.administration.checkpoint()
        create(fs, `during-${round}`)
        await taken
      }
      await fs.fsync(1, false)
      const again = remount(memory.crash())
      t.equal(names(again).length, 1005)
      const file = again.open(again.lookup(1, name('r4-199')).ino, 0, false)
      t.ok(get(again, file, 0, 1000).equals(pattern(299, 199)))
      healthy(t, again)
      await again.unmount()
    })

    t.test('frozen: changes wait, reads go on', async (t) => {
      const { fs } = scratchFilesystem(64 * MIB, mode)
      const file = create(fs, 'a')
      await fs.administration.freeze()
      t.throws(() => put(fs, file, 0, name('x')), FrozenError)
      t.equal(fs.lookup(1, name('a')).ino, file.ino)
      fs.administration.thaw()
      await fs.thawed()
      t.equal(put(fs, file, 0, name('x')), 1)
      await fs.unmount()
    })
  })
}

function freeOf(fs: Filesystem): number {
  return fs.volume.index.freeSpace.total()
}

t.test('failure: the right handles die, the file heals, poison survives', async (t) => {
  const { fs, memory, device } = scratchFilesystem(64 * MIB, 'cacheline')
  const hit = create(fs, 'hit')
  const other = create(fs, 'other')
  put(fs, hit, 0, pattern(10 * 4096, 1))
  put(fs, other, 0, pattern(4096, 2))
  const target = { kind: 'file', inode: hit.ino, fileOffset: 4096 } as const
  const before = Date.now()
  const result = fs.administration.inject({ target, length: 4096, method: 'soft' })
  const { time } = fs.administration.status().failures[0]!
  t.ok(Date.parse(time) >= before, 'the time of a failure is not cut to seconds')
  t.equal(result.kind, 'data')
  t.same(result.inodes, [hit.ino])
  t.equal(result.handlesKilled, 1)
  t.equal(
    errnoOf(() => get(fs, hit, 0, 10)),
    'EIO',
    'dead for ever',
  )
  t.ok(get(fs, other, 0, 4096).equals(pattern(4096, 2)), 'the other file goes on')
  const fresh = fs.open(hit.ino, O_RDWR, false)
  t.equal(get(fs, fresh, 0, 8192).length, 4096, 'healthy bytes before the poison')
  t.equal(
    errnoOf(() => get(fs, fresh, 4096, 10)),
    'EIO',
  )
  t.ok(get(fs, fresh, 8192, 4096).equals(pattern(10 * 4096, 1).subarray(8192, 12288)))
  t.equal(
    errnoOf(() => put(fs, fresh, 5000, name('part'))),
    'EIO',
    'a part cannot heal',
  )
  const again = fs.administration.inject({ target, length: 4096, method: 'soft' })
  t.equal(again.handlesKilled, 0, 'the same report twice is one failure')

  await fs.unmount()
  const second = remount(memory)
  const reopened = second.open(hit.ino, O_RDWR, false)
  t.equal(
    errnoOf(() => get(second, reopened, 4096, 10)),
    'EIO',
    'poison survives the remount',
  )
  put(second, reopened, 4096, pattern(4096, 3))
  t.ok(get(second, reopened, 4096, 4096).equals(pattern(4096, 3)), 'a whole block heals')
  t.equal(second.administration.status().blocks.poisoned, 1)
  healthy(t, second)
  t.equal(second.administration.clearPoison('all'), 4096)
  t.equal(second.administration.status().blocks.poisoned, 0)
  healthy(t, second)
  await second.unmount()
  t.ok(device)
})

t.test('failure in free space is never allocated', async (t) => {
  const { fs } = scratchFilesystem(32 * MIB, 'cacheline')
  const result = fs.administration.inject({
    target: { kind: 'free' },
    length: 8192,
    method: 'soft',
  })
  t.equal(result.kind, 'free')
  const file = create(fs, 'fill')
  while (errnoOf(() => put(fs, file, fs.getattr(file.ino).size, pattern(MIB, 1))) === 'no error') {}
  const bad = result.offset
  for (const extent of fs.administration.getmap(file.ino).extents) {
    const end = extent.regionOffset + extent.length
    t.notOk(extent.regionOffset < bad + 8192 && bad < end, 'no extent has the bad blocks')
  }
  healthy(t, fs)
  await fs.unmount()
})

for (const structure of ['superblock', 'journal', 'checkpoint'] as const) {
  t.test(`failure in the ${structure} shuts down and loses nothing`, async (t) => {
    const { fs, memory } = scratchFilesystem(64 * MIB, 'cacheline')
    const file = create(fs, 'a')
    put(fs, file, 0, pattern(5000, 1))
    const target = { kind: 'metadata', structure } as const
    const result = fs.administration.inject({ target, length: 4096, method: 'soft' })
    t.equal(result.kind, 'metadata')
    t.equal(result.shutdown, true)
    t.equal(
      errnoOf(() => get(fs, file, 0, 1)),
      'EIO',
    )
    t.equal(
      errnoOf(() => fs.lookup(1, name('a'))),
      'EIO',
    )
    t.ok(fs.statfs().blocks > 0, 'statfs answers')
    t.equal(fs.getattr(1).ino, 1, 'so does getattr of the root')
    t.equal(fs.administration.status().state, 'shutdown')
    await fs.unmount()
    t.throws(() => remount(memory), /shut down.*fsck\.holdfast --repair/)
  })
}

t.test('a read gives places, not bytes', async (t) => {
  const { fs } = scratchFilesystem(64 * MIB, 'cacheline')
  const file = create(fs, 'a')
  put(fs, file, 8192, pattern(4096, 1))
  const pieces = createPieces(8)
  t.equal(fs.read(file, 0, 100_000, pieces), 12288)
  t.equal(pieces.count, 2)
  t.same([pieces.list[0], pieces.list[1], pieces.list[3]], [-1, 8192, 4096])
  await fs.unmount()
})
