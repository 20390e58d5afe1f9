/** The list of bad blocks of the disk that a plain file lies on. The file is real, the list is not. */
import { closeSync, fstatSync, openSync, truncateSync, writeFileSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { Badblocks, piecesIn } from '../src/dax/badblocks.ts'
import { diskBelow, rangesOnDisk } from '../src/dax/file-extents.ts'
import { deviceNumber, openRegion } from '../src/dax/region.ts'
import { scratch } from './support/mounts.ts'

const MIB = 2 ** 20
const PAGE = 4096
/** As a file is mapped on a filesystem that is mounted with dax. */
const DAX = { durableStores: true }
/** Sectors before the partition that the file is on. */
const START = 2048

/** A file with a hole in its midst, and where its bytes are on the disk that it is really on. */
function madeFile() {
  const directory = scratch()
  const path = join(directory, 'region')
  const fd = openSync(path, 'w+')
  writeSync(fd, Buffer.alloc(MIB, 1), 0, MIB, 0)
  writeSync(fd, Buffer.alloc(MIB, 2), 0, MIB, 3 * MIB)
  const { dev } = fstatSync(fd, { bigint: true })
  return { path, fd, directory, ...deviceNumber(dev) }
}

/** A sysfs in which that filesystem is on the first partition of a disk with a list. */
function madeUpSysfs(test: Pick<typeof t, 'testdir' | 'fixture'>, node: string, list: string) {
  return test.testdir({
    devices: { pmem0: { badblocks: list, pmem0p1: { start: `${START}\n` } } },
    dev: { block: { [node]: test.fixture('symlink', '../../devices/pmem0/pmem0p1') } },
  })
}

t.test('bad sectors of the disk are bad pages of the file', async (t) => {
  const { path, fd, major, minor } = madeFile()
  const root = madeUpSysfs(t, `${major}:${minor}`, '')
  const disk = diskBelow(fd, root)!
  t.match(disk, { start: START * 512 })
  const ranges = rangesOnDisk(fd, disk)
  closeSync(fd)
  if (ranges.length === 0) {
    t.pass('this filesystem does not say where its files are')
    return
  }
  const placeOf = (offset: number) => {
    const range = ranges.find((r) => offset >= r.offset && offset < r.offset + r.length)!
    return range.physical + offset - range.offset
  }
  t.equal(
    ranges.some(({ offset, length }) => offset < 2 * MIB && offset + length > 2 * MIB),
    false,
    'a hole has no place',
  )
  const bad = [5 * PAGE, 3 * MIB + 7 * PAGE]
  const lines = bad.map((offset) => `${placeOf(offset) / 512 + 3} 1\n`)
  const elsewhere = `${Math.max(...ranges.map((r) => r.physical + r.length)) / 512} 8\n`
  writeFileSync(join(root, 'devices/pmem0/badblocks'), lines.join('') + elsewhere)
  const region = openRegion(path, false, root)
  const badblocks = Badblocks.of(region, DAX)!
  t.same(
    badblocks.read(),
    bad.map((offset) => ({ offset, length: PAGE })),
  )
  t.equal(
    Badblocks.of(region, { durableStores: false }),
    undefined,
    'with a page cache between, it is not the memory',
  )
  t.equal(badblocks.physical(5 * PAGE), undefined, 'a place on a disk is no physical address')
  badblocks.close()
  const pieces = [
    { fd: region.fd, offset: 3 * MIB, length: MIB },
    { fd: region.fd, offset: 0, length: MIB },
  ]
  const part = Badblocks.of({ ...region, pieces }, DAX)!
  t.same(
    part.read(),
    [
      { offset: 7 * PAGE, length: PAGE },
      { offset: MIB + 5 * PAGE, length: PAGE },
    ],
    'an instance in the file counts as it does itself',
  )
  part.close()
  closeSync(region.fd)
})

t.test('a file that is cut and grows lies where it lies now', async (t) => {
  const { path, fd, major, minor } = madeFile()
  const root = madeUpSysfs(t, `${major}:${minor}`, '0 99999999999\n')
  const region = openRegion(path, false, root)
  const badblocks = Badblocks.of(region, DAX)!
  if (badblocks.read().length > 0) {
    t.same(badblocks.read(), [
      { offset: 0, length: MIB },
      { offset: 3 * MIB, length: MIB },
    ])
    truncateSync(path, MIB)
    t.same(badblocks.read(), [{ offset: 0, length: MIB }])
  }
  badblocks.close()
  for (const open of [fd, region.fd]) closeSync(open)
})

t.test('no disk, no list: nothing is listed', async (t) => {
  const { path, fd, major, minor } = madeFile()
  closeSync(fd)
  for (const root of [
    t.testdir({}),
    t.testdir({
      devices: { sda: { sda1: { start: '1\n' } } },
      dev: { block: { [`${major}:${minor}`]: t.fixture('symlink', '../../devices/sda/sda1') } },
    }),
  ]) {
    const region = openRegion(path, false, root)
    t.equal(Badblocks.of(region, DAX), undefined)
    closeSync(region.fd)
  }
  t.same(piecesIn([], [{ offset: 0, length: PAGE }]), [])
})
