/** The list of bad blocks, and what it makes of reports that name more than has failed. */
import { spawn } from 'node:child_process'
import { closeSync, openSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { format } from '../mkfs/format.ts'
import { requireUsableSet } from '../mkfs/mapped.ts'
import { formatRegion } from '../src/bus/region-copies.ts'
import { newRegion } from '../src/bus/region-state.ts'
import type { ByteRange } from '../src/dax/bad-ranges.ts'
import { Badblocks, parseBadblocks, toDevice } from '../src/dax/badblocks.ts'
import { type DaxDevice, openDevice, openSimulated } from '../src/dax/device.ts'
import { FailureReports } from '../src/dax/failure-reports.ts'
import { injectFault } from '../src/dax/fault.ts'
import { fsDaxGet } from '../src/dax/holder.ts'
import { MemoryFailure } from '../src/dax/memory.ts'
import { SimulatedMemory } from '../src/dax/simulated-memory.ts'
import { checkIndex } from '../src/fs/check/check.ts'
import { Filesystem } from '../src/fs/filesystem.ts'
import { geometryFor } from '../src/media/geometry.ts'
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

const OPTIONS = { label: '', uid: 0, gid: 0, now: 1_700_000_000 }

function formatted(bad: ByteRange[]): SimulatedMemory {
  const memory = new SimulatedMemory(REGION_SIZE)
  format(memory, { ...OPTIONS, bad })
  return memory
}

function mount(memory: SimulatedMemory, bad: readonly ByteRange[]): Filesystem {
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
  const handle = fs.create(1, Buffer.from('a'), 0o644, 2, CALLER)
  t.ok(handle, 'the journal takes records')
})

t.test('mkfs refuses when a superblock has no memory', async (t) => {
  for (const offset of [0, REGION_SIZE - PAGE]) {
    t.throws(() => formatted([{ offset, length: PAGE }]), { message: /superblock.*bad/ })
  }
})

const CALLER = { uid: 0, gid: 0, pid: 1, umask: 0 }
const HALVES = geometryFor(REGION_SIZE).journal

/** One bad page in each eighth of a half: no room in it for the longest record. */
const holes = ({ offset, length }: ByteRange): ByteRange[] =>
  Array.from({ length: 8 }, (_, at) => ({ offset: offset + (at * length) / 8, length: PAGE }))

t.test('mkfs leaves out a half of the journal that is all bad, or full of holes', async (t) => {
  for (const half of HALVES) {
    for (const bad of [[half], holes(half)]) {
      const memory = new SimulatedMemory(REGION_SIZE)
      for (const { offset, length } of bad) memory.poison(offset, length)
      format(memory, { ...OPTIONS, bad })
      const fs = mount(memory, bad)
      t.same(fs.administration.status().failures, [], 'no news')
      for (let at = 0; at < 300; at++) fs.mkdir(1, Buffer.from(`${at}`), 0o755, CALLER)
      await fs.unmount()
      const again = mount(memory, bad)
      t.equal(again.lookup(1, Buffer.from('299')).nlink, 2)
      await again.unmount()
    }
  }
})

t.test('mkfs lists more bad parts of the journal than a superblock can', async (t) => {
  const [first, second] = HALVES
  const bad = Array.from({ length: 60 }, (_, at) => {
    return { offset: first.offset + at * 3 * PAGE, length: PAGE }
  })
  bad.push({ offset: second.offset + second.length - PAGE, length: PAGE })
  const memory = new SimulatedMemory(REGION_SIZE)
  for (const { offset, length } of bad) memory.poison(offset, length)
  const { poison } = format(memory, { ...OPTIONS, bad })
  t.equal(poison.length, 16)
  const isListed = ({ offset }: ByteRange) =>
    poison.some(({ block, blocks }) => block * PAGE <= offset && offset < (block + blocks) * PAGE)
  t.ok(bad.every(isListed))
  t.same(poison.at(-1), { block: bad.at(-1)!.offset / PAGE, blocks: 1 }, 'far from the others')
  const fs = mount(memory, bad)
  t.equal(fs.administration.status().blocks.poisoned, bad.length, 'good blocks are not bad')
  await fs.unmount()
})

t.test('mkfs stays inside a half of the journal that is all bad', async (t) => {
  const memory = new SimulatedMemory(REGION_SIZE)
  const behind = HALVES[1].offset + HALVES[1].length
  memory.write(behind, Buffer.alloc(UNIT, 0xa5), 0, UNIT)
  // The first unit of data is not used for the image then.
  const bad = [HALVES[1], { offset: behind, length: PAGE }]
  for (const { offset, length } of bad) memory.poison(offset, length)
  format(memory, { ...OPTIONS, bad })
  const rest = Buffer.alloc(UNIT - PAGE)
  memory.read(behind + PAGE, rest, 0, rest.length)
  t.ok(rest.equals(Buffer.alloc(rest.length, 0xa5)))
})

t.test('mkfs refuses when neither half of the journal takes records, and changes nothing', (t) => {
  const contents: ((memory: SimulatedMemory) => void)[] = [
    (memory) => format(memory, OPTIONS),
    (memory) => formatRegion(memory, newRegion(REGION_SIZE, { align: UNIT, isStatic: false })),
  ]
  for (const [one, other] of [HALVES, HALVES.map(holes), [HALVES[0], holes(HALVES[1])]]) {
    for (const fill of contents) {
      const memory = new SimulatedMemory(REGION_SIZE)
      fill(memory)
      const before = bytesOf(memory)
      const bad = [one, other].flat() as ByteRange[]
      t.throws(() => format(memory, { ...OPTIONS, bad }), {
        structure: 'journal',
        message:
          /^journal at region offset 2097152: .* is bad in both halves.*: use another region$/,
      })
      t.ok(bytesOf(memory).equals(before), 'byte for byte')
    }
  }
  t.end()
})

t.test('... nor labels regions for a mapped device that could hold no filesystem', async (t) => {
  const share = REGION_SIZE - 2 * UNIT
  const devices = [0, 1].map(() => openSimulated(new SimulatedMemory(REGION_SIZE)))
  const targets = devices.map(() => ({ uuid: '', length: share }))
  const linear = { set: '', kind: 'linear', chunk: 0, targets } as const
  const striped = { set: '', kind: 'striped', chunk: UNIT, targets } as const
  devices[0]!.badRanges.add(0, UNIT)
  requireUsableSet(linear, devices, UNIT)
  // The second unit of the mapped device: the second of a share, or the first of the other one.
  devices[0]!.badRanges.add(2 * UNIT, UNIT)
  requireUsableSet(linear, devices, UNIT)
  devices[0]!.badRanges.add(3 * UNIT, UNIT)
  t.throws(() => requireUsableSet(linear, devices, UNIT), { message: /^journal .*both halves/ })
  requireUsableSet(striped, devices, UNIT)
  devices[1]!.badRanges.add(UNIT, UNIT)
  t.throws(() => requireUsableSet(striped, devices, UNIT), { message: /^journal .*both halves/ })
})

function bytesOf(memory: SimulatedMemory): Buffer {
  const bytes = Buffer.alloc(memory.size)
  memory.read(0, bytes, 0, bytes.length)
  return bytes
}

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
