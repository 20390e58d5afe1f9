/**
 * The kernel transport over a real mount of the real filesystem, in this process. Clients are
 * children with a hard time limit; this process never touches the mount itself.
 */
import { spawn } from 'node:child_process'
import { closeSync, ftruncateSync, mkdirSync, openSync } from 'node:fs'
import type { Socket } from 'node:net'
import { release } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { format } from '../mkfs/format.ts'
import { openDevice } from '../src/dax/device.ts'
import { fsDaxGet } from '../src/dax/holder.ts'
import { Filesystem } from '../src/fs/filesystem.ts'
import { Bugs } from '../src/fuse/bugs.ts'
import { type KernelOptions, type KernelTransport, mountKernel } from '../src/fuse/kernel.ts'
import { MountError } from '../src/fuse/mount.ts'
import { silent } from './support/core.ts'
import { cannotMount, lacks, notRoot, PythonClient, runPython, scratch } from './support/mounts.ts'

const MIB = 1024 * 1024
const skip = cannotMount() || lacks('python3')
const HELPERS = `
import ctypes, errno, mmap, os, sys
libc = ctypes.CDLL(None, use_errno=True)
def raises(name, run):
    try: value = run()
    except OSError as error:
        assert errno.errorcode[error.errno] == name, error
    else: raise AssertionError(f'{value}, not {name}')
def put(path, data):
    with open(path, 'wb') as file: file.write(data)
def get(path):
    with open(path, 'rb') as file: return file.read()
`

// A failed test may leave a client, and with it a mount, that keep this process from ending.
t.teardown(() => setTimeout(() => process.exit(), 3000).unref())

interface Mounted {
  fs: Filesystem
  transport: KernelTransport
  mountpoint: string
  /** Requests since the last call, as 'OPEN RELEASE', in the order they came. */
  requests(): string
  /** Runs Python in the mount; a failed assertion fails the test. */
  client(title: string, code: string, options?: { uid?: number }): Promise<void>
  /** Unmounts, mounts the region again. */
  again(): Promise<Mounted>
  end(): Promise<void>
}

type Checks = Pick<typeof t, 'equal' | 'match' | 'same' | 'teardown'>

/**
 * Takes the mount down when this process is gone, killed or not: its end of the pipe closes. We are
 * the daemon, so nothing else could answer there any more.
 */
function watchOver(mountpoint: string, directory: string): void {
  const script = `cat; umount -l "$1" || fusermount3 -uz "$1"; rm -rf --one-file-system "$2"`
  const watcher = spawn('sh', ['-c', script, 'sh', mountpoint, directory], {
    detached: true,
    stdio: ['pipe', 'ignore', 'ignore'],
  })
  watcher.unref()
  ;(watcher.stdin as Socket).unref()
}

function makeRegion(): { region: string; mountpoint: string } {
  const directory = scratch('memory')
  // One that is given is used by one test after the other: real device-dax, in test/devdax.
  const region = process.env.HOLDFAST_TEST_REGION ?? join(directory, 'region')
  const mountpoint = join(directory, 'mnt')
  mkdirSync(mountpoint)
  watchOver(mountpoint, directory)
  if (process.env.HOLDFAST_TEST_REGION === undefined) {
    const fd = openSync(region, 'w+')
    ftruncateSync(fd, 128 * MIB)
    closeSync(fd)
  }
  const device = openDevice(region)
  format(device.memory, { label: 'fuse', uid: 0, gid: 0, now: 1_700_000_000 })
  device.close()
  return { region, mountpoint }
}

async function mount(
  t: Checks,
  options: Partial<KernelOptions> = {},
  where = makeRegion(),
): Promise<Mounted> {
  const device = openDevice(where.region)
  fsDaxGet(device, { purpose: 'mount' })
  const fs = Filesystem.mount(device, {
    readOnly: false,
    commitSeconds: 1,
    onFailure: 'handles',
    logger: silent,
  })
  const lines: string[] = []
  const sentences: string[] = []
  const transport = await mountKernel(fs, device.memory, where.mountpoint, {
    fsname: where.region,
    debug: (line) => lines.push(line),
    logger: {
      info: (sentence) => sentences.push(sentence),
      warn: (sentence) => sentences.push(sentence),
      error: (sentence) => sentences.push(sentence),
    },
    ...options,
  })
  t.match(lines[0], /^FUSE 7\.\d+ \(kernel 7\.\d+\), cache=/, 'what was agreed is for debug')
  let ended = false
  // What a failed test leaves must not keep this process alive.
  t.teardown(async () => {
    if (ended) return
    await transport.unmount(true)
    transport.session.close()
    await fs.unmount().catch(() => {})
  })
  const end = async () => {
    await transport.unmount()
    ended = true
    t.equal(transport.session.nodes.count, 1, 'no node is left')
    await fs.unmount()
    device.close()
    t.same(sentences, [], 'nothing to complain of')
  }
  const opcodes = () => lines.splice(0).map((line) => line.split(' ')[1]!)
  return {
    fs,
    transport,
    mountpoint: where.mountpoint,
    requests: () => opcodes().join(' '),
    client: async (title, code, { uid } = {}) => {
      const outcome = await runPython(HELPERS + code, [], {
        cwd: where.mountpoint,
        ...(uid !== undefined && { uid, gid: uid }),
      })
      t.equal(outcome.status, 0, `${title} ${outcome.stderr}`)
    },
    again: async () => {
      await end()
      return mount(t, options, where)
    },
    end,
  }
}

const EVERYTHING = `
put('a', b'hello'); assert get('a') == b'hello'
with open('a', 'ab') as f: f.write(b' world')
assert get('a') == b'hello world' and os.stat('a').st_size == 11
os.truncate('a', 5); assert get('a') == b'hello'
os.truncate('a', 8); assert get('a') == b'hello\\0\\0\\0'
os.rename('a', 'b'); raises('ENOENT', lambda: os.stat('a'))
os.link('b', 'c'); assert os.stat('b').st_nlink == 2 and os.stat('c').st_ino == os.stat('b').st_ino
os.unlink('b'); assert os.stat('c').st_nlink == 1
os.symlink('../x/y', 's'); assert os.readlink('s') == '../x/y'
put('d', b'other'); raises('EEXIST', lambda: os.link('d', 'c'))
assert libc.renameat2(-100, b'c', -100, b'd', 1) == -1 and ctypes.get_errno() == errno.EEXIST
assert libc.renameat2(-100, b'c', -100, b'd', 2) == 0
assert get('c') == b'other' and get('d')[:5] == b'hello'
os.mkdir('dir'); put('dir/in', b'x'); raises('ENOTEMPTY', lambda: os.rmdir('dir'))
assert os.stat('.').st_nlink == 3
os.unlink('dir/in'); os.rmdir('dir'); assert os.stat('.').st_nlink == 2
fd = os.open('gone', os.O_RDWR | os.O_CREAT); os.unlink('gone')
os.write(fd, b'still'); assert os.pread(fd, 9, 0) == b'still' and os.fstat(fd).st_nlink == 0
os.close(fd)
fd = os.open('.', os.O_TMPFILE | os.O_RDWR); os.write(fd, b'tmp')
assert libc.linkat(-100, b'/proc/self/fd/%d' % fd, -100, b'named', 0x400) == 0
assert get('named') == b'tmp'
os.setxattr('c', 'user.k', b'v'); assert os.getxattr('c', 'user.k') == b'v'
assert os.listxattr('c') == ['user.k']; os.removexattr('c', 'user.k')
raises('ENODATA', lambda: os.getxattr('c', 'user.k'))
os.mkfifo('fifo'); os.mknod('null', 0o20600, os.makedev(259, 70000)) if os.getuid() == 0 else None
if os.getuid() == 0: assert os.stat('null').st_rdev == os.makedev(259, 70000)
os.utime('c', ns=(-5_000_000_001, 123_456_789)); s = os.stat('c')
assert s.st_atime_ns == -5_000_000_001 and s.st_mtime_ns == 123_456_789
fd = os.open('sparse', os.O_RDWR | os.O_CREAT); os.pwrite(fd, b'x', 10 << 20)
assert os.lseek(fd, 0, os.SEEK_DATA) in (10 << 20, 0 if writeback else -1)
assert os.lseek(fd, 0, os.SEEK_HOLE) in (0, (10 << 20) + 1 if writeback else -1)
os.posix_fallocate(fd, 0, 1 << 20); assert os.stat('sparse').st_blocks >= 2048
os.fsync(fd); os.fdatasync(fd); os.fsync(os.open('.', os.O_RDONLY))
big = os.urandom(3_000_001); put('big', big); assert get('big') == big
out = os.open('copy', os.O_RDWR | os.O_CREAT)
assert os.copy_file_range(os.open('big', os.O_RDONLY), out, len(big)) == len(big)
assert get('copy') == big
fd = os.open('map', os.O_RDWR | os.O_CREAT); os.ftruncate(fd, 1 << 20)
m = mmap.mmap(fd, 1 << 20); m[5000:5005] = b'pages'; m.flush(); m[900000:900003] = b'end'
os.close(fd); m.close()
assert get('map')[5000:5005] == b'pages' and get('map')[900000:900003] == b'end'
raises('ENAMETOOLONG', lambda: put('n' * 256, b'')); put('n' * 255, b'')
put(b'bytes \\xff\\xfe', b''); assert b'bytes \\xff\\xfe' in os.listdir(b'.')
assert os.statvfs('.').f_namemax == 255
fd = os.open('sync', os.O_WRONLY | os.O_CREAT | os.O_DSYNC); os.write(fd, b'durable')
`

const AFTERWARDS = `
assert get('c') == b'other' and get('named') == b'tmp' and os.readlink('s') == '../x/y'
assert get('big') == get('copy') and len(get('big')) == 3_000_001
assert get('map')[5000:5005] == b'pages' and get('map')[900000:900003] == b'end'
`

/** Since Linux 6.6 a file without a page cache can be mapped shared. */
const [MAJOR, MINOR] = release().split('.').map(Number) as [number, number]
const MAPS_UNCACHED = MAJOR > 6 || (MAJOR === 6 && MINOR >= 6)

const UNCACHED: [string, Partial<KernelOptions>] = ['cache=none', { cache: 'none' }]
const MODES: [string, Partial<KernelOptions>][] = [
  ['cache=keep', {}],
  ['cache=auto', { cache: 'auto' }],
  ...(MAPS_UNCACHED ? [UNCACHED] : []),
  ['writeback', { writeback: true }],
]

for (const [name, options] of MODES) {
  t.test(`every operation, ${name}`, { skip }, async (t) => {
    const first = await mount(t, options)
    const python = options.writeback ? 'True' : 'False'
    await first.client('operations', `writeback = ${python}\n${EVERYTHING}`)
    const second = await first.again()
    await second.client('after a new mount', AFTERWARDS)
    await second.end()
  })
}

t.test('a directory of 10,000', { skip }, async (t) => {
  const mounted = await mount(t)
  await mounted.client(
    'make, list, stat',
    `
for i in range(10000): os.close(os.open(f'file {i}', os.O_CREAT | os.O_WRONLY))
names = os.listdir('.'); assert len(names) == len(set(names)) == 10000
assert sum(entry.stat().st_size for entry in os.scandir('.')) == 0
`,
  )
  // The kernel may have to let its copy go at any time, but hardly every time.
  let again = ''
  for (let tries = 0; tries < 3; tries++) {
    mounted.requests()
    await mounted.client('list again', 'assert len(os.listdir(".")) == 10000')
    again = mounted.requests()
    if (!/READDIR|OPENDIR/.test(again)) break
  }
  t.notMatch(again, /READDIR|OPENDIR/, `from the cache: ${again.slice(0, 200)}`)
  await mounted.client(
    'remove while listing',
    `
for entry in os.scandir('.'): os.unlink(entry.name)
assert os.listdir('.') == []
`,
  )
  await mounted.end()
})

t.test('requests per operation', { skip }, async (t) => {
  const mounted = await mount(t)
  /** Set-up, the operation, and the requests the operation may cost. */
  const costs = async (setup: string, operation: string, expected: string) => {
    const client = new PythonClient(`os.chdir(sys.argv[2]); exec(${JSON.stringify(setup)})`, [
      mounted.mountpoint,
    ])
    t.match(await client.ready, { ok: true }, setup)
    await new Promise((resolve) => setTimeout(resolve, 50))
    mounted.requests()
    t.match(await client.evaluate(operation), { ok: true }, operation)
    // RELEASE and FORGET come when the kernel finds the time.
    const seen: string[] = []
    for (let tries = 0; tries < 20; tries++) {
      await new Promise((resolve) => setTimeout(resolve, 50))
      seen.push(...mounted.requests().split(' ').filter(Boolean))
      if (seen.join(' ') === expected) break
    }
    t.equal(seen.join(' '), expected, `${operation}: ${expected || 'nothing'}`)
    await client.stop()
  }
  const touch = (name: string) => `os.close(os.open('${name}', os.O_CREAT | os.O_WRONLY))`
  await costs(`${touch('f')}; os.stat('f')`, "os.stat('f').st_size", '')
  await costs("os.stat('f')", "os.close(os.open('f', os.O_RDONLY))", 'OPEN RELEASE')
  await costs(
    "os.path.exists('missing'); os.path.exists('missing')",
    "os.path.exists('missing')",
    '',
  )
  await costs("os.path.exists('m'); os.stat('.')", touch('m'), 'CREATE RELEASE')
  await costs("os.stat('.')", touch('new'), 'LOOKUP CREATE RELEASE')
  await costs("os.stat('new'); os.stat('.')", "os.unlink('new')", 'UNLINK FORGET')
  await costs("os.stat('f'); os.stat('.')", "os.rename('f', 'g')", 'LOOKUP RENAME')
  await costs(
    "fd = os.open('g', os.O_RDWR); os.write(fd, b'x' * 8192)",
    "os.pwrite(fd, b'y', 1)",
    'WRITE',
  )
  await costs("fd = os.open('g', os.O_RDWR)", 'len(os.pread(fd, 8192, 0))', '')
  await costs("os.listdir('.'); os.stat('.')", "len(os.listdir('.'))", '')
  await costs("os.symlink('x', 'l'); os.readlink('l')", "os.readlink('l')", '')
  await mounted.end()
})

t.test('permissions are checked, suid is dropped', { skip: skip || notRoot() }, async (t) => {
  const mounted = await mount(t, { allowOther: true })
  const owner = `
os.chmod('.', 0o755); os.mkdir('private', 0o700)
put('tool', open('/bin/true', 'rb').read()); os.chmod('tool', 0o6777)
assert os.stat('tool').st_mode & 0o7777 == 0o6777
`
  await mounted.client('as the owner', owner)
  const other = `
raises('EACCES', lambda: os.listdir('private')); raises('EACCES', lambda: os.mkdir('mine'))
fd = os.open('tool', os.O_WRONLY); os.pwrite(fd, b'\\x7f', 0); os.close(fd)
assert os.stat('tool').st_mode & 0o7777 == 0o777
`
  await mounted.client('as another', other, { uid: 65534 })
  await mounted.client('again', "os.chmod('tool', 0o6777)")
  const truncate = `
os.close(os.open('tool', os.O_WRONLY | os.O_TRUNC))
assert os.stat('tool').st_mode & 0o7777 == 0o777
`
  await mounted.client('truncated by another', truncate, { uid: 65534 })
  await mounted.end()
})

t.test('a killed file', { skip }, async (t) => {
  for (const [name, options] of MODES) {
    const mounted = await mount(t, options)
    const client = new PythonClient(
      `
os.chdir(sys.argv[2])
for name in ('victim', 'bystander'):
    with open(name, 'wb') as f: f.write(b'A' * 65536)
os.link('victim', 'second name')
fd = os.open('victim', os.O_RDWR); safe = os.open('bystander', os.O_RDWR); os.fsync(fd)
m = mmap.mmap(fd, 65536); m[40960:40965] = b'dirty'; m2 = mmap.mmap(safe, 65536)
`,
      [mounted.mountpoint],
    )
    t.match(await client.ready, { ok: true })
    const ask = async (code: string) => {
      const answer = await client.evaluate(code)
      return answer?.ok ? answer.value : answer?.error
    }
    const ino = Number(await ask("os.stat('victim').st_ino"))
    mounted.fs.administration.inject({
      target: { kind: 'file', inode: ino, fileOffset: 4096 },
      length: 4096,
      method: 'soft',
    })
    await mounted.transport.cache.idle()
    t.comment(name)
    t.equal(await ask('os.pread(fd, 5, 8192)'), 'EIO', 'a read through the old handle')
    t.equal(await ask("os.pwrite(fd, b'x', 8192)"), 'EIO')
    t.equal(await ask('os.fstat(fd).st_size'), 'EIO')
    t.equal(await ask("os.stat('victim').st_ino"), ino, 'the same st_ino')
    t.equal(await ask("os.stat('second name').st_ino"), ino)
    t.equal(await ask("globals().update(new=os.open('second name', os.O_RDWR))"), null)
    t.equal(await ask('os.pread(new, 5, 8192).decode()'), 'AAAAA', 'a healthy block')
    t.equal(await ask('os.pread(new, 5, 40960).decode()'), 'dirty', 'a page that was dirty')
    t.equal(await ask('os.pread(new, 5, 4096)'), 'EIO', 'the poisoned block')
    t.equal(await ask('len(os.pread(new, 65536, 8192))'), 57344)
    t.equal(await ask('os.pread(fd, 5, 8192)'), 'EIO', 'the old handle stays dead')
    t.equal(await ask("os.pwrite(new, b'B' * 4096, 4096)"), 4096, 'overwriting heals')
    t.equal(await ask('os.pread(new, 5, 4096).decode()'), 'BBBBB')
    t.equal(await ask('os.pread(safe, 5, 0).decode() + m2[:5].decode()'), 'AAAAAAAAAA')
    await client.evaluate('m[8192]')
    t.equal(await client.ended, 'SIGBUS', 'touching the old mapping')
    await mounted.end()
  }
})

t.test('a shutdown', { skip }, async (t) => {
  const mounted = await mount(t)
  const client = new PythonClient(
    `
os.chdir(sys.argv[2]); os.mkdir('d')
with open('d/f', 'wb') as f: f.write(b'A' * 65536)
fd = os.open('d/f', os.O_RDWR); m = mmap.mmap(fd, 65536); m[5]
os.stat('d/f'); os.listdir('.'); os.listdir('d')
`,
    [mounted.mountpoint],
  )
  t.match(await client.ready, { ok: true })
  mounted.fs.administration.shutdown('test')
  await mounted.transport.cache.idle()
  for (const code of [
    "os.stat('d/f')",
    "os.open('d/f', os.O_RDONLY)",
    "os.listdir('.')",
    'os.pread(fd, 5, 8192)',
    'os.fstat(fd)',
    "os.mkdir('x')",
  ]) {
    t.match(await client.evaluate(code), { ok: false, error: 'EIO' }, code)
  }
  t.match(await client.evaluate("os.stat('.').st_mode"), { ok: true }, 'the root can be unmounted')
  await client.evaluate('m[5]')
  t.equal(await client.ended, 'SIGBUS')
  await mounted.end()
})

t.test('mounting and unmounting', { skip }, async (t) => {
  const where = makeRegion()
  const nowhere = join(where.mountpoint, 'missing')
  const options = { fsname: 'x' }
  const refused = mountKernel({ readOnly: true } as never, { mapId: undefined }, nowhere, options)
  await t.rejects(refused, { name: 'MountError', code: 'ENOENT' })
  const mounted = await mount(t, { flags: ['nodev', 'nosuid'] }, where)
  const client = new PythonClient("os.chdir(sys.argv[2]); fd = os.open('f', os.O_CREAT)", [
    where.mountpoint,
  ])
  t.match(await client.ready, { ok: true })
  await mounted.client('flags', `assert os.statvfs('.').f_flag & 6 == 6`)
  await t.rejects(mounted.transport.unmount(), MountError)
  await t.rejects(mounted.transport.unmount(), { code: 'EBUSY' })
  await client.stop()
  await mounted.end()
})

t.test('frozen: changes wait, the rest goes on', { skip }, async (t) => {
  const mounted = await mount(t)
  await mounted.client('before', "put('f', b'x' * 4096); os.mkdir('sub')")
  await mounted.fs.administration.freeze()
  let done = false
  // In a directory of its own: the kernel holds its lock until we answer, and a listing would wait.
  const waiting = mounted.client('changes', "os.mkdir('sub/d'); put('sub/g', b'y')").then(() => {
    done = true
  })
  await mounted.client('reads', "assert get('f')[:1] == b'x' and os.path.exists('.')")
  t.equal(done, false)
  mounted.fs.administration.thaw()
  await waiting
  await mounted.client('after', "assert os.listdir('sub/d') == [] and get('sub/g') == b'y'")
  await mounted.end()
})

t.test('through fusermount3', { skip }, async (t) => {
  const mounted = await mount(t, { helper: true })
  await mounted.client('usable', "put('f', b'x'); assert os.statvfs('.').f_flag & 6 == 6")
  await mounted.end()
})

t.test('read-only', { skip }, async (t) => {
  const mounted = await mount(t, { readOnly: true })
  await mounted.client('refused', "raises('EROFS', lambda: os.mkdir('d'))")
  await mounted.end()
})

const FAR_TIMES = `
last = 2 ** 53 - 1
def seconds(path): s = os.stat(path); return s.st_atime_ns // 10**9, s.st_mtime_ns // 10**9
put('t', b'')
for far in (last, 2 ** 53, 2 ** 55 + 12345, 2 ** 62):
    os.utime('t', (far, -far)); assert seconds('t') == (last, -last), (far, os.stat('t'))
    os.utime('t', ns=(far * 10**9 + 5, 7)); assert os.stat('t').st_atime_ns == last * 10**9
os.utime('t', (2 ** 40, -2 ** 55)); assert seconds('t') == (2 ** 40, -last)
`

t.test('times that no inode can store become the nearest, as on ext4', { skip }, async (t) => {
  const mounted = await mount(t)
  await mounted.client('set', FAR_TIMES)
  const again = await mounted.again()
  await again.client('kept', "s = os.stat('t'); assert s.st_mtime_ns == -(2**53 - 1) * 10**9, s")
  await again.end()
})

t.test('bugs are logged once a kind, and not without end', async (t) => {
  const lines: string[] = []
  const bugs = new Bugs({ ...silent, error: (line) => void lines.push(line) })
  for (let i = 0; i < 3; i++) bugs.tell('LOOKUP', new RangeError('one'))
  t.match(lines, [/^LOOKUP: RangeError: one\n +at /])
  for (let i = 0; i < 1000; i++) bugs.tell('SETATTR', new RangeError(`the number ${i}`))
  t.equal(lines.length, 101)
  t.match(lines.at(-1), /not logged/)
})
