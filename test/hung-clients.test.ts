/**
 * What the daemon must never wait for: a client that waits for the daemon, whose /proc/PID/maps
 * nobody can read meanwhile, and an answer of its own.
 */
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import {
  cannotMount,
  lacks,
  type MountedRegion,
  mountRegion,
  PythonClient,
  runProgram,
  scratch,
  sleep,
} from './support/mounts.ts'

const skip = cannotMount() || lacks('python3')

/** Replaces a mapping of dirty pages: mmap(MAP_FIXED) waits until they were written. */
const REPLACES = (path: string) => `
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t] + [ctypes.c_int] * 3 + [ctypes.c_long]
fd = os.open(${JSON.stringify(path)}, os.O_CREAT | os.O_RDWR)
os.write(fd, bytes(1 << 20))
at = libc.mmap(None, 1 << 20, 3, 1, fd, 0)
os.close(fd)
def replace():
    ctypes.memset(at, 65, 1 << 20)
    print(json.dumps({"ok": True}), flush=True)
    return libc.mmap(at, 1 << 20, 3, 0x32, -1, 0) == at
import json
`

/** Frozen, with a client that waits for the thaw in the middle of an unmap. */
async function hung(t: Test, mount: MountedRegion): Promise<PythonClient> {
  const client = new PythonClient(REPLACES(mount.path('dirty')))
  t.match(await client.ready, { ok: true })
  t.teardown(() => client.stop())
  const { status, stderr } = await runProgram('holdfast', ['freeze', mount.mountpoint])
  t.equal(status, 0, stderr)
  t.match(await client.evaluate('replace()'), { ok: true })
  await sleep(500)
  return client
}

async function until(what: () => boolean, milliseconds = 20_000): Promise<boolean> {
  for (const end = performance.now() + milliseconds; performance.now() < end; await sleep(50)) {
    if (what()) return true
  }
  return what()
}

t.test('SIGTERM while a client waits for the daemon in an unmap', { skip }, async (t) => {
  const mount = await mountRegion({ on: 'memory' })
  const client = await hung(t, mount)
  process.kill(mount.pid, 'SIGTERM')
  // The client cannot be asked what it maps, and has nothing open.
  t.ok(await until(() => mount.logText().includes('is busy: ')), mount.logText())
  const answer = await runProgram('holdfast', ['status', mount.mountpoint], { timeoutMs: 10_000 })
  t.equal(answer.status, 0, `the daemon answers ${answer.stderr}`)
  const thaw = await runProgram('holdfast', ['thaw', mount.mountpoint], { timeoutMs: 10_000 })
  t.equal(thaw.status, 0, thaw.stderr)
  await client.end()
  await mount.unmount()
})

t.test('so does holdfast umount, which says that it is busy', { skip }, async (t) => {
  const mount = await mountRegion({ on: 'memory' })
  const client = await hung(t, mount)
  const umount = ['umount', mount.mountpoint]
  const outcome = await runProgram('holdfast', umount, { timeoutMs: 20_000 })
  t.match(outcome, { status: 1, stderr: /is busy: used by/ })
  t.equal((await runProgram('holdfast', ['thaw', mount.mountpoint])).status, 0)
  await client.end()
  await mount.unmount()
})

t.test('on_failure=sigbus signals the others meanwhile', { skip }, async (t) => {
  const mount = await mountRegion({ on: 'memory', options: ['on_failure=sigbus'] })
  const write = await mount.client('head -c 64K /dev/urandom > hit; sync hit')
  t.equal(write.status, 0, write.stderr)
  const client = await hung(t, mount)
  const mapper = new PythonClient(`
import signal
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGBUS])
fd = os.open(${JSON.stringify(mount.path('hit'))}, os.O_RDONLY)
m = mmap.mmap(fd, 65536, prot=mmap.PROT_READ)
m[0]
def sent(seconds):
    info = signal.sigtimedwait([signal.SIGBUS], seconds)
    return info and info.si_pid
`)
  t.match(await mapper.ready, { ok: true })
  t.teardown(() => mapper.stop())
  const from = performance.now()
  const inject = ['inject', mount.mountpoint, '--file', mount.path('hit')]
  t.equal((await runProgram('holdfast', inject)).status, 0)
  t.equal((await mapper.evaluate('sent(8)'))?.value, mount.pid)
  t.comment(`signalled after ${Math.round(performance.now() - from)} ms`)
  t.equal((await runProgram('holdfast', ['thaw', mount.mountpoint])).status, 0)
  await mapper.stop()
  await client.end()
  await mount.unmount()
})

t.test('a daemon whose PATH leads into its own mount', { skip }, async (t) => {
  const mountpoint = join(scratch(), 'mnt')
  mkdirSync(mountpoint)
  const { PATH } = process.env
  process.env.PATH = `${mountpoint}/bin:${mountpoint}:${PATH}`
  const mount = await mountRegion({ on: 'memory', mountpoint }).finally(() => {
    process.env.PATH = PATH
  })
  process.kill(mount.pid, 'SIGTERM')
  t.ok(await until(() => mount.logText().includes('unmounted')), mount.logText())
})
