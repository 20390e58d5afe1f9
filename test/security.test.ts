/** The threat model of docs/SECURITY.md over a real mount: other users, and clients that misbehave. */
import {
  chmodSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { createConnection, type Socket } from 'node:net'
import { dirname, join } from 'node:path'
import t from 'tap'
import { ControlClient } from '../src/control/client.ts'
import { MAX_LINE } from '../src/control/protocol.ts'
import { resolveTarget } from '../src/control/target.ts'
import { EINVAL, ENOSYS } from '../src/fs/errors.ts'
import { Random } from './crash/random.ts'
import {
  cannotMount,
  lacks,
  type MountedRegion,
  mountRegion,
  notRoot,
  type Outcome,
  ROOT,
  runClient,
  scratch,
  sleep,
} from './support/mounts.ts'

const NOBODY = '65534'
const HOLDFAST = join(ROOT, 'src/cli/bin/holdfast.mjs')

/** A command as somebody who has nothing to do with the mount. */
function asNobody(words: readonly string[]): Promise<Outcome> {
  const drop = ['setpriv', `--reuid=${NOBODY}`, `--regid=${NOBODY}`, '--clear-groups', '--']
  return runClient([...drop, 'env', '-u', 'XDG_RUNTIME_DIR', ...words])
}

const skip = cannotMount() || notRoot() || lacks('setpriv')

function socketOf(mount: MountedRegion): string {
  const { socket } = resolveTarget(mount.region)
  if (socket === undefined) throw new Error('the daemon has no socket')
  return socket
}

t.test('another user', { skip }, async (t) => {
  const mount = await mountRegion()
  const secret = mount.path('secret')
  t.equal((await mount.client('echo secret > secret && chmod 644 secret')).status, 0)
  const socket = socketOf(mount)

  await t.test('cannot read or list the mount', async (t) => {
    for (const words of [
      ['cat', secret],
      ['ls', mount.mountpoint],
      ['stat', secret],
      ['sh', '-c', `echo x > ${secret}`],
    ]) {
      const { status, stdout } = await asNobody(words)
      t.not(status, 0, words.join(' '))
      t.notMatch(stdout, 'secret')
    }
  })

  await t.test('cannot read the region, nor what lies beside the socket', async (t) => {
    t.equal(statSync(mount.region).mode & 0o777, 0o600, 'the region file')
    t.not((await asNobody(['cat', mount.region])).status, 0)
    t.equal(statSync(socket).mode & 0o777, 0o600, 'the socket')
    const key = socket.slice(dirname(socket).length + 1, -'.sock'.length)
    const own = readdirSync(dirname(socket)).filter((name) => name.startsWith(key))
    t.ok(own.length >= 2, own.join(' '))
    for (const name of own) {
      const { mode, uid } = statSync(join(dirname(socket), name))
      t.equal(mode & 0o022, 0, `${name} is written by its owner only`)
      t.equal(uid, 0)
    }
    t.not(
      (await asNobody(['sh', '-c', `echo > ${join(dirname(socket), 'planted.json')}`])).status,
      0,
    )
  })

  await t.test('cannot ask the control socket, nor inject', async (t) => {
    const python =
      'import socket,sys; s=socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); print(s.recv(9))'
    t.match(await asNobody(['python3', '-c', python, socket]), { stderr: /PermissionError/ })
    for (const words of [
      ['status', mount.mountpoint],
      ['getmap', secret],
      ['inject', mount.mountpoint, '--metadata', 'superblock'],
      ['shutdown', mount.mountpoint],
      ['scrub', mount.region],
      ['freeze', mount.region],
      ['umount', mount.mountpoint],
      ['rmap', mount.region],
    ]) {
      const { status, stdout } = await asNobody([HOLDFAST, ...words])
      t.not(status, 0, words.join(' '))
      t.notMatch(stdout, /uuid|journal/)
    }
    t.equal((await mount.status()).state, 'mounted')
  })

  await t.test('is hung up on where the mode of the socket does not stop him', async (t) => {
    const python = `import socket, sys
s = socket.socket(socket.AF_UNIX)
s.connect(sys.argv[1])
try:
    s.sendall(b'{"id":1,"method":"status"}\\n{"id":2,"method":"shutdown","params":{"reason":"x"}}\\n')
    answer = s.recv(9)
except (BrokenPipeError, ConnectionResetError):
    answer = b""
print("answer", answer)`
    chmodSync(socket, 0o666)
    try {
      t.match(await asNobody(['python3', '-c', python, socket]), { stdout: "answer b''\n" })
      const own = await runClient(['python3', '-c', python.replace('shutdown', 'none'), socket])
      t.match(own, { stdout: /answer b'\{/ }, 'its owner is answered')
    } finally {
      chmodSync(socket, 0o600)
    }
    t.match(mount.logText(), `control socket: refused user ${NOBODY}`)
    t.equal((await mount.status()).state, 'mounted')
  })

  await t.test('cannot mount over it, nor claim or check its region', async (t) => {
    const theirs = join(scratch(), 'theirs')
    mkdirSync(theirs)
    chmodSync(theirs, 0o777)
    const region = join(theirs, 'region')
    const made = await asNobody([join(ROOT, 'mkfs/mkfs.holdfast.mjs'), '--size', '32M', region])
    t.equal(made.status, 0, made.stderr)
    t.equal(statSync(region).mode & 0o777, 0o600)
    t.not((await asNobody([HOLDFAST, 'mount', region, mount.mountpoint])).status, 0)
    t.not((await asNobody([HOLDFAST, 'mount', mount.region, theirs])).status, 0)
    for (const program of ['mkfs/mkfs.holdfast.mjs', 'tools/fsck.holdfast.mjs']) {
      t.not((await asNobody([join(ROOT, program), mount.region])).status, 0, program)
    }
    t.match(await mount.client('cat secret'), { stdout: 'secret\n' })
  })

  await mount.unmount()
})

t.test('a mount of root is closed to others, unless with allow_other', { skip }, async (t) => {
  for (const options of [[], ['allow_other']]) {
    const open = options.length > 0
    const mount = await mountRegion({ options })
    const { mountpoint } = mount
    // Every mode lets him in: it is the mount that does not.
    t.equal((await mount.client('chmod 777 . && echo shared > a && chmod 666 a')).status, 0)
    for (const [script, seen] of [
      [`ls ${mountpoint}`, 'a\n'],
      [`cat ${mount.path('a')}`, 'shared\n'],
      [`stat -c %s ${mount.path('a')}`, '7\n'],
      [`cd ${mountpoint} && pwd`, `${mountpoint}\n`],
      [`touch ${mount.path('b')}`, ''],
      [`echo more >> ${mount.path('a')}`, ''],
    ] as const) {
      const what = `${script} ${options}`
      const { status, stdout, stderr } = await asNobody(['bash', '-c', script])
      t.equal(status === 0, open, what)
      t.equal(stdout, open ? seen : '', what)
      if (!open) t.match(stderr, /Permission denied/, what)
    }
    const left = await mount.client('cat a; ls')
    t.equal(left.stdout, open ? 'shared\nmore\na\nb\n' : 'shared\na\n')
    await mount.unmount()
  }
})

/** Runs fusermount3 as libfuse does. */
const ASK_FUSERMOUNT = `
import os, socket, subprocess, sys
ours, theirs = socket.socketpair()
env = {**os.environ, '_FUSE_COMMFD': str(theirs.fileno())}
sys.exit(subprocess.run(sys.argv[1:], env=env, pass_fds=[theirs.fileno()]).returncode)`

/** In a mount namespace where everybody may open /dev/fuse, as on most hosts. */
const OPEN_FUSE = `mknod "$1" c 10 229 && chmod 666 "$1" && mount --bind "$1" /dev/fuse || exit 99
shift; exec "$@"`

const toMountOver = skip || lacks('unshare', 'fusermount3', 'python3')

t.test('nobody else mounts over a mount of root', { skip: toMountOver }, async (t) => {
  const mount = await mountRegion()
  t.equal((await mount.client('mkdir d && chmod 777 . d')).status, 0)
  const own = scratch()
  chmodSync(own, 0o777)
  const node = join(scratch(), 'fuse')
  const over = async (directory: string) => {
    rmSync(node, { force: true })
    const drop = ['setpriv', `--reuid=${NOBODY}`, `--regid=${NOBODY}`, '--clear-groups', '--']
    const ask = ['python3', '-c', ASK_FUSERMOUNT, ...drop, 'fusermount3', '--', directory]
    return runClient(['unshare', '--mount', 'sh', '-c', OPEN_FUSE, 'sh', node, ...ask])
  }
  const elsewhere = await over(own)
  if (elsewhere.status === 99) {
    t.comment(`he cannot use /dev/fuse at all here: ${elsewhere.stderr}`)
    return
  }
  t.match(elsewhere, { status: 0, stderr: '' }, 'where he may write he may mount')
  for (const directory of [mount.mountpoint, mount.path('d')]) {
    t.match(await over(directory), { status: 1, stderr: /access mountpoint.*Permission denied/ })
  }
  t.equal((await mount.client('ls')).stdout, 'd\n')
  await mount.unmount()
})

t.test(
  'everybody may write where it is made: still nobody else may open it',
  { skip },
  async (t) => {
    const directory = scratch()
    chmodSync(directory, 0o777)
    const [region, mountpoint, log] = ['region', 'mnt', 'log'].map((name) => join(directory, name))
    mkdirSync(mountpoint!)
    const make = `${join(ROOT, 'mkfs/mkfs.holdfast.mjs')} --size 32M ${region}`
    const mount = `${HOLDFAST} mount -o log=${log} ${region} ${mountpoint}`
    const made = await runClient(`umask 0 && ${make} && ${mount}`)
    t.equal(made.status, 0, made.stderr)
    const { socket } = resolveTarget(region!)
    t.equal(statSync(region!).mode & 0o777, 0o600, 'the region file')
    t.equal(statSync(socket!).mode & 0o777, 0o600, 'the socket')
    t.equal(statSync(log!).mode & 0o022, 0, 'the log')
    for (const path of [region!, socket!]) t.not((await asNobody(['cat', path])).status, 0, path)
    t.equal((await runClient([HOLDFAST, 'umount', mountpoint!])).status, 0)
  },
)

t.test('a link in the mount leads a user nowhere that is closed to him', { skip }, async (t) => {
  const mount = await mountRegion({ options: ['allow_other'] })
  const closed = scratch()
  const bait = join(closed, 'bait')
  writeFileSync(bait, 'bait')
  chmodSync(closed, 0o700)
  t.equal((await mount.client(`chmod 777 . && ln -s ${bait} link && ln -s ../.. up`)).status, 0)
  chmodSync(dirname(mount.mountpoint), 0o755)
  for (const words of [
    ['cat', mount.path('link')],
    ['sh', '-c', `echo x > ${mount.path('link')}`],
    ['ls', join(mount.path('up'), closed)],
    [HOLDFAST, 'getmap', mount.path('link')],
  ]) {
    const { status, stdout } = await asNobody(words)
    t.not(status, 0, words.join(' '))
    t.notMatch(stdout, 'bait')
  }
  t.equal(readFileSync(bait, 'utf8'), 'bait')
  t.match(await asNobody(['readlink', mount.path('link')]), { status: 0, stdout: `${bait}\n` })
  await mount.unmount()
})

/** Sends what it is given, ignores what comes back; resolves when the daemon hung up or at once. */
function send(path: string, bytes: Buffer | string, stay = false): Promise<Socket | undefined> {
  return new Promise((resolve) => {
    const socket = createConnection(path, () => {
      socket.write(bytes, () => (stay ? resolve(socket) : socket.destroy()))
    })
    socket.resume()
    socket.on('error', () => resolve(undefined)).on('close', () => resolve(undefined))
  })
}

function garbage(random: Random): Buffer | string {
  const requests = [
    '{"id":1,"method":"status"}',
    '{"id":1,"method":"scrub","params":{"action":"start","rate":1e308}}',
    '{"id":1,"method":"inject","params":{"target":{"kind":"offset","offset":-1},"length":1}}',
    '{"id":1,"method":"getmap","params":{"inode":{"toString":1}}}',
    '{"id":1,"method":"rmap","params":{"offset":9007199254740991,"length":9007199254740991,"limit":1}}',
    '{"id":1,"method":"constructor","params":{"__proto__":{"x":1}}}',
    '{"id":1,"method":"clearPoison","params":{"range":[]}}',
    `{"id":1,"method":"status","params":${'['.repeat(5000)}}`,
  ]
  switch (random.below(5)) {
    case 0:
      return Buffer.from(Array.from({ length: random.below(3000) }, () => random.below(256)))
    case 1:
      return random.pick(requests).slice(0, random.below(60))
    case 2:
      return Buffer.alloc(MAX_LINE + random.below(MAX_LINE), 0x61)
    case 3: {
      const bytes = Buffer.from(`${random.pick(requests)}\n`)
      bytes[random.below(bytes.length)] = random.below(256)
      return bytes
    }
    default:
      return `${random.pick(requests)}\n`.repeat(1 + random.below(20))
  }
}

t.test('garbage on the control socket', { skip: cannotMount() }, async (t) => {
  const mount = await mountRegion()
  const socket = socketOf(mount)
  const seed = Date.now() % 100_000
  const random = new Random(seed)
  t.comment(`seed ${seed}`)
  const descriptors = () => readdirSync(`/proc/${mount.pid}/fd`).length
  const before = descriptors()
  for (let round = 0; round < 60; round++) {
    await Promise.all(Array.from({ length: 5 }, () => send(socket, garbage(random))))
  }
  t.equal((await mount.status()).state, 'mounted', 'it survives 300 clients that talk nonsense')
  const lines = mount.logText().split('\n')
  const said = lines.filter((line) => line.includes('control socket'))
  t.ok(
    said.some((line) => line.includes('not JSON')),
    'it says so',
  )
  for (const line of new Set(said.map((text) => text.replace(/^\S+ /, '')))) {
    const times = said.filter((text) => text.endsWith(line)).length
    t.equal(times, 1, `once: ${line}`)
  }
  const half = await Promise.all(Array.from({ length: 200 }, () => send(socket, '{"id":', true)))
  const open = half.filter((one) => one !== undefined)
  t.ok(open.length > 0)
  t.equal((await mount.client('echo x > file && cat file')).stdout, 'x\n', 'files are served on')
  for (const one of open) one.destroy()
  t.match(mount.logText(), /control socket: more than \d+ clients/)
  let after = descriptors()
  for (let tries = 0; after > before + 4 && tries < 100; tries++) {
    await new Promise((resolve) => setTimeout(resolve, 50))
    after = descriptors()
  }
  t.ok(after <= before + 4, `${before} descriptors before, ${after} after`)
  await mount.unmount()
})

/** KiB of memory that the daemon has now (VmRSS), or had at most (VmHWM). */
function memoryOf(mount: MountedRegion, field: 'VmRSS' | 'VmHWM'): number {
  const text = readFileSync(`/proc/${mount.pid}/status`, 'utf8')
  return Number(new RegExp(`^${field}:\\s+(\\d+) kB$`, 'm').exec(text)?.[1])
}

/** Measured: 2 to 11 MiB, garbage that waits to be collected. */
const GROWTH_KIB = 24 * 1024
/** Measured: 30 to 50 MiB, of which 8 MiB are answers that wait. */
const FLOOD_KIB = 96 * 1024

t.test('thousands of connections, opened and dropped', { skip: cannotMount() }, async (t) => {
  const mount = await mountRegion()
  const socket = socketOf(mount)
  const descriptors = () => readdirSync(`/proc/${mount.pid}/fd`).length
  const before = descriptors()
  let memory = 0
  for (let round = 0; round < 60; round++) {
    const half = ['', '{"id":1,"meth', '{"id":1,"method":"watch"}\n'][round % 3]!
    await Promise.all(Array.from({ length: 50 }, () => send(socket, half)))
    if (round === 10) memory = memoryOf(mount, 'VmRSS')
  }
  t.equal((await mount.status()).state, 'mounted')
  for (let tries = 0; descriptors() > before + 4 && tries < 100; tries++) await sleep(50)
  t.ok(descriptors() <= before + 4, `${before} descriptors before, ${descriptors()} after`)
  const growth = memoryOf(mount, 'VmRSS') - memory
  t.ok(growth < GROWTH_KIB, `${memory} KiB resident after 500, and ${growth} more after all`)
  t.ok(mount.logText().split('\n').length < 20, 'the log is as short as it was')
  await mount.unmount()
})

/** What no parameter may be. */
const WRONG: readonly unknown[] = [null, true, -1, 1.5, 1e308, '7', [], {}, { toString: 1 }, [[]]]
const VALID = {
  getmap: { inode: 1 },
  rmap: { offset: 0, length: 4096, limit: 1 },
  inject: { target: { kind: 'free' }, length: 4096, method: 'soft' },
  clearPoison: { range: 'all' },
  shutdown: { reason: [] },
  scrub: { action: 'start', rate: 1 },
} as const

t.test('every parameter of the wrong type', { skip: cannotMount() }, async (t) => {
  const mount = await mountRegion()
  const client = await ControlClient.connect(socketOf(mount))
  const refused = async (method: string, params: unknown) => {
    const call = client.call(method as 'getmap', params as { inode: number })
    const errno = await call.then(
      () => undefined,
      (error: { errno: number }) => error.errno,
    )
    if (errno !== EINVAL) t.fail(`${method} ${JSON.stringify(params)}: ${errno}`)
  }
  let count = 0
  for (const [method, valid] of Object.entries(VALID)) {
    for (const params of [7, 'x', [], true]) await refused(method, params)
    for (const name of Object.keys(valid)) {
      // A reason may be any text.
      const wrong = WRONG.filter((value) => name !== 'reason' || typeof value !== 'string')
      for (const value of wrong) {
        await refused(method, { ...valid, [name]: value })
        count++
      }
    }
  }
  t.ok(count > 100, `${count} wrong parameters are refused`)
  client.close()
  const { state, failures } = await mount.status()
  t.same({ state, failures }, { state: 'mounted', failures: [] })
  t.notMatch(mount.logText(), /control socket/, 'and none of them is a bug')
  await mount.unmount()
})

t.test('a client that asks without end and never reads', { skip: cannotMount() }, async (t) => {
  const mount = await mountRegion()
  const before = memoryOf(mount, 'VmHWM')
  const client = createConnection(socketOf(mount))
  client.on('error', () => {})
  client.pause()
  const gone = new Promise((resolve) => client.once('close', resolve))
  // An answer is many times as long as its question: these are 100 MB of answers.
  const request = '{"id":1,"method":"status"}\n'.repeat(2000)
  for (let round = 0; !client.closed && round < 100; round++) {
    const taken = new Promise((resolve) => client.once('drain', resolve))
    if (!client.write(request)) await Promise.race([taken, gone])
  }
  t.ok(client.closed, 'it is hung up on')
  t.equal((await mount.status()).state, 'mounted')
  const growth = memoryOf(mount, 'VmHWM') - before
  t.ok(growth < FLOOD_KIB, `${before} KiB at most before, and ${growth} more now`)
  client.destroy()
  await mount.unmount()
})

t.test('the daemon resolves no path of a client', { skip: cannotMount() }, async (t) => {
  const control = join(ROOT, 'src/control')
  for (const file of ['connection.ts', 'methods.ts', 'lines.ts', 'protocol.ts', 'complaints.ts']) {
    t.notMatch(readFileSync(join(control, file), 'utf8'), /node:(fs|child_process)/, file)
  }
  const mount = await mountRegion()
  const directory = scratch()
  const bait = join(directory, 'bait')
  writeFileSync(bait, 'bait')
  const client = await ControlClient.connect(socketOf(mount))
  const path = { path: bait, file: bait, inode: bait, offset: bait, reason: bait, range: bait }
  const methods = ['status', 'getmap', 'rmap', 'inject', 'clearPoison', 'scrub', 'nothing'] as const
  for (const method of methods) {
    const params = { ...path, target: { kind: 'file', inode: bait, path: bait }, action: bait }
    const call = client.call(method as 'getmap', params as unknown as { inode: number })
    const refused = await call.then(
      () => undefined,
      (error: { errno: number }) => error.errno,
    )
    const expected = { status: undefined, nothing: ENOSYS } as Record<string, number | undefined>
    t.equal(refused, method in expected ? expected[method] : EINVAL, method)
  }
  t.ok(statSync(bait).atimeMs <= statSync(bait).mtimeMs, 'nobody read it')
  client.close()
  await mount.unmount()
})
