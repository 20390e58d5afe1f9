/** The lists of bad blocks below mapped devices and instances: each part has its own. */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { openInstance } from '../src/bus/instance.ts'
import type { SetKind } from '../src/bus/label-layout.ts'
import { openSet } from '../src/bus/open-set.ts'
import { piecesIn } from '../src/dax/badblocks.ts'
import { unitFailed, watchBusErrors } from '../src/dax/bus-errors.ts'
import { clearFault } from '../src/dax/clear.ts'
import { type DaxDevice, deviceOver } from '../src/dax/device.ts'
import { fsDaxGet, MF_ACTION_REQUIRED } from '../src/dax/holder.ts'
import { openRegion } from '../src/dax/region.ts'
import { ROOT, run, scratch } from './support/mounts.ts'
import { makeNvdimm, type Nvdimm } from './support/nvdimm.ts'
import { M, makeRegion, makeTargets, openRegionFile } from './support/regions.ts'

const PAGE = 4096
const UNIT = 2 * M
const TARGET = 36 * M
/** Of a target behind its label: byte 0 of its share. */
const START = UNIT

interface Built {
  nvdimms: Nvdimm[]
  open(): DaxDevice
}

/** Two targets, each in an NVDIMM of its own. */
function build(t: Test, kind: SetKind): Built {
  const paths = makeTargets(kind, [TARGET, TARGET])
  const sysfs = scratch()
  const nvdimms = paths.map((_, at) => makeNvdimm(sysfs, at, TARGET))
  const open = () => {
    const device = openSet(paths, (path) =>
      nvdimms[paths.indexOf(path)]!.as(openRegion(path, false)),
    )
    t.teardown(() => device.close())
    return device
  }
  return { nvdimms, open }
}

type Told = [offset: number, length: number, flags: number]

function claim(device: DaxDevice): Told[] {
  const told: Told[] = []
  fsDaxGet(
    device,
    { purpose: 'mount', mountpoint: '/mnt/set' },
    {
      notifyFailure(_device, offset, length, flags) {
        told.push([offset, length, flags])
        return 0
      },
    },
  )
  return told
}

/**
 * The third page of the second unit of the share of target 1, as the mapped device counts: linear
 * behind all of target 0, striped in the fourth chunk.
 */
const PLACE = {
  linear: TARGET - 2 * UNIT + UNIT + 2 * PAGE,
  striped: 3 * UNIT + 2 * PAGE,
} as const
const IN_TARGET = START + UNIT + 2 * PAGE

for (const kind of ['linear', 'striped'] as const) {
  const place = PLACE[kind]
  const unit = { offset: place - 2 * PAGE, length: UNIT }

  t.test(`${kind}: what the list of a target names at open is bad from the start`, async (t) => {
    const { nvdimms, open } = build(t, kind)
    writeFileSync(nvdimms[1]!.list, nvdimms[1]!.line(IN_TARGET) + nvdimms[1]!.line(0))
    const device = open()
    t.same(device.badRanges.list(), [{ offset: place, length: PAGE }], 'but for the label')
    const known = { name: 'MemoryFailure', offset: place, known: true }
    t.throws(() => device.memory.probe(unit.offset, UNIT), known)
  })

  t.test(`${kind}: a unit is narrowed by the list of its target, then translated`, async (t) => {
    const { nvdimms, open } = build(t, kind)
    const device = open()
    const told = claim(device)
    const unwatch = watchBusErrors(device)
    t.teardown(unwatch)
    // The page at the same place of the other target has not failed.
    writeFileSync(nvdimms[0]!.list, nvdimms[0]!.line(IN_TARGET + PAGE))
    writeFileSync(nvdimms[1]!.list, nvdimms[1]!.line(IN_TARGET))
    unitFailed(device, unit, MF_ACTION_REQUIRED)
    t.same(told, [[place, PAGE, MF_ACTION_REQUIRED]])
    const started = performance.now()
    // The same page is mapped a second time, by the target itself, and has a signal for that, too.
    unitFailed(device.below!.targets[1]!, { offset: START + UNIT, length: UNIT }, 0)
    unitFailed(device, unit, 0)
    t.equal(told.length, 1, 'one failure, told once')
    t.ok(performance.now() - started < 90, 'and not waited for')
    // A touch of memory that is not refused is another failure, and no list names it.
    unitFailed(device, unit, MF_ACTION_REQUIRED, true)
    t.same(told.slice(1), [[unit.offset, UNIT, MF_ACTION_REQUIRED]])
  })

  t.test(`${kind}: without a line in that list the whole unit is given up`, async (t) => {
    const { nvdimms, open } = build(t, kind)
    const device = open()
    const told = claim(device)
    const unwatch = watchBusErrors(device)
    t.teardown(unwatch)
    writeFileSync(nvdimms[0]!.list, nvdimms[0]!.line(IN_TARGET))
    unitFailed(device, unit, 0)
    t.same(told, [[unit.offset, UNIT, 0]])
    t.same(device.below!.targets[1]!.badRanges.list(), [{ offset: START + UNIT, length: UNIT }])
  })

  t.test(`${kind}: what a list names still is not cleared`, async (t) => {
    const { nvdimms, open } = build(t, kind)
    writeFileSync(nvdimms[1]!.list, nvdimms[1]!.line(IN_TARGET))
    const device = open()
    claim(device)
    device.memoryFailure(unit.offset, UNIT)
    t.same(clearFault(device, unit.offset, UNIT), [
      { offset: unit.offset, length: 2 * PAGE },
      { offset: place + PAGE, length: UNIT - 3 * PAGE },
    ])
    t.same(device.badRanges.list(), [{ offset: place, length: PAGE }])
  })
}

t.test('the lists are watched: a line of any target comes up, once', async (t) => {
  const root = process.getuid?.() === 0
  if (!root) return t.pass('a UTS namespace is for root')
  const paths = makeTargets('striped', [TARGET, TARGET])
  const watcher = [
    process.execPath,
    '--import=tsx',
    join(ROOT, 'test/support/badblocks-watcher.ts'),
  ]
  const { status, stdout, stderr } = await run(
    ['unshare', '--uts', ...watcher, scratch(), ...paths],
    { timeoutMs: 60_000 },
  )
  t.equal(status, 0, stderr)
  // Chunk 0 of target 1 is chunk 1 of the device, chunks 1 and 2 of target 0 are its 2 and 4.
  t.same(JSON.parse(stdout), [
    [2 * M + PAGE, PAGE],
    [4 * M + PAGE, PAGE],
    [8 * M, PAGE],
  ])
})

t.test('pieces of a node lie where the node does', async (t) => {
  const node = [
    { physical: 100 * M, offset: 0, length: 8 * M },
    { physical: 500 * M, offset: 8 * M, length: 8 * M },
  ]
  const pieces = [
    { offset: 12 * M, length: 2 * M },
    { offset: 6 * M, length: 4 * M },
  ]
  t.same(piecesIn(node, pieces), [
    { physical: 504 * M, offset: 0, length: 2 * M },
    { physical: 106 * M, offset: 2 * M, length: 2 * M },
    { physical: 500 * M, offset: 4 * M, length: 2 * M },
  ])
})

t.test('an instance in a device-dax node: the list of the node, counted as its own', async (t) => {
  const path = makeRegion({ size: 128 * M })
  const region = openRegionFile(t, path)
  region.createDevice()
  // Instance 1 gets what lies behind instance 0, and then what that gives back.
  region.resize(0, 8 * M)
  region.resize(1, 4 * M)
  region.resize(0, 0)
  region.resize(1, 36 * M)
  region.enable(1)
  const [first, second] = region.info().devices[1]!.mappings
  t.match([first?.start, second?.start], [10 * M, 2 * M], 'two ranges, out of order')
  const nvdimm = makeNvdimm(scratch(), 7, 128 * M)
  // In its first range, in its second, and where nobody has anything.
  const places = [10 * M + PAGE, 2 * M + UNIT, 100 * M]
  writeFileSync(nvdimm.list, places.map((place) => nvdimm.line(place)).join(''))
  const device = deviceOver(nvdimm.as(openInstance(path, { region: 0, id: 1 }, false)))
  t.teardown(() => device.close())
  t.equal(device.key, 'dax-4095-7-dax0.1')
  const own = [PAGE, first!.length + UNIT].map((offset) => ({ offset, length: PAGE }))
  t.same(device.badRanges.list(), own)
  const told = claim(device)
  const unwatch = watchBusErrors(device)
  t.teardown(unwatch)
  writeFileSync(nvdimm.list, nvdimm.line(12 * M + 3 * PAGE))
  unitFailed(device, { offset: 2 * M, length: UNIT }, 0)
  t.same(told, [[2 * M + 3 * PAGE, PAGE, 0]])
})
