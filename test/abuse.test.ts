/**
 * Names, depths and sizes at their limits; thousands of open files; clients that die or are
 * interrupted in the middle. A million files in a tree are `npm run bench -- --scale`.
 */
import { spawn } from 'node:child_process'
import { readdirSync } from 'node:fs'
import { createInterface } from 'node:readline'
import t, { type Test } from 'tap'
import {
  cannotMount,
  type MountedRegion,
  mountRegion,
  PythonClient,
  runJson,
  runProgram,
  sleep,
} from './support/mounts.ts'
import { clientPath, tellingClient } from './support/telling.ts'

const skip = cannotMount()

async function isClean(t: Test, region: string): Promise<void> {
  const { status, stdout } = await runProgram('fsck.holdfast', ['-f', '-n', region])
  t.equal(status, 0, stdout)
}

/** Waits until the daemon holds nothing for anybody; returns what is left after five seconds. */
async function openHandles(mount: MountedRegion): Promise<number> {
  for (let tries = 0; ; tries++) {
    const { handles } = await mount.status()
    if (handles.open === 0 || tries > 50) return handles.open
    await sleep(100)
  }
}

function descriptors({ pid }: MountedRegion): number {
  return readdirSync(`/proc/${pid}/fd`).length
}

t.test('names of 255 bytes, of any bytes, and no longer ones', { skip }, async (t) => {
  const mount = await mountRegion({ size: '32M' })
  await tellingClient(t, mount, 'abuse.py', ['names'])
  await mount.unmount()
  await isClean(t, mount.region)
  const again = await mount.mountAgain()
  await tellingClient(t, again, 'abuse.py', ['names-again'])
  await again.unmount()
})

t.test('a path of 1000 directories', { skip }, async (t) => {
  const depth = 1000
  const mount = await mountRegion({ size: '32M' })
  await tellingClient(t, mount, 'abuse.py', ['deep', String(depth)])
  const top = '0000'.padStart(255, 'd')
  t.equal((await mount.client(['mv', top, 'top'])).status, 0)
  await tellingClient(t, mount, 'abuse.py', ['deep-again', String(depth)])
  const path = `/top/${Array.from({ length: depth - 1 }, (_, at) =>
    String(at + 1)
      .padStart(4, '0')
      .padStart(255, 'd'),
  ).join('/')}/bottom`
  const rows = await runJson<{ path?: string | null }[]>('holdfast', ['rmap', mount.region])
  t.ok(
    rows.some((row) => row.path === path),
    'rmap tells a path of 256 KB whole',
  )
  await mount.unmount()
  await isClean(t, mount.region)
  const again = await mount.mountAgain()
  await tellingClient(t, again, 'abuse.py', ['deep-again', String(depth)])
  t.match(await again.client('rm -rf top && ls | wc -l'), { status: 0, stdout: '0\n' })
  await again.unmount()
  await isClean(t, mount.region)
})

t.test('a sparse file of 8 TiB', { skip }, async (t) => {
  const mount = await mountRegion({ size: '32M' })
  await tellingClient(t, mount, 'abuse.py', ['sparse'])
  await mount.unmount()
  await isClean(t, mount.region)
  const again = await mount.mountAgain()
  const { stdout } = await again.client('stat -c %s sparse; tail -c 4 sparse')
  t.equal(stdout, `${8 * 2 ** 40}\nend!`)
  await again.unmount()
})

const OPEN = `
import resource
N = int(sys.argv[3])
resource.setrlimit(resource.RLIMIT_NOFILE, (N + 100, N + 100))
os.chdir(sys.argv[2])
fds = []
for at in range(N):
    fds.append(os.open(f"file{at}", os.O_CREAT | os.O_RDWR, 0o600))
    os.write(fds[at], b"%08d" % at)
os.chdir("/")
def bad():
    found = []
    for at, fd in enumerate(fds):
        try:
            if os.pread(fd, 8, 0) != b"%08d" % at: found.append([at, "wrong"])
        except OSError as error:
            found.append([at, errno.errorcode[error.errno]])
    return found
`

t.test('10,000 open files, and a failure under two of them', { skip }, async (t) => {
  const count = 10_000
  const mount = await mountRegion({ size: '128M', on: 'memory' })
  const before = descriptors(mount)
  const setup = OPEN.replaceAll('sys.argv[2]', JSON.stringify(mount.mountpoint)).replaceAll(
    'sys.argv[3]',
    String(count),
  )
  const client = new PythonClient(setup, [], 100_000)
  t.match(await client.ready, { ok: true })
  t.equal((await mount.status()).handles.open, count)
  for (const at of [17, 9999]) {
    const inject = ['inject', mount.mountpoint, '--file', mount.path(`file${at}`)]
    t.equal((await runProgram('holdfast', inject)).status, 0)
  }
  t.same((await client.evaluate('bad()', 60_000))?.value, [
    [17, 'EIO'],
    [9999, 'EIO'],
  ])
  t.equal((await mount.status()).handles.killed, 2)
  client.process.kill('SIGKILL')
  await client.ended
  t.equal(await openHandles(mount), 0, 'all are closed when the client is gone')
  t.ok(
    descriptors(mount) <= before + 4,
    `${before} descriptors before, ${descriptors(mount)} after`,
  )
  await mount.unmount()
})

/** A client that goes on until it is killed; resolves when it is in the middle of it. */
async function churn(mount: MountedRegion, kind: string) {
  const words = ['-B', '-u', clientPath('abuse.py'), 'churn', mount.mountpoint, kind]
  const child = spawn('python3', words, { stdio: ['ignore', 'pipe', 'inherit'] })
  const ended = new Promise((resolve) => child.once('exit', (_code, signal) => resolve(signal)))
  await new Promise((resolve) => createInterface({ input: child.stdout }).once('line', resolve))
  return { child, ended }
}

t.test('clients killed in the middle of what they do', { skip }, async (t) => {
  const mount = await mountRegion({ size: '128M', on: 'memory' })
  const before = descriptors(mount)
  for (let round = 0; round < 3; round++) {
    const kinds = ['write', 'list', 'names', 'mapped']
    const clients = await Promise.all(kinds.map((kind) => churn(mount, kind)))
    await sleep(50 * round)
    for (const { child } of clients) child.kill('SIGKILL')
    for (const { ended } of clients) t.equal(await ended, 'SIGKILL')
  }
  t.equal(await openHandles(mount), 0)
  t.ok(
    descriptors(mount) <= before + 4,
    `${before} descriptors before, ${descriptors(mount)} after`,
  )
  t.match(await mount.client('stat -c %s write-* | sort -u'), { stdout: `${4 << 20}\n` })
  t.match(await mount.client('head -c 6 mapped-* | grep -c ^mapped'), { stdout: '3\n' })
  await mount.unmount()
  await isClean(t, mount.region)
})

const LOCKS = `
import fcntl, struct
os.chdir(sys.argv[2]); flocked = os.open("locked", os.O_CREAT | os.O_RDWR); os.chdir("/")
def flock(): fcntl.flock(flocked, fcntl.LOCK_EX | fcntl.LOCK_NB)
def lockf(): fcntl.lockf(flocked, fcntl.LOCK_EX | fcntl.LOCK_NB)
`

t.test('locks of a client that is killed are free', { skip }, async (t) => {
  const mount = await mountRegion({ size: '32M' })
  const setup = LOCKS.replaceAll('sys.argv[2]', JSON.stringify(mount.mountpoint))
  const [one, other] = [new PythonClient(setup), new PythonClient(setup)]
  for (const lock of ['flock()', 'lockf()']) {
    t.match(await one.evaluate(lock), { ok: true })
    t.match(await other.evaluate(lock), { ok: false, error: /EAGAIN|EACCES/ })
  }
  one.process.kill('SIGKILL')
  await one.ended
  for (const lock of ['flock()', 'lockf()']) {
    t.match(await other.evaluate(lock), { ok: true }, lock)
  }
  other.process.kill('SIGKILL')
  await other.ended
  t.equal(await openHandles(mount), 0)
  await mount.unmount()
})

/** libc's own calls, for Python's go on after a signal. */
const INTERRUPTED = `
import ctypes, fcntl, signal, struct
libc = ctypes.CDLL(None, use_errno=True)
signal.signal(signal.SIGALRM, lambda *_: None)
signal.siginterrupt(signal.SIGALRM, True)
os.chdir(sys.argv[2])
fd = os.open("file", os.O_CREAT | os.O_RDWR, 0o600)
os.pwrite(fd, b"before", 0)
here = os.getcwd().encode()
os.chdir("/")
LOCK = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
def interrupted(call, *args):
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    result = getattr(libc, call)(*args)
    signal.setitimer(signal.ITIMER_REAL, 0)
    return errno.errorcode.get(ctypes.get_errno()) if result == -1 else result
calls = {
    "write": lambda: interrupted("write", fd, b"after!", 6),
    "ftruncate": lambda: interrupted("ftruncate", fd, 0),
    "mkdir": lambda: interrupted("mkdir", here + b"/made", 0o700),
    "unlink": lambda: interrupted("unlink", here + b"/file"),
    "lock": lambda: interrupted("fcntl", fd, fcntl.F_SETLKW, LOCK),
}
`

t.test('interrupted requests: EINTR, and nothing of them is done later', { skip }, async (t) => {
  const mount = await mountRegion({ size: '32M', options: ['cache=none'] })
  const setup = INTERRUPTED.replaceAll('sys.argv[2]', JSON.stringify(mount.mountpoint))
  const client = new PythonClient(setup)
  t.match(await client.ready, { ok: true })
  const other = new PythonClient(setup)
  t.match(await other.ready, { ok: true })
  t.match(await other.evaluate('fcntl.lockf(fd, fcntl.LOCK_EX)'), { ok: true })
  t.equal((await client.evaluate('calls["lock"]()'))?.value, 'EINTR', 'F_SETLKW')
  t.equal((await runProgram('holdfast', ['freeze', mount.mountpoint])).status, 0)
  for (const call of ['write', 'ftruncate', 'mkdir', 'unlink']) {
    t.equal((await client.evaluate(`calls["${call}"]()`))?.value, 'EINTR', call)
  }
  // One more waits when it is killed, and can be killed.
  void client.evaluate('os.pwrite(fd, b"killed", 0)')
  await sleep(200)
  client.process.kill('SIGKILL')
  t.equal(await client.ended, 'SIGKILL', 'a client that waits for the thaw can be killed')
  void other.evaluate('os.pwrite(fd, b"+", 6)')
  await sleep(200)
  t.equal((await runProgram('holdfast', ['thaw', mount.mountpoint])).status, 0)
  other.process.stdin?.end()
  await other.ended
  t.match(await mount.client('ls; cat file'), { stdout: 'file\nbefore+' })
  t.equal(await openHandles(mount), 0)
  await mount.unmount()
  await isClean(t, mount.region)
})
