/** A region of the kernel's dax bus, driven through a tree of files that looks like sysfs. */
import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { createServer } from 'node:net'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { listRegions, openDaxRegion, splitDevice } from '../src/bus/find-region.ts'
import { SysfsRegion } from '../src/bus/sysfs-region.ts'
import { scratch } from './support/mounts.ts'
import { codeOf, M, makeRegion } from './support/regions.ts'

/** A tree of files that looks like sysfs with one dynamic region. */
function makeSysfs(): { sysfs: string; parent: string } {
  const sysfs = join(scratch(), 'sys')
  const parent = join(sysfs, 'devices/platform/hmem.0')
  const files: Record<string, string> = {
    'dax_region/id': '3\n',
    'dax_region/size': `${64 * M}\n`,
    'dax_region/align': `${2 * M}\n`,
    'dax_region/available_size': `${60 * M}\n`,
    'dax_region/seed': 'dax3.1\n',
    'dax_region/create': '',
    'dax_region/delete': '',
    'dax3.0/size': `${4 * M}\n`,
    'dax3.0/align': `${2 * M}\n`,
    'dax3.0/mapping0/start': '0x240000000\n',
    'dax3.0/mapping0/end': '0x2403fffff\n',
    'dax3.0/mapping0/page_offset': '0x0\n',
    'dax3.1/size': '',
    'dax3.1/align': '',
    'dax3.1/mapping': '',
  }
  for (const [name, text] of Object.entries(files)) {
    mkdirSync(join(parent, name, '..'), { recursive: true })
    writeFileSync(join(parent, name), text)
  }
  const drivers = join(sysfs, 'bus/dax/drivers/device_dax')
  mkdirSync(drivers, { recursive: true })
  for (const name of ['bind', 'unbind']) writeFileSync(join(drivers, name), '')
  mkdirSync(join(sysfs, 'bus/dax/devices'))
  for (const name of ['dax3.0', 'dax3.1']) {
    symlinkSync(join(parent, name), join(sysfs, 'bus/dax/devices', name))
  }
  symlinkSync(drivers, join(parent, 'dax3.0/driver'))
  return { sysfs, parent }
}

t.test('sysfs: what is read of a region of the kernel', async (t) => {
  const { sysfs } = makeSysfs()
  t.equal(SysfsRegion.all(sysfs).length, 1)
  t.same(SysfsRegion.all(join(sysfs, 'nothing')), [])
  t.equal(
    codeOf(() => SysfsRegion.open(4, sysfs)),
    'ENODEV',
  )
  t.match(SysfsRegion.open(3, sysfs).info(), {
    region: 'dax3',
    static: false,
    size: 64 * M,
    available_size: 60 * M,
    seed: 'dax3.1',
    youngest: null,
    devices: [
      {
        name: 'dax3.0',
        driver: 'device_dax',
        enabled: true,
        mappings: [{ page_offset: 0, start: 0x240000000, length: 4 * M }],
      },
      { name: 'dax3.1', driver: null, size: 0 },
    ],
  })
})

t.test('sysfs: what is written to its attributes', async (t) => {
  const { sysfs, parent } = makeSysfs()
  const region = SysfsRegion.open(3, sysfs)
  const written = (name: string) => readFileSync(join(parent, name), 'utf8')
  region.createDevice()
  t.equal(written('dax_region/create'), '1')
  region.resize(1, 6 * M)
  t.equal(written('dax3.1/size'), `${6 * M}`)
  region.setAlign(1, 4096)
  t.equal(written('dax3.1/align'), '4096')
  region.addMapping(1, { offset: 0x240400000, length: 4 * M })
  t.equal(written('dax3.1/mapping'), '240400000-2407fffff')
  region.enable(1)
  t.equal(readFileSync(join(sysfs, 'bus/dax/drivers/device_dax/bind'), 'utf8'), 'dax3.1')
  region.disable(0)
  t.equal(readFileSync(join(sysfs, 'bus/dax/drivers/device_dax/unbind'), 'utf8'), 'dax3.0')
  region.deleteDevice(1)
  t.equal(written('dax_region/delete'), 'dax3.1')
  t.equal(
    codeOf(() => region.disable(1)),
    'ENODEV',
    'no driver',
  )
  t.equal(
    codeOf(() => region.resize(8, 2 * M)),
    'ENXIO',
    'no such device',
  )
})

t.test('sysfs: a static region has one device, and nothing of it can be changed', async (t) => {
  const { sysfs, parent } = makeSysfs()
  // What drivers/dax/bus.c does not show of such a region.
  for (const name of ['available_size', 'seed', 'create', 'delete']) {
    rmSync(join(parent, 'dax_region', name))
  }
  const region = SysfsRegion.open(3, sysfs)
  t.match(region.info(), { static: true, available_size: 0, seed: null, youngest: null })
  const before = readFileSync(join(parent, 'dax3.0/size'), 'utf8')
  const refused: [string, () => unknown][] = [
    ['EINVAL', () => region.createDevice()],
    ['EINVAL', () => region.deleteDevice(0)],
    ['EINVAL', () => region.addMapping(0, { offset: 0, length: 2 * M })],
    ['EACCES', () => region.resize(0, 0)],
    ['EACCES', () => region.setAlign(0, 4096)],
  ]
  for (const [code, verb] of refused) t.equal(codeOf(verb), code, `${verb}`)
  t.equal(readFileSync(join(parent, 'dax3.0/size'), 'utf8'), before)
  region.disable(0)
  t.equal(readFileSync(join(sysfs, 'bus/dax/drivers/device_dax/unbind'), 'utf8'), 'dax3.0')
})

/** Files that refuse what is written to them, as attributes do; each with an errno of the kernel. */
async function refusals(t: Test): Promise<Record<string, string>> {
  const socket = join(scratch(), 'socket')
  const server = createServer().listen(socket)
  await new Promise((resolve) => server.once('listening', resolve))
  t.teardown(() => server.close())
  return {
    ENOSPC: '/dev/full',
    // A number far too large, or no number at all.
    EINVAL: '/proc/self/oom_score_adj',
    ENXIO: socket,
    ENXIO_gone: join(scratch(), 'nowhere'),
  }
}

t.test('sysfs: the errno of the kernel comes through, with a sentence of ours', async (t) => {
  const sources = await refusals(t)
  const sentences: [string, string, (region: SysfsRegion) => unknown, RegExp][] = [
    ['dax_region/create', 'ENOSPC', (region) => region.createDevice(), /no memory left/],
    ['dax3.1/size', 'ENOSPC', (region) => region.resize(1, 2 * M), /not have so much memory left/],
    ['dax3.1/size', 'EINVAL', (region) => region.resize(1, 2 * M), /off the alignment/],
    ['dax3.1/size', 'ENXIO_gone', (region) => region.resize(1, 2 * M), /no such device/],
    ['dax3.1/align', 'EINVAL', (region) => region.setAlign(1, 8192), /no such alignment/],
    ['dax3.1/align', 'ENXIO_gone', (region) => region.setAlign(1, 4096), /no such device/],
    ['dax3.1/mapping', 'ENXIO', (region) => region.addMapping(1, RANGE), /range is off/],
    ['dax3.1/mapping', 'ENXIO_gone', (region) => region.addMapping(1, RANGE), /no such device/],
    ['dax_region/delete', 'ENXIO', (region) => region.deleteDevice(1), /no such device/],
    [`${DRIVER}/bind`, 'ENXIO', (region) => region.enable(1), /it has no memory/],
  ]
  for (const [name, kind, verb, message] of sentences) {
    const { sysfs, parent } = makeSysfs()
    const path = name.startsWith('bus/') ? join(sysfs, name) : join(parent, name)
    rmSync(path)
    symlinkSync(sources[kind]!, path)
    const code = kind.replace('_gone', '')
    t.throws(() => verb(SysfsRegion.open(3, sysfs)), { code, message }, `${name}: ${kind}`)
  }
})

const RANGE = { offset: 0x240400000, length: 4 * M }
const DRIVER = 'bus/dax/drivers/device_dax'

t.test(
  'sysfs: bind and unbind of a device that no bus has: ENODEV, told by the kernel',
  async (t) => {
    const real = '/sys/bus/platform/drivers'
    const name = existsSync(real) ? readdirSync(real).find((driver) => bindable(real, driver)) : ''
    if (process.getuid?.() !== 0 || !name) return t.pass('no driver here that root may bind')
    const { sysfs, parent } = makeSysfs()
    for (const verb of ['bind', 'unbind']) {
      rmSync(join(sysfs, DRIVER, verb))
      symlinkSync(join(real, name, verb), join(sysfs, DRIVER, verb))
    }
    const region = SysfsRegion.open(3, sysfs)
    t.throws(() => region.enable(1), {
      code: 'ENODEV',
      message: /enable dax3\.1: .*no such device/,
    })
    const named = join(sysfs, DRIVER, 'new_id')
    writeFileSync(named, '')
    t.throws(() => region.enable(1), { code: 'ENODEV' }, 'not even by its name')
    t.equal(readFileSync(named, 'utf8'), 'dax3.1', 'a driver that does not match is told of it')
    t.throws(() => region.disable(0), { code: 'ENODEV', message: /disable dax3\.0/ })
    rmSync(join(sysfs, DRIVER), { recursive: true })
    t.throws(() => region.enable(1), { code: 'ENOENT', message: /modprobe device_dax/ })
    rmSync(join(parent, 'dax3.0/driver'))
    t.throws(() => region.disable(0), { code: 'ENODEV', message: /is not enabled/ })
  },
)

function bindable(drivers: string, name: string): boolean {
  return ['bind', 'unbind'].every((verb) => existsSync(join(drivers, name, verb)))
}

t.test('sysfs: without the right to write: EACCES', async (t) => {
  if (process.getuid?.() === 0) return t.pass('root may write everything')
  const { sysfs, parent } = makeSysfs()
  chmodSync(join(parent, 'dax3.1/size'), 0o444)
  const region = SysfsRegion.open(3, sysfs)
  t.throws(() => region.resize(1, 2 * M), { code: 'EACCES', message: /you are not root/ })
})

t.test('sysfs: an attribute that is no number is told by its name', async (t) => {
  const { sysfs, parent } = makeSysfs()
  writeFileSync(join(parent, 'dax_region/size'), 'much\n')
  t.throws(() => SysfsRegion.open(3, sysfs).info(), {
    code: 'EINVAL',
    message: /dax_region\/size does not hold a number/,
  })
})

t.test('a name leads to a region of the kernel, a path to one in a file', async (t) => {
  const { sysfs } = makeSysfs()
  for (const name of ['dax3', 'dax3.1', '/dev/dax3.0']) {
    t.match(openDaxRegion(name, true, sysfs).info(), { kind: 'sysfs', region: 'dax3' }, name)
  }
  t.same(splitDevice('dax3.1'), { region: 'dax3', name: { region: 3, id: 1 } })
  const path = makeRegion()
  t.same(splitDevice(`${path}#dax0.1`), { region: path, name: { region: 0, id: 1 } })
  const found = listRegions([path], sysfs)
  t.match(found, [
    { kind: 'sysfs', region: 'dax3', id: 3 },
    { kind: 'file', region: path, id: 0 },
  ])
  t.equal(found.length, 2)
})
