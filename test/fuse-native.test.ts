/**
 * The fuse-native transport over real mounts: files, failures, and that the kernel transport finds
 * the same afterwards. Clients are children with a hard time limit.
 */
import t from 'tap'
import { readMounts } from '../src/control/mountinfo.ts'
import {
  cannotMount,
  lacks,
  type MountedRegion,
  mountRegion,
  PythonClient,
  runClient,
  runProgram,
  sleep,
} from './support/mounts.ts'

const skip = cannotMount('fuse-native') || lacks('python3')
if (skip) t.comment(`skipped: ${skip}`)

const HELPERS = `
import ctypes, errno, hashlib, os, sys
libc = ctypes.CDLL(None, use_errno=True)
def raises(name, run):
    try: value = run()
    except OSError as error: assert errno.errorcode[error.errno] == name, error
    else: raise AssertionError(f'{value}, not {name}')
def put(path, data):
    with open(path, 'wb') as file: file.write(data)
def get(path):
    with open(path, 'rb') as file: return file.read()
def pattern(size):
    return b''.join(hashlib.sha256(b'%d' % i).digest() for i in range(size // 32))
`

const OPERATIONS = `
big = pattern(3 << 20); put('big', big); assert get('big') == big
put('a', b'hello')
with open('a', 'ab') as f: f.write(b' world')
assert get('a') == b'hello world' and os.stat('a').st_size == 11
os.truncate('a', 5); assert get('a') == b'hello'
fd = os.open('a', os.O_RDWR); os.ftruncate(fd, 8); assert os.fstat(fd).st_size == 8; os.close(fd)
assert get('a') == b'hello\\0\\0\\0'
os.rename('a', 'b'); raises('ENOENT', lambda: os.stat('a'))
os.link('b', 'c'); assert os.stat('c').st_ino == os.stat('b').st_ino
os.unlink('b'); raises('ENOENT', lambda: os.stat('b')); assert get('c')[:5] == b'hello'
os.symlink('../x/y', 's'); assert os.readlink('s') == '../x/y'
os.mkdir('dir', 0o750); assert os.stat('dir').st_mode & 0o777 == 0o750
put('dir/in', b'x'); raises('ENOTEMPTY', lambda: os.rmdir('dir'))
assert os.listdir('dir') == ['in']
os.rename('dir/in', 'moved'); os.rmdir('dir'); assert get('moved') == b'x'
fd = os.open('gone', os.O_RDWR | os.O_CREAT); os.unlink('gone'); os.write(fd, b'still')
assert os.pread(fd, 9, 0) == b'still'; os.close(fd)
os.mkfifo('fifo'); os.chmod('c', 0o640); assert os.stat('c').st_mode & 0o7777 == 0o640
if os.getuid() == 0: os.chown('c', 12, 34); assert os.stat('c').st_gid == 34
os.utime('c', ns=(1_000_123_000_000, 2_000_456_000_000)); s = os.stat('c')
assert (s.st_atime_ns, s.st_mtime_ns) == (1_000_123_000_000, 2_000_456_000_000), s
os.setxattr('c', 'user.k', b'v' * 300); assert os.getxattr('c', 'user.k') == b'v' * 300
assert os.listxattr('c') == ['user.k']
small = ctypes.create_string_buffer(10)
assert libc.getxattr(b'c', b'user.k', None, 0) == 300
assert libc.getxattr(b'c', b'user.k', small, 10) == -1 and ctypes.get_errno() == errno.ERANGE
assert libc.listxattr(b'c', small, 3) == -1 and ctypes.get_errno() == errno.ERANGE
raises('ENODATA', lambda: os.getxattr('c', 'user.other'))
os.removexattr('c', 'user.k'); assert os.listxattr('c') == []
fd = os.open('c', os.O_RDWR); os.fsync(fd); os.fdatasync(fd); os.close(fd)
fd = os.open('.', os.O_RDONLY); os.fsync(fd); os.close(fd)
v = os.statvfs('.'); assert v.f_namemax == 255 and v.f_blocks > v.f_bfree > 0
raises('EILSEQ', lambda: put(b'n\\xff', b'')); put('ünïcode', b'u'); assert 'ünïcode' in os.listdir('.')
for i in range(300): put(f'many {i}', b'')
assert len([n for n in os.listdir('.') if n.startswith('many')]) == 300
for i in range(300): os.unlink(f'many {i}')
`

const AFTERWARDS = `
assert get('big') == pattern(3 << 20) and get('moved') == b'x' and os.readlink('s') == '../x/y'
s = os.stat('c'); assert s.st_mtime_ns == 2_000_456_000_000 and s.st_mode & 0o7777 == 0o640
assert sorted(os.listdir('.')) == ['big', 'c', 'fifo', 'moved', 's', 'ünïcode'], os.listdir('.')
`

async function python(
  t: Pick<typeof import('tap').t, 'equal'>,
  mounted: MountedRegion,
  title: string,
  code: string,
) {
  const outcome = await mounted.client(['python3', '-c', HELPERS + code])
  t.equal(outcome.status, 0, `${title} ${outcome.stderr}`)
}

async function holdfast(
  t: Pick<typeof import('tap').t, 'equal'>,
  ...words: string[]
): Promise<void> {
  const outcome = await runProgram('holdfast', words)
  t.equal(outcome.status, 0, `holdfast ${words.join(' ')} ${outcome.stderr}`)
}

t.test('every operation; the kernel transport finds the same', { skip }, async (t) => {
  const mounted = await mountRegion({ transport: 'fuse-native' })
  const mount = readMounts().find(({ mountpoint }) => mountpoint === mounted.mountpoint)
  t.match(mount, { type: 'fuse.holdfast', source: mounted.region })
  t.match(await mounted.status(), { transport: 'fuse-native' })
  await python(t, mounted, 'operations', OPERATIONS)
  await mounted.unmount()
  t.equal(mounted.logText().includes(' at '), false, `no stack in the log ${mounted.logText()}`)
  const kernel = await mounted.mountAgain({ transport: 'kernel' })
  await python(t, kernel, 'through the kernel transport', AFTERWARDS)
  await kernel.unmount()
})

const SETUP = `
os.chdir(sys.argv[2])
for name in ('victim', 'bystander'):
    with open(name, 'wb') as f: f.write(b'A' * 65536)
os.sync()
fd = os.open('victim', os.O_RDWR); safe = os.open('bystander', os.O_RDWR)
`

for (const cache of ['keep', 'none']) {
  t.test(`a failure in an open file, cache=${cache}`, { skip }, async (t) => {
    const options = [`cache=${cache}`]
    const mounted = await mountRegion({ transport: 'fuse-native', options })
    const map = cache === 'none' ? '' : '\nm = mmap.mmap(fd, 65536); m[8192]'
    const client = new PythonClient(SETUP + map, [mounted.mountpoint])
    t.match(await client.ready, { ok: true })
    const ask = async (code: string) => {
      const answer = await client.evaluate(code)
      return answer?.ok ? answer.value : answer?.error
    }
    t.equal(await ask('os.pread(fd, 5, 8192).decode()'), 'AAAAA', 'in the page cache')
    await holdfast(
      t,
      'inject',
      mounted.mountpoint,
      '--file',
      mounted.path('victim'),
      '--offset',
      '4096',
    )
    await sleep(1500)
    t.equal(await ask('os.pread(fd, 5, 8192)'), 'EIO', 'the old handle')
    t.equal(await ask("os.pwrite(fd, b'x', 8192)"), 'EIO')
    t.equal(await ask('os.pread(safe, 5, 0).decode()'), 'AAAAA', 'another file')
    t.equal(await ask("os.pwrite(safe, b'B', 0)"), 1)
    t.equal(await ask("globals().update(new=os.open('victim', os.O_RDWR))"), null)
    t.equal(await ask('os.pread(new, 5, 4096)'), 'EIO', 'the poisoned block')
    t.equal(await ask('os.pread(new, 5, 8192).decode()'), 'AAAAA', 'a healthy block')
    t.equal(await ask('os.pread(fd, 5, 8192)'), 'EIO', 'the old handle stays dead')
    t.equal(await ask('sorted(os.listdir(".")).__str__()'), "['bystander', 'victim']")
    if (cache === 'none') await client.stop()
    else {
      await client.evaluate('m[8192]')
      t.equal(await client.ended, 'SIGBUS', 'touching the old mapping')
    }
    const left = await mounted.client('ls -A && cat bystander | wc -c')
    t.equal(left.stdout, 'bystander\nvictim\n65536\n')
    await mounted.unmount()
  })
}

t.test('a failure in metadata', { skip }, async (t) => {
  const mounted = await mountRegion({ transport: 'fuse-native' })
  const client = new PythonClient(`${SETUP}os.pread(fd, 5, 8192)`, [mounted.mountpoint])
  t.match(await client.ready, { ok: true })
  await holdfast(t, 'inject', '--metadata', 'journal', mounted.mountpoint)
  await sleep(1500)
  for (const code of [
    'os.pread(fd, 5, 8192)',
    "os.pwrite(fd, b'x', 0)",
    "os.stat('victim')",
    "os.open('victim', os.O_RDONLY)",
    "os.listdir('.')",
    "os.mkdir('x')",
  ]) {
    t.match(await client.evaluate(code), { ok: false, error: 'EIO' }, code)
  }
  await client.stop()
  await mounted.unmount()
})

t.test('plain umount, lazily while a file is open', { skip }, async (t) => {
  const mounted = await mountRegion({ transport: 'fuse-native' })
  const client = new PythonClient(
    "os.chdir(sys.argv[2]); fd = os.open('f', os.O_RDWR | os.O_CREAT); os.chdir('/')",
    [mounted.mountpoint],
  )
  t.match(await client.ready, { ok: true })
  const command = process.getuid?.() === 0 ? 'umount' : 'fusermount3 -u'
  const busy = await runClient(`${command} ${mounted.mountpoint}`)
  t.not(busy.status, 0, 'busy')
  const lazy = command === 'umount' ? 'umount -l' : 'fusermount3 -uz'
  t.equal((await runClient(`${lazy} ${mounted.mountpoint}`)).status, 0)
  await sleep(1200)
  t.match(await client.evaluate("os.write(fd, b'late')"), { ok: true }, 'still served')
  await client.stop()
  const kernel = await mounted.mountAgain({ transport: 'kernel' })
  await python(t, kernel, 'what was written late', "assert get('f') == b'late'")
  await kernel.unmount()
})
