/** Instances of a region: claimed, mounted and changed through the programs a person runs. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import type { RegionInfo } from '../src/bus/dax-region.ts'
import { openByName } from '../src/bus/open.ts'
import { isHeld, whoHolds } from '../src/dax/claim.ts'
import { fsDaxGet, fsPutDax, type Holder } from '../src/dax/holder.ts'
import { cannotMount, mountRegion, run, runJson, runProgram, scratch } from './support/mounts.ts'
import { codeOf, M, makeRegion, openRegionFile } from './support/regions.ts'

t.test('two commands never interleave: no device is lost', async (t) => {
  const path = makeRegion()
  const command = () => runProgram('holdfast', ['region', 'create-device', path])
  const outcomes = await Promise.all([command(), command(), command(), command()])
  const names = outcomes.map(({ stdout }) => stdout.trim()).sort()
  t.same(names, ['dax0.1', 'dax0.2', 'dax0.3', 'dax0.4'])
  t.equal(openRegionFile(t, path).info().devices.length, 5)
})

t.test('fs_dax_get of an instance: ENODEV, EOPNOTSUPP, EBUSY', async (t) => {
  const path = makeRegion()
  const region = openRegionFile(t, path)
  t.equal(
    codeOf(() => openByName(`${path}#dax0.4`)),
    'ENODEV',
    'no such instance',
  )
  t.equal(
    codeOf(() => openByName(`${path}#dax3.0`)),
    'ENODEV',
    'no such region',
  )
  t.equal(
    codeOf(() => openByName(`${path}#dax0.0`)),
    'EOPNOTSUPP',
    'no memory',
  )
  t.equal(
    codeOf(() => openByName(path)),
    'EINVAL',
    'the region itself is no device',
  )
  region.resize(0, 8 * M)
  const holder: Holder = { purpose: 'mount' }
  const idle = openByName(`${path}#dax0.0`)
  t.equal(
    codeOf(() => fsDaxGet(idle, holder)),
    'EOPNOTSUPP',
    'not enabled',
  )
  idle.close()
  region.enable(0)
  const [one, two] = [openByName(`${path}#dax0.0`), openByName(`${path}#dax0.0`)]
  fsDaxGet(one, holder)
  t.equal(
    codeOf(() => fsDaxGet(two, { purpose: 'fsck' })),
    'EBUSY',
  )
  const all = openByName(path, { whole: true })
  t.equal(
    codeOf(() => fsDaxGet(all, { purpose: 'mkfs' })),
    'EBUSY',
    'the file around it',
  )
  t.match(whoHolds(`${path}#dax0.0`), { purpose: 'mount', path: `${path}#dax0.0` })
  t.equal(whoHolds(path), undefined)
  t.equal(isHeld(path), true)
  for (const device of [one, two, all]) device.close()
  t.equal(isHeld(path), false)
})

t.test('a whole file that is held keeps its instances and its commands out', async (t) => {
  const path = makeRegion({ isStatic: true })
  const all = openByName(path, { whole: true })
  fsDaxGet(all, { purpose: 'mkfs' })
  const one = openByName(`${path}#dax0.0`)
  t.throws(() => fsDaxGet(one, { purpose: 'mount' }), { code: 'EBUSY', message: /mkfs is at work/ })
  one.close()
  all.close()
})

t.test('an instance that is held cannot be changed; others can', async (t) => {
  const path = makeRegion()
  const region = openRegionFile(t, path)
  region.createDevice()
  region.resize(0, 8 * M)
  region.resize(1, 8 * M)
  region.enable(0)
  region.enable(1)
  const [dev, other] = [openByName(`${path}#dax0.0`), openByName(`${path}#dax0.1`)]
  fsDaxGet(dev, { purpose: 'mount', mountpoint: '/mnt/a' })
  fsDaxGet(other, { purpose: 'mount', mountpoint: '/mnt/b' })
  t.pass('two instances, two holders')
  t.throws(() => region.disable(0), { code: 'EBUSY', message: /dax0\.0 is in use.*\/mnt\/a/ })
  t.equal(
    codeOf(() => region.resize(0, 0)),
    'EBUSY',
  )
  t.equal(
    codeOf(() => region.deleteDevice(0)),
    'EBUSY',
  )
  fsPutDax(other, other.holder!)
  region.disable(1)
  region.resize(1, 16 * M)
  region.createDevice()
  t.equal(
    codeOf(() => fsDaxGet(other, { purpose: 'mount' })),
    'ENODEV',
    'not what was opened',
  )
  t.equal(isHeld(`${path}#dax0.1`), false, 'the claim that failed holds nothing')
  for (const device of [dev, other]) device.close()
})

t.test('an instance of several ranges is one memory', async (t) => {
  const path = makeRegion()
  const region = openRegionFile(t, path)
  region.addMapping(0, { offset: 64 * M, length: 2 * M })
  region.addMapping(0, { offset: 8 * M, length: 4 * M })
  region.enable(0)
  const device = openByName(`${path}#dax0.0`)
  t.teardown(() => device.close())
  t.equal(device.size, 6 * M)
  const text = Buffer.from('across the seam of two ranges')
  device.memory.write(2 * M - 6, text, 0, text.length)
  device.memory.flush(2 * M - 6, text.length)
  const file = readFileSync(path)
  t.equal(file.toString('latin1', 66 * M - 6, 66 * M), 'across')
  t.equal(file.toString('latin1', 8 * M, 8 * M + 9), ' the seam')
  t.equal(
    device.memory.crc32c(2 * M - 6, text.length, 0),
    device.memory.crc32c(2 * M - 6, text.length, 0),
  )
  const back = new Uint8Array(text.length)
  device.memory.read(2 * M - 6, back, 0, back.length)
  t.same(Buffer.from(back), text)
})

t.test('region create asks before it destroys, and leaves no filesystem behind', async (t) => {
  const path = join(scratch(), 'region')
  await runProgram('mkfs.holdfast', ['--size', '64M', path])
  const refused = await runProgram('holdfast', ['region', 'create', path])
  t.match(refused, { status: 1, stderr: /holds a holdfast filesystem: use --force/ })
  t.match(await runProgram('holdfast', ['region', 'create', '--force', path]), { status: 0 })
  const again = await runProgram('mkfs.holdfast', [path])
  t.match(again, { status: 1, stderr: /holds a region of instances: use --force/ })
  t.match(await runProgram('holdfast', ['status', path]), { status: 1, stderr: /name one of them/ })
  t.match(await runProgram('mkfs.holdfast', ['--force', path]), { status: 0 })
  t.match(await runProgram('holdfast', ['status', path]), { status: 0 })
  t.match(await runProgram('holdfast', ['region', 'show', path]), { status: 1 })
})

t.test('holdfast region: verbs, --json, and the errno in the sentence', async (t) => {
  const path = join(scratch(), 'region')
  const region = (...args: string[]) => runProgram('holdfast', ['region', ...args])
  t.match(await region('create', path, '--size', '64M'), { status: 0 })
  t.match(await region('create-device', path), { status: 0, stdout: 'dax0.1\n' })
  const misaligned = await region('resize', `${path}#dax0.1`, '3M')
  t.match(misaligned, { status: 1, stderr: /multiple of 2097152 bytes \(EINVAL\)/ })
  t.match(await region('enable', `${path}#dax0.1`), { status: 1, stderr: /\(ENXIO\)/ })
  t.match(await region('resize', `${path}#dax0.1`, '1G'), { status: 1, stderr: /\(ENOSPC\)/ })
  t.match(await region('delete-device', `${path}#dax0.0`), { status: 1, stderr: /\(EBUSY\)/ })
  t.match(await region('delete-device', `${path}#dax0.9`), { status: 1, stderr: /\(ENXIO\)/ })
  t.match(await region('resize', path, '2M'), { status: 2, stderr: /no device of a region/ })
  t.match(await region('show', 'dax77'), { status: 1, stderr: /no dax region 77.*\(ENODEV\)/ })
  t.match(await region('resize', `${path}#dax0.1`, '4M'), { status: 0 })
  const [info] = await runJson<{ seed: string }[]>('holdfast', ['region', 'list', '--json', path])
  t.match(info, { seed: 'dax0.1', available_size: 56 * M, align: 2 * M, size: 60 * M })
})

t.test('holdfast region: every verb, by its command', async (t) => {
  const path = join(scratch(), 'region')
  const region = (...args: string[]) => runProgram('holdfast', ['region', ...args])
  const show = () => runJson<RegionInfo>('holdfast', ['region', 'show', path])
  t.match(await region('create', path, '--size', '64M', '--align', '4K'), { status: 0 })
  t.match(await show(), { kind: 'file', static: false, align: 4096, seed: null })
  for (const name of ['dax0.1', 'dax0.2']) {
    t.match(await region('create-device', path), { status: 0, stdout: `${name}\n` })
  }
  const seeds = { seed: 'dax0.1', youngest: 'dax0.2' }
  t.match(await show(), seeds, 'the first is the seed, create tells the newest')
  t.match(await region('align', `${path}#dax0.1`, '2M'), { status: 0 })
  t.match(await region('align', `${path}#dax0.1`, '8K'), { status: 1, stderr: /\(EINVAL\)/ })
  t.match(await region('map', `${path}#dax0.1`, '1000000-11fffff'), { status: 0 })
  t.match(await region('map', `${path}#dax0.2`, '1000000-11fffff'), { stderr: /\(ENOMEM\)/ })
  t.match(await region('resize', `${path}#dax0.1`, '6M'), { status: 0 })
  t.match(await region('enable', `${path}#dax0.1`), { status: 0 })
  t.match(await region('enable', `${path}#dax0.1`), { status: 1, stderr: /\(EBUSY\)/ })
  t.match(await region('resize', `${path}#dax0.1`, '0'), { status: 1, stderr: /\(EBUSY\)/ })
  const { seed, devices } = await show()
  t.equal(seed, null, 'the seed was enabled')
  t.match(devices[1], {
    enabled: true,
    driver: 'holdfast',
    align: 2 * M,
    size: 6 * M,
    mappings: [
      { start: 16 * M, length: 2 * M },
      { start: 2 * M, length: 4 * M },
    ],
  })
  t.match(await region('show', path), { status: 0, stdout: /dax0\.1 +6291456 +2097152 +holdfast/ })
  t.match(await region('list', path), { status: 0, stdout: /dynamic .*dax0\.0 dax0\.1 dax0\.2/ })
  t.match(await region('delete-device', `${path}#dax0.1`), { status: 1, stderr: /\(EBUSY\)/ })
  t.match(await region('disable', `${path}#dax0.1`), { status: 0 })
  t.match(await region('resize', `${path}#dax0.1`, '0'), { status: 0 })
  t.match(await region('delete-device', `${path}#dax0.1`), { status: 0 })
  t.match(await region('delete-device', `${path}#dax0.1`), { status: 1, stderr: /\(ENXIO\)/ })
})

t.test('holdfast region create --static: one enabled device, for good', async (t) => {
  const path = join(scratch(), 'region')
  const region = (...args: string[]) => runProgram('holdfast', ['region', ...args])
  t.match(await region('create', path, '--size', '64M', '--static'), { status: 0 })
  const [info] = await runJson<RegionInfo[]>('holdfast', ['region', 'list', path])
  t.match(info, {
    static: true,
    available_size: 0,
    devices: [{ name: 'dax0.0', enabled: true, size: 60 * M }],
  })
  for (const [verb, code] of [
    [['create-device', path], 'EINVAL'],
    [['delete-device', `${path}#dax0.0`], 'EINVAL'],
    [['map', `${path}#dax0.0`, '1000000-11fffff'], 'EINVAL'],
    [['resize', `${path}#dax0.0`, '2M'], 'EACCES'],
    [['align', `${path}#dax0.0`, '4K'], 'EACCES'],
  ] as const) {
    t.match(await region(...verb), { status: 1, stderr: new RegExp(`\\(${code}\\)`) }, verb[0])
  }
  t.match(await runProgram('mkfs.holdfast', [`${path}#dax0.0`]), { status: 0 })
})

t.test(
  'two daemons on two instances: failure in one never reaches the other',
  {
    skip: cannotMount(),
  },
  async (t) => {
    const path = makeRegion({ size: 512 * M })
    const region = openRegionFile(t, path)
    region.createDevice()
    // Interleaved on purpose: each has a range of its own between those of the other.
    for (const [id, size] of [
      [0, 64],
      [1, 64],
      [0, 128],
      [1, 128],
    ] as const)
      region.resize(id, size * M)
    region.enable(0)
    region.enable(1)
    const names = [`${path}#dax0.0`, `${path}#dax0.1`]
    for (const name of names) t.match(await runProgram('mkfs.holdfast', [name]), { status: 0 })
    const [one, two] = await Promise.all(names.map((region) => mountRegion({ region })))
    if (one === undefined || two === undefined) throw new Error('not mounted')
    t.not(one.pid, two.pid)
    const fill =
      'head -c 30000000 /dev/urandom > f; cp f g; sync f; sha256sum f g | cut -c1-64 | uniq | wc -l'
    for (const mount of [one, two]) t.equal((await mount.client(fill)).stdout.trim(), '1')

    t.match(await runProgram('holdfast', ['region', 'disable', names[1]!]), {
      status: 1,
      stderr: /dax0\.1 is in use, mounted on .* \(EBUSY\)/,
    })
    t.match(await runProgram('holdfast', ['region', 'resize', names[1]!, '0']), {
      stderr: /\(EBUSY\)/,
    })
    t.match(await runProgram('mkfs.holdfast', ['--force', path]), {
      status: 1,
      stderr: /is in use/,
    })
    region.createDevice()

    const inject = (...args: string[]) =>
      runProgram('holdfast', ['inject', one.mountpoint, ...args])
    t.match(await inject('--file', one.path('f')), { status: 0 })
    t.not((await one.client('cat f > /dev/null')).status, 0, 'its page is bad')
    t.equal((await two.client('cmp f g')).status, 0)
    t.match(await inject('--metadata', 'superblock'), { status: 0 })
    t.not((await one.client('ls')).status, 0, 'the first filesystem is shut down')
    t.match(await two.status(), { state: 'mounted' })
    t.equal((await two.client('cmp f g && cp g h && sync h && cmp f h')).status, 0)
    const seen = await runJson<{ blocks: { poisoned: number } }>('holdfast', [
      'status',
      '--json',
      names[1]!,
    ])
    t.equal(seen.blocks.poisoned, 0)

    await one.kill()
    t.equal((await two.client('cmp f h && rm h')).status, 0, 'a daemon that died, too')
    await runProgram('holdfast', ['umount', one.mountpoint])
    await two.unmount()
    t.match(await runProgram('fsck.holdfast', ['-n', names[1]!]), { status: 0 })
    region.disable(1)
    region.resize(1, 0)
    region.deleteDevice(1)
    t.equal((await run(['cmp', '-n', '1', path, path])).status, 0)
  },
)
