/** Filesystems over several regions, mounted for real. */
import { createHash } from 'node:crypto'
import { closeSync, openSync, readSync, truncateSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { loadLabel } from '../src/bus/label.ts'
import { toTargets } from '../src/bus/translate.ts'
import { openDevice } from '../src/dax/device.ts'
import type { FileMap } from '../src/fs/administration.ts'
import {
  cannotMount,
  mountRegion,
  PythonClient,
  runJson,
  runProgram,
  scratch,
} from './support/mounts.ts'
import { M, makeRegion, openRegionFile } from './support/regions.ts'

const skip = { skip: cannotMount() }
const FILL = 'head -c 40M /dev/urandom > f'
const SUM = 'sha256sum < f'

function filesIn(names: readonly string[]): string[] {
  const directory = scratch('memory')
  return names.map((name) => join(directory, name))
}

/** The bytes of a file as they lie in the targets, found by the labels alone. */
function readThrough(paths: readonly string[], { size, extents }: FileMap): Buffer {
  const labels = paths.map((path) => {
    const device = openDevice(path, { readOnly: true })
    const label = loadLabel(device.memory)
    device.close()
    return label
  })
  const bytes = Buffer.alloc(size)
  const fds = paths.map((path) => openSync(path, 'r'))
  for (const { fileOffset, regionOffset, length } of extents) {
    let at = fileOffset
    for (const part of toTargets(labels[0]!, regionOffset, Math.min(length, size - fileOffset))) {
      const place = labels[part.target]!.start + part.offset
      at += readSync(fds[part.target]!, bytes, at, part.length, place)
    }
  }
  fds.forEach(closeSync)
  return bytes
}

for (const [kind, sizes] of [
  ['linear', [36, 100, 64]],
  ['striped', [100, 100, 100]],
] as const) {
  t.test(`${kind}: a filesystem over three files, through crash and failure`, skip, async (t) => {
    const paths = filesIn(['a', 'b', 'c'])
    paths.forEach((path, at) => {
      closeSync(openSync(path, 'w'))
      truncateSync(path, sizes[at]! * M)
    })
    t.match(await runProgram('mkfs.holdfast', [`--${kind}`, ...paths]), { status: 0 })
    const region = paths.join(',')
    let mount = await mountRegion({ region })
    const sum = await mount.client(`${FILL} && sync f && ${SUM}`)
    t.equal(sum.status, 0, sum.stderr)
    const map = await runJson<FileMap>('holdfast', ['getmap', '--json', mount.path('f')])
    const found = createHash('sha256').update(readThrough(paths, map)).digest('hex')
    t.equal(`${found}  -`, sum.stdout.trim(), 'every byte is where the labels say')

    for (const target of [region, paths[2]!]) {
      t.match(await runJson('holdfast', ['status', target]), {
        region,
        mountpoint: mount.mountpoint,
      })
    }
    const all = await runJson<{ region: string }[]>('holdfast', ['status'])
    t.equal(all.filter((status) => status.region.includes(paths[1]!)).length, 1, 'listed once')
    const busy = await runProgram('mkfs.holdfast', ['--force', paths[1]!])
    t.match(busy, { status: 1, stderr: /in use/ })

    await mount.kill()
    mount = await mount.mountAgain()
    t.equal((await mount.client(SUM)).stdout, sum.stdout, 'after kill -9')

    // A page in the second target fails: found by a touch, told with the offset of the device.
    const offset = (kind === 'linear' ? 32 + 4 : 5 * 6 + 2) * M
    await mount.client(`head -c 5M /dev/urandom > g`)
    const range = ['--offset', `${offset}`, '--length', '4096']
    const rows = await runJson('holdfast', ['rmap', mount.mountpoint, ...range])
    t.match(rows, [{ path: '/f' }], 'the file is there')
    const args = ['inject', mount.mountpoint, '--offset', `${offset}`, '--method', 'sigbus']
    t.match(await runProgram('holdfast', args), { status: 0 })
    t.match(await mount.client(SUM), { status: 1, stderr: /Input\/output error/ })
    const status = await mount.status()
    t.match(status.failures, [{ offset, length: 4096, kind: 'data', action: 'handles killed' }])
    t.equal(status.failures.length, 1, 'told once')
    t.equal((await mount.client(`cat g > /dev/null`)).status, 0)
    t.match(await runProgram('holdfast', ['clear-poison', mount.mountpoint, '--all']), {
      status: 0,
    })
    t.equal((await mount.client(SUM)).stdout, sum.stdout, 'the memory works again')
    await mount.unmount()
    t.match(await runProgram('fsck.holdfast', ['-n', region]), { status: 0 })
    const [a, b, c] = paths
    const missing = await runProgram('holdfast', ['mount', `${a},${c}`, mount.mountpoint])
    t.match(missing, { status: 32, stderr: /target 1 \(uuid [0-9a-f-]{36}\) is missing/ })
    const swapped = await runProgram('holdfast', ['mount', `${a},${c},${b}`, mount.mountpoint])
    t.match(swapped, { status: 32, stderr: /uuid [0-9a-f-]{36}\) is target 2, not 1/ })
    for (const [at, names] of [`${a}x,${b},${c}`, `${a},${b}x,${c}`].entries()) {
      const gone = await runProgram('holdfast', ['mount', names, mount.mountpoint])
      const why = `target ${at} \\(uuid [0-9a-f-]{36}\\) is missing, ${paths[at]}x does not exist: name`
      t.match(gone, { status: 32, stderr: new RegExp(why) })
      const looks = [['status'], ['rmap'], ['dump']]
      const looked = await Promise.all(looks.map((one) => runProgram('holdfast', [...one, names])))
      for (const one of looked) t.match(one, { status: 1, stderr: new RegExp(why) })
    }
    truncateSync(c!, 0)
    const cut = await runProgram('holdfast', ['mount', region, mount.mountpoint])
    const why = new RegExp(`target 2 \\(uuid [0-9a-f-]{36}\\) is missing, ${c} is too small: name`)
    t.match(cut, { status: 32, stderr: why })
    const one = await runProgram('holdfast', ['mount', a!, mount.mountpoint])
    t.match(one, { status: 32, stderr: /is target 0 of 3 of mapped device/ })
  })
}

/** Maps a file, and waits for a SIGBUS that is sent: the files are mapped, but never touched. */
const MAPPER = `
import signal
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGBUS])
fd = os.open(PATH, os.O_RDWR)
m = mmap.mmap(fd, 65536)
def sent(seconds):
    info = signal.sigtimedwait([signal.SIGBUS], seconds)
    return info and info.si_pid
`

t.test('a target truncated to nothing: shut down as removed, and umount works', skip, async (t) => {
  const [a, b] = filesIn(['a', 'b']) as [string, string]
  t.match(await runProgram('mkfs.holdfast', ['--linear', '--size', '64M', a, b]), { status: 0 })
  const mount = await mountRegion({ region: `${a},${b}`, options: ['on_failure=sigbus'] })
  const write = (name: string, size: string) => `head -c ${size} /dev/urandom > ${name}`
  const fill = await mount.client(`${write('f', '5M')} && ${write('both', '60M')} && sync f both`)
  t.equal(fill.status, 0, fill.stderr)
  t.equal((await mount.client(`${write('g', '5M')} && sync g`)).status, 0)
  const border = 60 * M
  const map = (name: string) => runJson<FileMap>('holdfast', ['getmap', '--json', mount.path(name)])
  const [first, second] = [await map('f'), await map('g')]
  t.ok(first.extents.every(({ regionOffset, length }) => regionOffset + length <= border))
  t.ok(second.extents.every(({ regionOffset }) => regionOffset >= border))
  const mappers = [first, second].map((_, at) => {
    const path = JSON.stringify(mount.path(at === 0 ? 'f' : 'g'))
    return new PythonClient(MAPPER.replace('PATH', path))
  })
  t.teardown(() => Promise.all(mappers.map((mapper) => mapper.stop())))
  for (const mapper of mappers) t.match(await mapper.ready, { ok: true })
  const [there, lost] = mappers as [PythonClient, PythonClient]
  // The first file is not in the memory that goes away, but its filesystem is broken.
  const reader = mount.client(
    'exec 3< f; echo > ready; while sleep 0.1; do cat <&3 || exit 7; done',
  )
  while ((await mount.client('test -e ready')).status !== 0);
  truncateSync(b, 0)
  t.equal((await reader).status, 7, 'an open handle is dead')
  t.match(await lost.evaluate('sent(20)'), { value: mount.pid }, 'what it maps was lost')
  t.same((await there.evaluate('sent(0.5)'))?.value, null, 'what it maps was not')
  t.match(await mount.client('cat f'), { status: 1 })
  const { state, shutdown, failures, handles } = await mount.status()
  t.same([state, shutdown?.offset, handles.killed], ['shutdown', border, 1])
  t.same(failures, [
    {
      time: failures[0]?.time,
      offset: border,
      length: border,
      kind: 'metadata',
      inodes: [second.inode],
      action: 'shutdown',
      handlesKilled: 1,
    },
  ])
  t.match(mount.logText(), /the device is being removed/)
  t.match(await runProgram('holdfast', ['umount', mount.mountpoint]), { timedOut: false })
})

t.test('striped over two instances of a region', skip, async (t) => {
  const path = makeRegion({ size: 256 * M })
  const region = openRegionFile(t, path)
  region.createDevice()
  for (const id of [0, 1, 0, 1]) {
    region.resize(id, (region.info().devices[id]!.size / M + 40) * M)
  }
  region.enable(0)
  region.enable(1)
  const names = [`${path}#dax0.0`, `${path}#dax0.1`]
  t.match(await runProgram('mkfs.holdfast', ['--striped', '--chunk', '4M', ...names]), {
    status: 0,
  })
  const mount = await mountRegion({ region: names.join(',') })
  t.equal((await mount.client(`head -c 50M /dev/urandom > f && cp f g && cmp f g`)).status, 0)
  const busy = await runProgram('holdfast', ['region', 'disable', names[1]!])
  t.match(busy, { status: 1, stderr: /in use, mounted on .*EBUSY/ })
  await mount.unmount()
  t.match(await runProgram('fsck.holdfast', ['-n', names.join(',')]), { status: 0 })
})

t.test('mkfs over several regions: usage, and nothing left behind', async (t) => {
  const [a, b] = filesIn(['a', 'b']) as [string, string]
  const mkfs = (...args: string[]) => runProgram('mkfs.holdfast', args)
  t.match(await mkfs(a, b), { status: 2, stderr: /say --linear or --striped/ })
  t.match(await mkfs('--linear', a), { status: 2, stderr: /two regions or more/ })
  t.match(await mkfs('--striped', '--linear', a, b), { status: 2 })
  t.match(await mkfs('--striped', '--chunk', '1M', '--size', '64M', a, b), {
    status: 1,
    stderr: /multiple of 2 MiB/,
  })
  t.match(await runProgram('holdfast', ['status', a]), { status: 1, stderr: /does not exist/ })
  t.match(await mkfs('--linear', '--size', '64M', a, b), { status: 0 })
  t.match(await mkfs('--linear', a, b), { status: 1, stderr: /holds a target of a mapped device/ })
  t.match(await mkfs(`${a},${b}`), { status: 1, stderr: /holds a holdfast filesystem/ })
  t.match(await mkfs('--force', a), { status: 0 })
  t.match(await runProgram('holdfast', ['status', a]), { status: 0 })
  t.match(await runProgram('holdfast', ['status', `${a},${b}`]), { status: 1, stderr: /missing/ })
})
