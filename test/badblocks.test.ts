/** The list of bad blocks, and what it makes of reports that name more than has failed. */
import { spawn } from 'node:child_process'
import { closeSync, openSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { format } from '../mkfs/format.ts'
import { Badblocks, parseBadblocks, toDevice } from '../src/dax/badblocks.ts'
import { type DaxDevice, openDevice, openSimulated } from '../src/dax/device.ts'
import { FailureReports } from '../src/dax/failure-reports.ts'
import { injectFault } from '../src/dax/fault.ts'
import { fsDaxGet } from '../src/dax/holder.ts'
import { MemoryFailure } from '../src/dax/memory.ts'
import { SimulatedMemory } from '../src/dax/simulated-memory.ts'
import { checkIndex } from '../src/fs/check/check.ts'
import { Filesystem } from '../src/fs/filesystem.ts'
import { native } from '../src/native/binding.ts'
import { silent } from './support/core.ts'

const MIB = 2 ** 20
const UNIT = 2 * MIB
const PAGE = 4096
/** Physical address of the region, and of the device in it: behind an info block of 2 MiB. */
const REGION = 0x100000000
const DEVICE = REGION + UNIT

/** A sysfs with one device in one region, whose list can be rewritten. */
function madeUpSysfs(test: Pick<typeof t, 'testdir' | 'fixture' | 'teardown'>) {
  const root = test.testdir({
    devices: {
      ndbus3: {
        region0: {
          resource: `0x${REGION.toString(16)}\n`,
          badblocks: '',
          'dax0.0': {
            mapping0: {
              start: `0x${DEVICE.toString(16)}\n`,
              end: `0x${(DEVICE + 64 * MIB - 1).toString(16)}\n`,
              page_offset: '0x0\n',
            },
          },
        },
      },
    },
    dev: { char: { '252:0': test.fixture('symlink', '../../devices/ndbus3/region0/dax0.0') } },
  })
  const file = join(root, 'devices/ndbus3/region0/badblocks')
  const badblocks = Badblocks.open('dax-252-0', root)!
  test.teardown(() => badblocks.close())
  return { root, file, badblocks }
}

/** A line of the list for a page of the device. */
const line = (offset: number) => `${(DEVICE + offset - REGION) / 512} 8\n`

interface Told {
  device: DaxDevice
  /** Offset and length of each failure the holder was told. */
  calls: [number, number][]
}

function told(): Told {
  const device = openSimulated(new SimulatedMemory(64 * MIB))
  const calls: [number, number][] = []
  const notifyFailure = (_device: DaxDevice, offset: number, length: number) => {
    calls.push([offset, length])
    return 0
  }
  fsDaxGet(device, { purpose: 'mount' }, { notifyFailure })
  return { device, calls }
}

t.test('lines of the list are sectors', async (t) => {
  t.same(parseBadblocks(''), [])
  t.same(parseBadblocks('45080 8\n100 1\n'), [
    { offset: 45080 * 512, length: 4096 },
    { offset: 51200, length: 512 },
  ])
  t.same(parseBadblocks('nonsense\n1\n-1 8\n'), [])
})

t.test('physical addresses become whole pages of the device', async (t) => {
  const ranges = [
    { physical: 10 * MIB, offset: 0, length: 4 * MIB },
    { physical: 100 * MIB, offset: 4 * MIB, length: 2 * MIB },
  ]
  t.same(toDevice(10 * MIB + 5000, 10, ranges), [{ offset: PAGE, length: PAGE }])
  t.same(toDevice(100 * MIB + PAGE, PAGE, ranges), [{ offset: 4 * MIB + PAGE, length: PAGE }])
  t.same(toDevice(50 * MIB, MIB, ranges), [], 'of another device')
  t.same(toDevice(10 * MIB - 512, 1024, ranges), [{ offset: 0, length: PAGE }], 'cut to ours')
  t.same(toDevice(0, 200 * MIB, ranges), [
    { offset: 0, length: 4 * MIB },
    { offset: 4 * MIB, length: 2 * MIB },
  ])
})

t.test('the list of the region a device is in', async (t) => {
  const { root, file, badblocks } = madeUpSysfs(t)
  t.same(badblocks.read(), [])
  writeFileSync(file, `${line(3 * MIB)}0 8\n${line(3 * MIB + PAGE)}`)
  t.same(badblocks.read(), [{ offset: 3 * MIB, length: 2 * PAGE }], 'the info block is not ours')
  t.equal(badblocks.physical(MIB), DEVICE + MIB)
  t.equal(badblocks.physical(64 * MIB), undefined)
  t.equal(badblocks.control, '/dev/ndctl3')
  t.equal(Badblocks.open('dax-252-1', root), undefined, 'no such device')
  t.equal(Badblocks.open('file-8-1', root), undefined)
  t.equal(Badblocks.open(undefined, root), undefined)
})

t.test('a signal for 2 MiB is narrowed to the pages in the list', async (t) => {
  const { file, badblocks } = madeUpSysfs(t)
  const { device, calls } = told()
  const reports = new FailureReports(device, badblocks)
  writeFileSync(file, line(UNIT + 7 * PAGE) + line(9 * MIB))
  reports.unit({ offset: UNIT, length: UNIT }, 0)
  t.same(calls, [[UNIT + 7 * PAGE, PAGE]], 'and only to those in the unit')
  reports.listed()
  t.same(calls.slice(1), [[9 * MIB, PAGE]], 'what the signal has told is no news')
})

t.test('the list may come a moment after the signal', async (t) => {
  const { file, badblocks } = madeUpSysfs(t)
  const { device, calls } = told()
  const reports = new FailureReports(device, badblocks)
  const writer = spawn('sh', ['-c', 'sleep 0.03; printf "%s" "$0" > "$1"', line(UNIT), file])
  await new Promise((resolve) => writer.once('spawn', resolve))
  reports.unit({ offset: UNIT, length: UNIT }, 0)
  t.same(calls, [[UNIT, PAGE]])
})

t.test('the list may come before the signal: one failure', async (t) => {
  const { file, badblocks } = madeUpSysfs(t)
  const { device, calls } = told()
  const reports = new FailureReports(device, badblocks)
  writeFileSync(file, line(UNIT + PAGE))
  reports.listed()
  reports.unit({ offset: UNIT, length: UNIT }, 0)
  reports.listed()
  t.same(calls, [[UNIT + PAGE, PAGE]])
})

t.test('the whole unit is given up when no list names a page of it', async (t) => {
  const { badblocks } = madeUpSysfs(t)
  for (const list of [undefined, badblocks]) {
    const { device, calls } = told()
    const reports = new FailureReports(device, list)
    const started = performance.now()
    reports.unit({ offset: UNIT, length: UNIT }, 0)
    t.same(calls, [[UNIT, UNIT]])
    t.ok(performance.now() - started < 1000, 'after a moment')
    reports.unit({ offset: UNIT, length: UNIT }, 0)
    t.equal(calls.length, 1, 'the same again is no news')
  }
})

t.test('a new page of a unit whose list is old', async (t) => {
  const { file, badblocks } = madeUpSysfs(t)
  const { device, calls } = told()
  const reports = new FailureReports(device, badblocks)
  writeFileSync(file, line(UNIT))
  // Known since long ago, so the next signal must be about something else.
  device.badRanges.add(UNIT, PAGE)
  reports.unit({ offset: UNIT, length: UNIT }, 0)
  t.same(calls, [[UNIT, UNIT]])
})

t.test('what the addon refuses', async (t) => {
  const file = join(t.testdir({ plain: 'x' }), 'plain')
  const fd = openSync(file, 'r')
  t.teardown(() => closeSync(fd))
  t.throws(() => native.watchAttribute(-1, () => {}), { code: 'EBADF' })
  t.throws(() => native.watchAttribute(fd, () => {}), { code: 'EPERM' }, 'no file to wait for')
  t.throws(() => native.clearError(fd, 0, PAGE), { code: 'ENOTTY' }, 'no NVDIMM bus')
  t.throws(() => native.hwpoison(255, 0, PAGE), RangeError)
  const region = join(t.testdir({ region: Buffer.alloc(MIB) }), 'region')
  const device = openDevice(region)
  t.teardown(() => device.close())
  t.throws(() => native.hwpoison(device.memory.mapId!, MIB, PAGE), RangeError, 'behind the end')
  t.throws(() => native.hwpoison(device.memory.mapId!, 0, 0), RangeError, 'nothing')
  injectFault(device, 5 * PAGE, PAGE)
  t.throws(() => device.memory.probe(0, MIB), new MemoryFailure(5 * PAGE))
  t.equal(native.failedUnit(), PAGE, 'an ordinary fault is exact')
})

const REGION_SIZE = 64 * MIB

function formatted(bad: { offset: number; length: number }[]): SimulatedMemory {
  const memory = new SimulatedMemory(REGION_SIZE)
  format(memory, { label: '', uid: 0, gid: 0, now: 1_700_000_000, bad })
  return memory
}

function mount(memory: SimulatedMemory, bad: { offset: number; length: number }[]): Filesystem {
  const device = openSimulated(memory)
  for (const { offset, length } of bad) device.badRanges.add(offset, length)
  fsDaxGet(device, { purpose: 'mount' })
  const options = {
    readOnly: false,
    commitSeconds: 1,
    onFailure: 'handles',
    logger: silent,
  } as const
  return Filesystem.mount(device, options)
}

t.test('bad blocks at mkfs are left out', async (t) => {
  const empty = mount(formatted([]), [])
  const { dataStartBlock, journal } = empty.volume.geometry
  const bad = [
    { offset: journal[0].offset, length: PAGE },
    { offset: dataStartBlock * PAGE, length: 2 * PAGE },
    { offset: 20 * MIB, length: PAGE },
  ]
  const fs = mount(formatted(bad), bad)
  const { index, geometry, superblock, allocator } = fs.volume
  t.same(fs.administration.status().failures, [], 'no news')
  t.equal(fs.administration.status().blocks.poisoned, 4)
  t.equal(allocator.freeBlocks, empty.volume.allocator.freeBlocks - 3, 'the journal is not free')
  t.same(checkIndex(index.database, geometry, superblock), [])
  for (const slot of superblock.slots.flat()) t.not(slot.block, dataStartBlock)
  const handle = fs.create(1, Buffer.from('a'), 0o644, 2, { uid: 0, gid: 0, pid: 1, umask: 0 })
  t.ok(handle, 'the journal takes records')
})

t.test('mkfs refuses when a superblock has no memory', async (t) => {
  for (const offset of [0, REGION_SIZE - PAGE]) {
    t.throws(() => formatted([{ offset, length: PAGE }]), { message: /superblock.*bad/ })
  }
})

t.test('what went bad before the mount has the same consequences', async (t) => {
  const data = [{ offset: 20 * MIB, length: PAGE }]
  const memory = formatted([])
  const fs = mount(memory, data)
  const { failures, blocks } = fs.administration.status()
  t.match(failures, [{ offset: 20 * MIB, length: PAGE, action: 'quarantined' }])
  t.equal(blocks.poisoned, 1)
  await fs.unmount()
  const again = mount(memory, data)
  t.same(again.administration.status().failures, [], 'told once')
  await again.unmount()
  const remedy = { message: /fsck\.holdfast --repair/ }
  t.throws(() => mount(memory, [{ offset: 0, length: PAGE }]), remedy)
})
