/** The threat model of docs/SECURITY.md over a real mount: other users, and clients that misbehave. */
import { chmodSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
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

t.test('thousands of connections, opened and dropped', { skip: cannotMount() }, async (t) => {
  const mount = await mountRegion()
  const socket = socketOf(mount)
  const descriptors = () => readdirSync(`/proc/${mount.pid}/fd`).length
  const before = descriptors()
  const resident = () =>
    Number(/VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${mount.pid}/status`, 'utf8'))?.[1])
  let memory = 0
  for (let round = 0; round < 60; round++) {
    const half = ['', '{"id":1,"meth', '{"id":1,"method":"watch"}\n'][round % 3]!
    await Promise.all(Array.from({ length: 50 }, () => send(socket, half)))
    if (round === 10) memory = resident()
  }
  t.equal((await mount.status()).state, 'mounted')
  for (let tries = 0; descriptors() > before + 4 && tries < 100; tries++) await sleep(50)
  t.ok(descriptors() <= before + 4, `${before} descriptors before, ${descriptors()} after`)
  t.ok(resident() < memory + 64 * 1024, `${memory} KiB resident after 500, ${resident()} after all`)
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
  const client = createConnection(socketOf(mount))
  client.on('error', () => {})
  client.pause()
  const gone = new Promise((resolve) => client.once('close', resolve))
  const request = '{"id":1,"method":"status"}\n'.repeat(2000)
  let flooding = true
  void gone.then(() => {
    flooding = false
  })
  for (let round = 0; flooding && round < 500; round++) {
    client.write(request)
    await new Promise((resolve) => setImmediate(resolve))
  }
  t.equal((await mount.status()).state, 'mounted')
  const resident = /VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${mount.pid}/status`, 'utf8'))
  t.ok(Number(resident?.[1]) < 512 * 1024, `${resident?.[1]} KiB resident`)
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
