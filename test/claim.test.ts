import { type ChildProcess, spawn } from 'node:child_process'
import {
  chmodSync,
  closeSync,
  existsSync,
  linkSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { hostname, tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import t, { type Test } from 'tap'
import { findSocket, isHeld, regionKey, socketPath, whoHolds } from '../src/dax/claim.ts'
import { openDevice } from '../src/dax/device.ts'
import { fsDaxGet, fsPutDax, type Holder, killDax, updateHolder } from '../src/dax/holder.ts'
import { bootId, processAlive, processStartTime } from '../src/dax/identity.ts'
import { openRegion, type Region } from '../src/dax/region.ts'
import { RegionLock } from '../src/dax/region-lock.ts'
import { runtimeDirectory, trustedDirectories } from '../src/dax/runtime-directory.ts'

const ROUNDS = 20
const root = process.geteuid?.() === 0

/** Another process with devices of its own; it answers each line of commands with one of JSON. */
const CHILD = `
  import { createInterface } from 'node:readline'
  import { isHeld, whoHolds } from '${import.meta.resolve('../src/dax/claim.ts')}'
  import { openDevice } from '${import.meta.resolve('../src/dax/device.ts')}'
  import { fsDaxGet } from '${import.meta.resolve('../src/dax/holder.ts')}'
  let dev
  const commands = {
    claim(path, purpose, at) {
      dev = openDevice(path)
      while (Date.now() < at);
      fsDaxGet(dev, { purpose })
      return 'claimed'
    },
    close: () => dev?.close(),
    whoHolds, isHeld,
    ready: () => 'ready',
  }
  createInterface({ input: process.stdin }).on('line', (line) => {
    const [verb, ...args] = JSON.parse(line)
    let answer
    try {
      answer = { value: commands[verb](...args) }
    } catch (error) {
      answer = { code: error.code, message: error.message }
    }
    console.log(JSON.stringify(answer))
  })
`

interface Answer {
  value?: unknown
  code?: string
  message?: string
}

class Peer {
  readonly process: ChildProcess
  readonly #answers: AsyncIterator<string>

  constructor(t: Test, uid?: number) {
    const args = ['--import=tsx', '--input-type=module', '-e', CHILD]
    this.process = spawn(process.execPath, args, {
      cwd: join(import.meta.dirname, '..'),
      stdio: ['pipe', 'pipe', 'inherit'],
      env: { ...process.env, ...(uid !== undefined && { HOME: '/nonexistent', TMPDIR: '/tmp' }) },
      ...(uid !== undefined && { uid, gid: uid }),
    })
    this.#answers = createInterface({ input: this.process.stdout! })[Symbol.asyncIterator]()
    t.teardown(() => this.kill())
  }

  async ask(verb: string, ...args: unknown[]): Promise<Answer> {
    this.process.stdin!.write(`${JSON.stringify([verb, ...args])}\n`)
    const { value, done } = await this.#answers.next()
    if (done) throw new Error(`the peer died before it answered ${verb}`)
    return JSON.parse(value) as Answer
  }

  async kill(): Promise<void> {
    if (this.process.exitCode !== null || this.process.signalCode !== null) return
    const gone = new Promise((resolve) => this.process.once('exit', resolve))
    this.process.kill('SIGKILL')
    await gone
  }
}

t.test('two processes race for the claim: exactly one wins, every time', async (t) => {
  const path = regionFile(t)
  const peers = [new Peer(t), new Peer(t)]
  await Promise.all(peers.map((peer) => peer.ask('ready')))
  for (let round = 0; round < ROUNDS; round++) {
    const at = Date.now() + 20
    const answers = await Promise.all(peers.map((peer) => peer.ask('claim', path, 'mount', at)))
    const winner = answers.findIndex((answer) => answer.value === 'claimed')
    const loser = answers[1 - winner]!
    t.equal(answers.filter((answer) => answer.value === 'claimed').length, 1, `round ${round}`)
    t.equal(loser.code, 'EBUSY')
    t.match(loser.message, `pid ${peers[winner]!.process.pid} on host ${hostname()} since`)
    await Promise.all(peers.map((peer) => peer.ask('close')))
    t.equal(isHeld(path), false)
    t.equal(whoHolds(path), undefined)
  }
})

t.test('kill -9 frees the claim, and the record it leaves is not believed', async (t) => {
  const path = regionFile(t)
  const key = regionKey(path)
  const peer = new Peer(t)
  t.match(await peer.ask('claim', path, 'mount', 0), { value: 'claimed' })
  t.equal(isHeld(path), true)
  const record = whoHolds(path)
  t.match(record, { pid: peer.process.pid!, purpose: 'mount', path, bootId: bootId() })
  t.same(whoHolds(key), record, 'by key as well')

  const dev = openDevice(path)
  t.teardown(() => dev.close())
  t.throws(() => fsDaxGet(dev, { purpose: 'fsck' }), { code: 'EBUSY', message: 'is in use' })
  await peer.kill()
  t.equal(existsSync(recordPath(key)), true, 'nobody tidied up')
  t.equal(whoHolds(path), undefined)
  t.equal(whoHolds(key), undefined)
  t.equal(isHeld(path), false)
  fsDaxGet(dev, { purpose: 'fsck' })
  t.match(whoHolds(path), { pid: process.pid, purpose: 'fsck' })
})

t.test('hard links and other paths lead to one claim', async (t) => {
  const path = regionFile(t)
  const [hard, soft] = [`${path}.hard`, `${path}.soft`]
  linkSync(path, hard)
  symlinkSync(path, soft)
  const peer = new Peer(t)
  await peer.ask('claim', path, 'mkfs', 0)
  for (const alias of [hard, soft]) {
    const dev = openDevice(alias)
    const message = /is in use: mkfs is at work on it.*wait until it has finished/
    t.throws(() => fsDaxGet(dev, { purpose: 'mount' }), { code: 'EBUSY', message })
    dev.close()
    t.match(whoHolds(alias), { pid: peer.process.pid! })
  }
  await peer.ask('close')
})

t.test('two mounts in one process', async (t) => {
  const path = regionFile(t)
  const [one, two] = [openDevice(path), openDevice(path)]
  t.teardown(() => [one, two].map((dev) => dev.close()))
  const holder: Holder = { purpose: 'mount' }
  fsDaxGet(one, holder)
  updateHolder(one, '/mnt/here')
  t.throws(() => fsDaxGet(two, { purpose: 'mount' }), {
    code: 'EBUSY',
    message:
      /mounted on \/mnt\/here by pid \d+ on host .* since .*unmount it first \(holdfast umount \/mnt\/here\)/,
  })
  t.equal(two.holder, undefined)
  t.match(whoHolds(path), { mountpoint: '/mnt/here' })

  fsDaxGet(two, holder)
  fsPutDax(one, holder)
  t.equal(isHeld(path), true, 'the same holder, and one device is left')
  const peer = new Peer(t)
  t.match(await peer.ask('claim', path, 'mkfs', 0), { code: 'EBUSY' })
  await peer.ask('close')
  fsPutDax(two, holder)
  t.equal(isHeld(path), false)
  t.equal(existsSync(recordPath(regionKey(path))), false, 'the record goes with the claim')
  t.match(await peer.ask('claim', path, 'mkfs', 0), { value: 'claimed' })
  await peer.ask('close')
})

t.test('close releases; a device dead but not closed still keeps others out', async (t) => {
  const path = regionFile(t)
  const dev = openDevice(path)
  fsDaxGet(dev, { purpose: 'mount' })
  killDax(dev)
  t.equal(isHeld(path), true)
  dev.close()
  t.equal(isHeld(path), false)
})

t.test('a read-only mount excludes as well', async (t) => {
  const path = regionFile(t)
  t.teardown(() => rmSync(join(runtimeDirectory(), `${regionKey(path)}.lock`), { force: true }))
  if (!root) chmodSync(path, 0o400)
  const dev = openDevice(path, { readOnly: true })
  t.teardown(() => dev.close())
  fsDaxGet(dev, { purpose: 'mount' })
  t.equal(isHeld(path), true)
  t.match(whoHolds(path), { pid: process.pid })
  if (!root) chmodSync(path, 0o600)
  t.match(await new Peer(t).ask('claim', path, 'mkfs', 0), { code: 'EBUSY' })
})

t.test('looking does no harm to a claim that is being taken', async (t) => {
  const path = regionFile(t)
  const peer = new Peer(t)
  await peer.ask('ready')
  for (let round = 0; round < ROUNDS; round++) {
    const claim = peer.ask('claim', path, 'mount', Date.now() + 5)
    let answer: Answer | undefined
    claim.then((value) => {
      answer = value
    })
    while (answer === undefined) {
      for (let i = 0; i < 50; i++) isHeld(path)
      await new Promise((resolve) => setImmediate(resolve))
    }
    t.match(answer, { value: 'claimed' })
    await peer.ask('close')
  }
})

t.test('a record that is stale, false or broken is not believed', async (t) => {
  const path = regionFile(t)
  const key = regionKey(path)
  const file = recordPath(key)
  t.teardown(() => rmSync(file, { force: true }))
  const since = new Date().toISOString()
  const base = { pid: process.pid, host: hostname(), bootId: bootId(), purpose: 'mount', since }
  const alive = { ...base, path, startTime: processStartTime(process.pid) }
  for (const [why, content] of [
    ['no lock behind it', alive],
    ['another boot', { ...alive, bootId: '00000000-0000-0000-0000-000000000000' }],
    ['the number was used again', { ...alive, startTime: 1 }],
    ['not a number', { ...alive, pid: '1' }],
    ['the whole process group', { ...alive, pid: -1 }],
    ['not an object', null],
  ] as const) {
    writeFileSync(file, JSON.stringify(content))
    t.equal(whoHolds(path), undefined, why)
    t.equal(whoHolds(key), undefined, why)
  }
  writeFileSync(file, '{"pid":')
  t.equal(whoHolds(path), undefined)
  t.equal(whoHolds(join(path, 'nothing')), undefined)
  t.equal(isHeld(join(path, 'nothing')), false)
  t.equal(isHeld('/'), false)
})

t.test('a second node of one device is the same device', async (t) => {
  // Two inodes with one key: what two nodes of a device number are to the locks.
  const key = `dax-4095-${process.pid}`
  const node = (): Region => {
    const path = regionFile(t)
    const fd = openSync(path, 'r+')
    const rest = { size: 4096, align: 4096, readOnly: false, key, name: 'dax' }
    return { ...rest, fd, path, kind: 'device-dax' }
  }
  t.teardown(() => rmSync(join(runtimeDirectory(), `${key}.lock`), { force: true }))
  const [one, two] = [node(), node()]
  const lock = RegionLock.tryTake(one)
  t.ok(lock)
  t.equal(RegionLock.tryTake(two), undefined)
  lock?.release()
  const next = RegionLock.tryTake(two)
  t.ok(next, 'the refusal left nothing locked')
  t.equal(RegionLock.tryTake(one), undefined)
  t.ok(RegionLock.tryTake({ ...node(), key: `${key}1` }) ?? true)
  rmSync(join(runtimeDirectory(), `${key}1.lock`), { force: true })
  next?.release()
})

t.test('the runtime directory belongs to its user', async (t) => {
  const directory = runtimeDirectory()
  const { mode, uid } = statSync(directory)
  t.equal(mode & 0o777, root ? 0o755 : 0o700)
  t.equal(uid, process.geteuid?.())
  t.ok(trustedDirectories().includes(directory))
  t.equal(socketPath('file-1-2'), join(directory, 'file-1-2.sock'))
  t.equal(findSocket('file-1-2'), undefined)

  t.test('and is refused where somebody planted it', { skip: root }, async (t) => {
    const before = process.env.XDG_RUNTIME_DIR
    t.teardown(() => {
      if (before === undefined) delete process.env.XDG_RUNTIME_DIR
      else process.env.XDG_RUNTIME_DIR = before
    })
    const session = mkdtempSync(join(tmpdir(), 'holdfast-session-'))
    t.teardown(() => rmSync(session, { recursive: true }))
    process.env.XDG_RUNTIME_DIR = session
    symlinkSync('/tmp', join(session, 'holdfast'))
    t.throws(() => runtimeDirectory(), { code: 'ENOTDIR', name: 'DaxError' })
    t.notOk(trustedDirectories().includes(join(session, 'holdfast')))
    process.env.XDG_RUNTIME_DIR = '/'
    t.equal(runtimeDirectory(), `/tmp/holdfast-${process.geteuid?.()}`, "another user's")
  })
})

t.test('every user may read who holds a region of root', { skip: !root }, async (t) => {
  const path = regionFile(t)
  const dev = openDevice(path)
  t.teardown(() => dev.close())
  fsDaxGet(dev, { purpose: 'mount', mountpoint: '/mnt' })
  const file = recordPath(regionKey(path))
  t.equal(statSync(file).mode & 0o777, 0o644)
  t.match(JSON.parse(readFileSync(file, 'utf8')), { mountpoint: '/mnt' })
  const nobody = new Peer(t, 65534)
  t.match(await nobody.ask('whoHolds', regionKey(path)), { value: { pid: process.pid } })
  t.match(await nobody.ask('whoHolds', path), { value: { pid: process.pid } })
  t.match(await nobody.ask('isHeld', path), { value: true })
  chmodSync(path, 0o666)
  const refused = await nobody.ask('claim', path, 'mkfs', 0)
  t.match(refused, { code: 'EBUSY', message: `mounted on /mnt by pid ${process.pid}` })
})

t.test('a holder without a record: who is told how to find it', async (t) => {
  const path = regionFile(t)
  const dev = openDevice(path)
  t.teardown(() => dev.close())
  const region = openRegion(path, false)
  const lock = RegionLock.tryTake(region)
  t.teardown(() => {
    lock?.release()
    closeSync(region.fd)
  })
  const busy = `${path} is in use by a process that left no record we may read; `
  const advice = root ? `\`lsof ${path}\` names it` : 'ask root: holdfast status, or lsof'
  t.throws(() => fsDaxGet(dev, { purpose: 'mount' }), {
    code: 'EBUSY',
    message: `${busy}${advice}`,
  })
  if (!root) return
  chmodSync(path, 0o666)
  const refused = await new Peer(t, 65534).ask('claim', path, 'mkfs', 0)
  t.match(refused, { code: 'EBUSY', message: `${busy}ask root: holdfast status` })
})

t.test('processes are told apart by number and start', async (t) => {
  t.match(bootId(), /^[0-9a-f-]{36}$/)
  const startTime = processStartTime(process.pid)!
  t.ok(startTime > 0)
  t.equal(processAlive(process.pid, startTime), true)
  t.equal(processAlive(process.pid, startTime + 1), false)
  t.equal(processAlive(process.pid), true)
  t.equal(processAlive(1), true)
  t.equal(processAlive(2 ** 31 - 1), false)
})

/** In /tmp, where another user may look as well. */
function regionFile(t: Test): string {
  const directory = mkdtempSync(join(tmpdir(), 'holdfast-claim-'))
  t.teardown(() => rmSync(directory, { recursive: true }))
  chmodSync(directory, 0o755)
  const path = join(directory, 'region')
  writeFileSync(path, '')
  truncateSync(path, 1024 * 1024)
  return path
}

function recordPath(key: string): string {
  return join(runtimeDirectory(), `${key}.json`)
}
