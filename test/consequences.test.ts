/**
 * What users meet when memory fails, beside the matrix (failure-matrix.test.ts): what FAILURE.md in
 * docs says of the moment, of signals, of names and of memory that nobody has yet. On real mounts,
 * but for a kernel that does not do what it is told.
 */
import { truncateSync, writeFileSync } from 'node:fs'
import t from 'tap'
import { format } from '../mkfs/format.ts'
import { openSimulated } from '../src/dax/device.ts'
import { fsDaxGet } from '../src/dax/holder.ts'
import { SimulatedMemory } from '../src/dax/simulated-memory.ts'
import type { Status } from '../src/fs/administration.ts'
import { Filesystem } from '../src/fs/filesystem.ts'
import { silent } from './support/core.ts'
import {
  cannotMount,
  type MountedRegion,
  mountRegion,
  PythonClient,
  runJson,
  runProgram,
  scratch,
} from './support/mounts.ts'

const skip = cannotMount()
const BLOCK = 4096
/** si_code of sigqueue(3) and of pidfd_send_signal(2) with an info of ours. */
const SI_QUEUE = -1

async function client(setup: string): Promise<PythonClient> {
  const made = new PythonClient(setup)
  const ready = await made.ready
  if (!ready?.ok) throw new Error(`the client cannot start: ${ready?.error}`)
  t.teardown(() => made.stop())
  return made
}

async function fill(mount: MountedRegion, ...names: string[]): Promise<void> {
  const each = names.map((name) => `head -c 64K /dev/urandom > ${name}`)
  const { status, stderr } = await mount.client(`${each.join(' && ')} && sync ${names.join(' ')}`)
  if (status !== 0) throw new Error(stderr)
}

function inject(mount: MountedRegion, ...how: string[]): Promise<{ handlesKilled: number }> {
  return runJson('holdfast', ['inject', mount.mountpoint, ...how])
}

t.test('when inject answers, every handle is dead and no page is mapped', { skip }, async (t) => {
  const mount = await mountRegion({ on: 'memory' })
  await fill(mount, 'hit')
  const count = 40
  const user = await client(
    `
import ctypes, struct
fds = [os.open(${JSON.stringify(mount.path('hit'))}, os.O_RDWR) for i in range(${count})]
maps = [mmap.mmap(fd, 65536) for fd in fds]
# Dirty pages and clean ones.
for i, m in enumerate(maps):
    m[BLOCK * (i % 16)]
    if i % 3 == 0: m[BLOCK * (i % 16) + 1] = 1
pagemap = open("/proc/self/pagemap", "rb", 0)
def present(m):
    pagemap.seek(ctypes.addressof(ctypes.c_char.from_buffer(m)) // BLOCK * 8)
    return sum(entry >> 63 for entry in struct.unpack("<16Q", pagemap.read(128)))
def look():
    return [sum(present(m) for m in maps), sum(dead(fd) for fd in fds)]
def dead(fd):
    try:
        os.pread(fd, 1, 0)
        return 0
    except OSError as error:
        return error.errno == errno.EIO
`.replaceAll('BLOCK', String(BLOCK)),
  )
  const before = (await user.evaluate<number[]>('look()'))?.value
  t.ok(before![0]! >= count, `${before![0]} pages are mapped`)
  t.equal(before![1], 0)
  const { handlesKilled } = await inject(mount, '--file', mount.path('hit'), '--offset', '8192')
  t.equal(handlesKilled, count)
  t.same((await user.evaluate('look()'))?.value, [0, count])
  await user.stop()
  await mount.unmount()
})

t.test('inject waits 5 s for a kernel that does not let go, and the log says so', async (t) => {
  const memory = new SimulatedMemory(64 * 1024 * 1024, 'page')
  format(memory, { label: 'test', uid: 0, gid: 0, now: 1_700_000_000 })
  const device = openSimulated(memory)
  fsDaxGet(device, { purpose: 'mount' })
  const warnings: string[] = []
  const logger = { ...silent, warn: (line: string) => void warnings.push(line) }
  const how = { readOnly: false, commitSeconds: 1, onFailure: 'handles' } as const
  const fs = Filesystem.mount(device, { ...how, logger })
  let letGo = (): void => undefined
  const busy = new Promise<void>((resolve) => {
    letGo = resolve
  })
  const done = Promise.resolve()
  fs.attach({ revoke: () => busy, invalidate: () => done, revokeAll: () => done })
  const caller = { uid: 0, gid: 0, pid: 1, umask: 0 }
  const handle = fs.create(1, Buffer.from('hit'), 0o644, 2, caller)
  fs.fallocate(handle, 0, 0, BLOCK)
  const target = { kind: 'file', inode: handle.ino, fileOffset: 0 } as const
  const { handlesKilled } = fs.administration.inject({ target, length: BLOCK, method: 'soft' })
  t.equal(handlesKilled, 1)
  const before = warnings.length
  const from = performance.now()
  await fs.administration.revoked()
  const waited = performance.now() - from
  t.ok(waited > 4900 && waited < 30_000, `${Math.round(waited)} ms`)
  t.match(warnings.slice(before), [/the kernel still has pages of killed files/])
  letGo()
  await fs.administration.revoked()
  t.equal(warnings.length, before + 1, 'nothing is left to wait for')
  await fs.unmount()
})

/** Maps a file, keeps SIGBUS pending, and can say who sent it. */
const SIGNALLED = (path: string) => `
import signal
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGBUS])
fd = os.open(${JSON.stringify(path)}, os.O_RDWR)
m = mmap.mmap(fd, 65536)
m[0]
def sent(seconds):
    info = signal.sigtimedwait([signal.SIGBUS], seconds)
    return info and [info.si_code, info.si_pid]
`

t.test('on_failure=sigbus: SI_QUEUE, from the daemon, to nobody unrelated', { skip }, async (t) => {
  const mount = await mountRegion({ options: ['on_failure=sigbus'] })
  await fill(mount, 'hit', 'other')
  const outside = `${scratch()}/file`
  writeFileSync(outside, Buffer.alloc(65536))
  const mapper = await client(SIGNALLED(mount.path('hit')))
  const others = [await client(SIGNALLED(mount.path('other'))), await client(SIGNALLED(outside))]
  await inject(mount, '--file', mount.path('hit'))
  t.same((await mapper.evaluate('sent(10)'))?.value, [SI_QUEUE, mount.pid])
  t.equal((await mapper.evaluate('sent(0.3)'))?.value, null, 'once')
  for (const other of others) t.equal((await other.evaluate('sent(0)'))?.value, null)
  t.match(await mount.status(), { state: 'mounted' }, 'the daemon lives')
  for (const one of [mapper, ...others]) await one.stop()
  await mount.unmount()
})

t.test('on_failure=sigbus: a region that goes away signals everybody', { skip }, async (t) => {
  const mount = await mountRegion({ options: ['on_failure=sigbus'] })
  await fill(mount, 'a', 'b')
  const mappers = [
    await client(SIGNALLED(mount.path('a'))),
    await client(SIGNALLED(mount.path('b'))),
  ]
  truncateSync(mount.region, 0)
  for (const mapper of mappers) {
    t.same((await mapper.evaluate('sent(10)'))?.value, [SI_QUEUE, mount.pid])
    await mapper.stop()
  }
  await mount.unmount()
})

t.test('a file that is renamed while it is killed has its new name', { skip }, async (t) => {
  const mount = await mountRegion({ on: 'memory' })
  await fill(mount, 'a')
  const before = (await mount.client('head -c 4096 a | sha256sum; stat -c %i a')).stdout
  const place = await placeOf(mount, 'a', 8192)
  const user = await client(`
a, b = ${JSON.stringify(mount.path('a'))}, ${JSON.stringify(mount.path('b'))}
fd = os.open(a, os.O_RDWR)
state = {"moves": 0, "stop": False}
def move():
    while not state["stop"]:
        os.rename(a, b)
        os.rename(b, a)
        state["moves"] += 2
    os.rename(a, b)
worker = threading.Thread(target=move)
worker.start()
def finish():
    state["stop"] = True
    worker.join(10)
    return state["moves"]
`)
  const { handlesKilled } = await inject(mount, '--offset', place)
  t.equal(handlesKilled, 1)
  t.ok(Number((await user.evaluate('finish()'))?.value) > 2)
  t.same(await user.evaluate('os.pread(fd, 1, 0)'), { ok: false, error: 'EIO' })
  const after = await mount.client('head -c 4096 b | sha256sum; stat -c %i b')
  t.equal(after.stdout, before, 'the same file, by its new name')
  t.not((await mount.client('stat a')).status, 0)
  await user.stop()
  await mount.unmount()
})

/** Where the byte of a file lies in the region. */
async function placeOf(mount: MountedRegion, name: string, fileOffset: number): Promise<string> {
  const path = mount.path(name)
  const { extents } = await runJson<{ extents: { fileOffset: number; regionOffset: number }[] }>(
    'holdfast',
    ['getmap', path],
  )
  return String(extents[0]!.regionOffset + fileOffset - extents[0]!.fileOffset)
}

t.test('an unwritten extent that failed reads as zeros by a new open', { skip }, async (t) => {
  const mount = await mountRegion({ on: 'memory' })
  t.equal((await mount.client('head -c 4096 /dev/urandom > u; fallocate -l 64K u')).status, 0)
  const user = await client(`fd = os.open(${JSON.stringify(mount.path('u'))}, os.O_RDWR)`)
  await inject(mount, '--file', mount.path('u'), '--offset', '32768')
  t.same(await user.evaluate('os.pread(fd, 1, 32768)'), { ok: false, error: 'EIO' })
  const zeros = 'dd if=u bs=4096 skip=1 status=none | cmp -n 61440 - /dev/zero'
  t.match(await mount.client(zeros), { status: 0 })
  t.match(await mount.client('dd if=/dev/urandom of=u bs=64K count=1 conv=notrunc && cat u'), {
    status: 0,
  })
  await user.stop()
  await mount.unmount()
})

t.test(
  'free memory that faults: writes take other blocks, nobody gets an error',
  { skip },
  async (t) => {
    const mount = await mountRegion({ size: '64M', on: 'memory' })
    for (let i = 0; i < 12; i++) await inject(mount, '--free', '--method', 'sigbus')
    t.same((await mount.status()).failures, [], 'nobody has met them')
    const source = `${scratch('memory')}/source`
    const write = `head -c 48M /dev/urandom > ${source}; cp ${source} f; sync f; cmp ${source} f`
    const { status, stderr } = await mount.client(write)
    t.equal(status, 0, stderr)
    const { failures, handles } = await runJson<Status>('holdfast', ['status', mount.mountpoint])
    t.ok(failures.length > 0, `${failures.length} of 12 were met`)
    for (const failure of failures) t.match(failure, { kind: 'free', action: 'quarantined' })
    t.equal(handles.killed, 0)
    await mount.unmount()
    const check = await runProgram('fsck.holdfast', ['-n', '-f', mount.region])
    t.ok([0, 4].includes(check.status ?? -1), `fsck: exit ${check.status}: ${check.stdout}`)
  },
)
