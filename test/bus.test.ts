/** The dax bus: regions, seeds, instances. Tests are named after what drivers/dax/bus.c does. */
import { type ChildProcess, spawn } from 'node:child_process'
import { closeSync, openSync, truncateSync, writeFileSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import t, { type Test } from 'tap'
import { FileRegion } from '../src/bus/file-region.ts'
import { formatRegion, isRegion, loadRegion, storeRegion } from '../src/bus/region-copies.ts'
import { decodeRegion, encodeRegion, newRegion, type RegionState } from '../src/bus/region-state.ts'
import * as verbs from '../src/bus/verbs.ts'
import { parseName, targetsOf } from '../src/dax/name.ts'
import { SimulatedMemory } from '../src/dax/simulated-memory.ts'
import { MediaError } from '../src/media/errors.ts'
import { scratch } from './support/mounts.ts'
import { codeOf, M, makeRegion, openRegionFile, SIZE, USABLE } from './support/regions.ts'

function sizesOf(region: FileRegion): Record<string, number> {
  return Object.fromEntries(region.info().devices.map(({ name, size }) => [name, size]))
}

t.test('names: FILE#dax0.1, sets, and files that are called so', async (t) => {
  t.same(parseName('a#dax0.12'), { path: 'a', instance: { region: 0, id: 12 } })
  t.same(parseName('a#b'), { path: 'a#b' })
  t.same(parseName('a#dax0.01'), { path: 'a#dax0.01' })
  t.same(targetsOf('a,b#dax0.1'), ['a', 'b#dax0.1'])
  const odd = join(scratch(), 'x,y#dax0.1')
  writeFileSync(odd, '')
  t.same(parseName(odd), { path: odd })
  t.same(targetsOf(odd), [odd])
})

t.test('a dynamic region begins with instance 0, without memory and unbound', async (t) => {
  const region = openRegionFile(t)
  t.match(region.info(), {
    id: 0,
    static: false,
    size: USABLE,
    align: 2 * M,
    available_size: USABLE,
    seed: null,
    youngest: null,
    devices: [{ name: 'dax0.0', size: 0, enabled: false, mappings: [] }],
  })
})

t.test('create_store: ids are the lowest free ones, the first seed stays the seed', async (t) => {
  const region = openRegionFile(t)
  t.equal(region.createDevice(), 'dax0.1')
  t.equal(region.createDevice(), 'dax0.2')
  t.equal(region.createDevice(), 'dax0.3')
  t.match(region.info(), { seed: 'dax0.1', youngest: 'dax0.3' })
  region.deleteDevice(2)
  t.match(region.info(), { seed: 'dax0.1', youngest: 'dax0.3' }, 'another one was deleted')
  t.equal(region.createDevice(), 'dax0.2')
  region.deleteDevice(1)
  region.deleteDevice(2)
  t.match(region.info(), { seed: null, youngest: null }, 'the seed and the youngest are gone')
})

t.test('create_store: ENOSPC when nothing is available, EINVAL on a static region', async (t) => {
  const region = openRegionFile(t)
  region.resize(0, USABLE)
  t.equal(
    codeOf(() => region.createDevice()),
    'ENOSPC',
  )
  const fixed = openRegionFile(t, makeRegion({ isStatic: true }))
  t.match(fixed.info(), {
    static: true,
    available_size: 0,
    devices: [{ enabled: true, size: USABLE }],
  })
  t.equal(
    codeOf(() => fixed.createDevice()),
    'EINVAL',
  )
})

t.test('dax_bus_probe: ENXIO without memory; the seed moves on only after success', async (t) => {
  const region = openRegionFile(t)
  region.createDevice()
  region.createDevice()
  t.equal(
    codeOf(() => region.enable(1)),
    'ENXIO',
  )
  t.match(region.info(), { seed: 'dax0.1' }, 'a probe that failed')
  region.resize(2, 4 * M)
  region.enable(2)
  t.match(region.info(), { seed: 'dax0.1' }, 'another device was bound')
  region.resize(1, 4 * M)
  region.enable(1)
  t.match(region.info(), { seed: null, youngest: 'dax0.2' })
  t.equal(region.createDevice(), 'dax0.3')
  t.match(region.info(), { seed: 'dax0.3' })
  region.disable(1)
  t.match(region.info(), { seed: 'dax0.3' }, 'an unbound device is no seed again')
})

t.test('bind and unbind: EBUSY when bound, ENODEV when not or unknown', async (t) => {
  const region = openRegionFile(t)
  region.resize(0, 4 * M)
  t.equal(
    codeOf(() => region.disable(0)),
    'ENODEV',
  )
  region.enable(0)
  t.equal(
    codeOf(() => region.enable(0)),
    'EBUSY',
  )
  t.equal(
    codeOf(() => region.enable(7)),
    'ENODEV',
  )
  t.equal(
    codeOf(() => region.disable(7)),
    'ENODEV',
  )
})

t.test('size_store: EINVAL, then EBUSY, then nothing to do, then ENOSPC', async (t) => {
  const region = openRegionFile(t)
  region.resize(0, 4 * M)
  region.enable(0)
  t.equal(
    codeOf(() => region.resize(0, 4 * M + 4096)),
    'EINVAL',
    'off alignment, though bound',
  )
  t.equal(
    codeOf(() => region.resize(0, 4 * M)),
    'EBUSY',
    'bound, though nothing would change',
  )
  region.disable(0)
  const { sequence } = region.state()
  region.resize(0, 4 * M)
  t.equal(region.state().sequence, sequence, 'the same size writes nothing')
  t.equal(
    codeOf(() => region.resize(0, USABLE + 2 * M)),
    'ENOSPC',
  )
  t.equal(
    codeOf(() => region.resize(9, 2 * M)),
    'ENXIO',
  )
  region.resize(0, USABLE)
  t.match(region.info(), { available_size: 0 })
  region.resize(0, 0)
  t.match(region.info(), { available_size: USABLE, devices: [{ mappings: [] }] })
})

t.test('alloc_is_aligned: 4K devices come in 2M pieces all the same', async (t) => {
  const region = openRegionFile(t, makeRegion({ align: 4096 }))
  t.equal(
    codeOf(() => region.resize(0, M)),
    'EINVAL',
  )
  region.resize(0, 2 * M)
  t.match(region.info(), { align: 4096, devices: [{ align: 4096, size: 2 * M }] })
})

t.test('dev_dax_resize: gaps are filled from the start, in several ranges', async (t) => {
  const region = openRegionFile(t)
  for (const id of [1, 2]) {
    region.createDevice()
    region.resize(id, 8 * M)
  }
  region.createDevice()
  // 1 and 2 lie side by side: 1 cannot grow in place, so it gets a second range behind 2.
  region.resize(1, 12 * M)
  t.same(region.info().devices[1]?.mappings, [
    { page_offset: 0, start: 2 * M, length: 8 * M },
    { page_offset: 2048, start: 18 * M, length: 4 * M },
  ])
  // The last range has room behind it: it becomes longer.
  region.resize(1, 14 * M)
  t.equal(region.info().devices[1]?.mappings.length, 2)
  // A gap at the start of the region comes first, whosever it was.
  region.resize(2, 0)
  region.resize(3, 10 * M)
  t.same(region.info().devices[3]?.mappings, [
    { page_offset: 0, start: 10 * M, length: 8 * M },
    { page_offset: 2048, start: 24 * M, length: 2 * M },
  ])
  t.same(sizesOf(region), { 'dax0.0': 0, 'dax0.1': 14 * M, 'dax0.2': 0, 'dax0.3': 10 * M })
})

t.test('dev_dax_shrink: the last range goes first', async (t) => {
  const region = openRegionFile(t)
  region.createDevice()
  region.resize(0, 8 * M)
  region.resize(1, 8 * M)
  region.resize(0, 16 * M)
  region.resize(0, 12 * M)
  t.same(
    region.info().devices[0]?.mappings.map(({ length }) => length),
    [8 * M, 4 * M],
  )
  region.resize(0, 6 * M)
  t.same(region.info().devices[0]?.mappings, [{ page_offset: 0, start: 2 * M, length: 6 * M }])
})

t.test(
  'delete_store: EINVAL static, ENXIO unknown, EBUSY sized, bound or instance 0',
  async (t) => {
    const region = openRegionFile(t)
    t.equal(
      codeOf(() => region.deleteDevice(0)),
      'EBUSY',
      'instance 0 always stays',
    )
    t.equal(
      codeOf(() => region.deleteDevice(1)),
      'ENXIO',
    )
    region.createDevice()
    region.resize(1, 2 * M)
    t.equal(
      codeOf(() => region.deleteDevice(1)),
      'EBUSY',
      'it has memory',
    )
    region.enable(1)
    t.equal(
      codeOf(() => region.deleteDevice(1)),
      'EBUSY',
      'it is bound',
    )
    region.disable(1)
    region.resize(1, 0)
    region.deleteDevice(1)
    t.equal(
      codeOf(() => region.deleteDevice(1)),
      'ENXIO',
      'it is gone',
    )
    const fixed = openRegionFile(t, makeRegion({ isStatic: true }))
    t.equal(
      codeOf(() => fixed.deleteDevice(0)),
      'EINVAL',
    )
    t.equal(
      codeOf(() => fixed.deleteDevice(5)),
      'EINVAL',
    )
    t.equal(
      codeOf(() => fixed.resize(0, 0)),
      'EACCES',
      'the attribute is read-only',
    )
  },
)

t.test('align_store: EINVAL, EBUSY when bound, EINVAL for ranges that do not fit', async (t) => {
  const region = openRegionFile(t)
  t.equal(
    codeOf(() => region.setAlign(0, 8192)),
    'EINVAL',
  )
  region.resize(0, 4 * M)
  t.equal(
    codeOf(() => region.setAlign(0, 1 << 30)),
    'EINVAL',
  )
  region.setAlign(0, 4096)
  t.match(region.info(), { devices: [{ align: 4096 }] })
  region.enable(0)
  t.equal(
    codeOf(() => region.setAlign(0, 2 * M)),
    'EBUSY',
  )
})

t.test('mapping_store: these very bytes, ENXIO off alignment, ENOMEM when taken', async (t) => {
  const region = openRegionFile(t)
  region.createDevice()
  region.addMapping(0, { offset: 64 * M, length: 4 * M })
  region.addMapping(0, { offset: 32 * M, length: 2 * M })
  t.same(region.info().devices[0]?.mappings, [
    { page_offset: 0, start: 64 * M, length: 4 * M },
    { page_offset: 1024, start: 32 * M, length: 2 * M },
  ])
  t.equal(
    codeOf(() => region.addMapping(1, { offset: M, length: 2 * M })),
    'ENXIO',
  )
  t.equal(
    codeOf(() => region.addMapping(1, { offset: 4 * M, length: 4096 })),
    'ENXIO',
  )
  t.equal(
    codeOf(() => region.addMapping(1, { offset: 66 * M, length: 4 * M })),
    'ENOMEM',
  )
  t.equal(
    codeOf(() => region.addMapping(1, { offset: 0, length: 2 * M })),
    'ENOMEM',
    'the state',
  )
  t.equal(
    codeOf(() => region.addMapping(1, { offset: SIZE - 2 * M, length: 2 * M })),
    'ENOMEM',
  )
})

/** A crash copies the memory: a small one will do. */
const SIMULATED = 16 * M

/** Every state on the way from nothing to a region with some of everything. */
function history(): RegionState[] {
  const states = [newRegion(SIMULATED, { align: 2 * M, isStatic: false })]
  const step = (verb: (state: RegionState) => RegionState) => states.push(verb(states.at(-1)!))
  step(verbs.createDevice)
  step((state) => verbs.resize(state, 1, 2 * M))
  step((state) => verbs.enable(state, 1))
  step((state) => verbs.resize(state, 0, 2 * M))
  step(verbs.createDevice)
  step((state) => verbs.resize(state, 2, 4 * M))
  step((state) => verbs.disable(state, 1))
  step((state) => verbs.resize(state, 1, 0))
  step((state) => verbs.resize(state, 2, 8 * M))
  step((state) => verbs.deleteDevice(state, 1))
  return states
}

for (const mode of ['cacheline', 'page'] as const) {
  t.test(
    `a crash at any persist point leaves the old state or the new one (${mode})`,
    async (t) => {
      const states = history()
      let crashes = 0
      for (let at = 1; at < states.length; at++) {
        const memory = new SimulatedMemory(SIMULATED, mode)
        formatRegion(memory, states[0]!)
        for (const state of states.slice(1, at))
          storeRegion(memory, state, loadRegion(memory).offsets)
        const allowed = [states[at - 1]!, states[at]!].map((state) => JSON.stringify(state))
        memory.onPersist = () => {
          for (let seed = 0; seed < 6; seed++) {
            const random = randomBits(at * 100 + crashes++)
            const after = memory.crash(random, mode === 'cacheline' ? random : undefined)
            const found = loadRegion(after)
            t.ok(allowed.includes(JSON.stringify(found.state)), `step ${at}`)
            surviveAnother(t, after, random)
          }
        }
        storeRegion(memory, states[at]!, loadRegion(memory).offsets)
        memory.onPersist = undefined
        t.same(loadRegion(memory).state, states[at])
      }
      t.ok(crashes >= 100, `${crashes} crashes`)
    },
  )
}

/** What was seen after one crash is still there when the next change is cut short as well. */
function surviveAnother(t: Test, memory: SimulatedMemory, random: () => boolean): void {
  const { state, offsets } = loadRegion(memory)
  const next = { ...state, sequence: state.sequence + 1, youngest: undefined }
  const allowed = [state, next].map((one) => JSON.stringify(one))
  memory.onPersist = () => {
    const found = loadRegion(memory.crash(random)).state
    t.ok(allowed.includes(JSON.stringify(found)), 'a second crash')
  }
  storeRegion(memory, next, offsets)
}

/** Deterministic coin tosses. */
function randomBits(seed: number): () => boolean {
  let state = (seed + 1) * 2654435761
  return () => {
    state = (Math.imul(state, 1103515245) + 12345) >>> 0
    return (state & 0x10000) !== 0
  }
}

t.test('one copy in failing memory is enough, and a change does not need the other', async (t) => {
  const memory = new SimulatedMemory(SIMULATED)
  const state = newRegion(SIMULATED, { align: 2 * M, isStatic: false })
  formatRegion(memory, state)
  for (const place of [0, state.secondCopy]) {
    memory.poison(place, 4096)
    t.equal(isRegion(memory), true)
    const loaded = loadRegion(memory)
    const next = verbs.createDevice(loaded.state)
    storeRegion(memory, next, loaded.offsets)
    t.same(loadRegion(memory).state, next)
    memory.unpoison(place, 4096)
    storeRegion(memory, next, loadRegion(memory).offsets)
  }
  memory.poison(0, 4096)
  memory.poison(state.secondCopy, 4096)
  t.throws(() => loadRegion(memory), { name: 'MemoryFailure' })
  t.throws(() => storeRegion(memory, state, [0, state.secondCopy]), { name: 'MemoryFailure' })
})

t.test('a malformed region is refused by name, never followed', async (t) => {
  const whole = encodeRegion(history().at(-2)!)
  t.doesNotThrow(() => decodeRegion(whole, 0))
  for (let at = 0; at < whole.length; at += 61) {
    const bytes = Uint8Array.from(whole)
    bytes[at]! ^= 1 + (at % 255)
    t.throws(() => decodeRegion(bytes, 0), MediaError, `byte ${at}`)
  }
  const [state] = history() as [RegionState]
  const broken: Partial<RegionState>[] = [
    { align: 8192 },
    { start: 0 },
    { length: state.length + 2 * M },
    { instances: [] },
    { instances: [{ ...state.instances[0]!, id: 1 }] },
    { instances: [{ ...state.instances[0]!, enabled: true }] },
    { instances: [{ ...state.instances[0]!, ranges: [{ offset: 0, length: 2 * M }] }] },
    { instances: [{ ...state.instances[0]!, ranges: [{ offset: 4 * M, length: 4096 }] }] },
    {
      instances: [0, 1].map((id) => ({
        id,
        align: 4096,
        enabled: false,
        ranges: [{ offset: 4 * M, length: 2 * M }],
      })),
    },
    { seed: 3 },
  ]
  for (const change of broken) {
    const bytes = encodeRegion({ ...state, ...change })
    t.throws(() => decodeRegion(bytes, 0), MediaError, JSON.stringify(change))
  }
})

t.test('a copy of the region in the wrong place is not believed', async (t) => {
  const path = makeRegion()
  const region = openRegionFile(t, path)
  region.createDevice()
  const fd = openSync(path, 'r+')
  writeSync(fd, Buffer.alloc(16384), 0, 16384, 0)
  closeSync(fd)
  t.match(region.info(), { youngest: 'dax0.1' }, 'the second copy alone')
  truncateSync(path, SIZE * 2)
  const grown = new FileRegion(path)
  t.throws(() => grown.state(), MediaError, 'only the first copy knows where the second is')
  grown.close()
})

t.test('kill -9 at any moment: the next command finds every change that was told', async (t) => {
  const path = makeRegion()
  for (let round = 0; round < 5; round++) {
    const worker = startWorker(path)
    const told: string[] = []
    const lines = createInterface({ input: worker.stdout! })
    lines.on('line', (line) => told.push(line))
    await new Promise((resolve) => lines.once('line', resolve))
    await new Promise((resolve) => setTimeout(resolve, 3 + round * 2))
    const gone = new Promise((resolve) => worker.once('exit', resolve))
    worker.kill('SIGKILL')
    await gone
    await new Promise((resolve) => setImmediate(resolve))
    const region = new FileRegion(path)
    const { sequence } = region.state()
    const last = Number(told.at(-1))
    t.ok(sequence === last || sequence === last + 1, `told ${last}, found ${sequence}`)
    region.createDevice()
    region.deleteDevice(1)
    region.close()
  }
})

/** Changes the region for ever and tells the sequence of each change. */
function startWorker(path: string): ChildProcess {
  const code = `
    import { writeSync } from 'node:fs'
    import { FileRegion } from '${import.meta.resolve('../src/bus/file-region.ts')}'
    const region = new FileRegion('${path}')
    for (let i = 0; ; i++) {
      region.resize(0, (i % 7) * 2097152)
      writeSync(1, region.state().sequence + '\\n')
    }`
  const args = ['--import=tsx', '--input-type=module', '-e', code]
  return spawn(process.execPath, args, {
    cwd: join(import.meta.dirname, '..'),
    stdio: ['ignore', 'pipe', 'inherit'],
  })
}
