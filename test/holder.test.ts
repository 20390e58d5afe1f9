/**
 * The holder of a device, as drivers/dax/super.c, mm/memory-failure.c and xfs_notify_failure.c
 * have it: what it is told and when, what it answers, and what happens when the device goes away.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import {
  mkdirSync,
  mkdtempSync,
  rmSync,
  statSync,
  truncateSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs'
import { constants, tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import t, { type Test } from 'tap'
import { format } from '../mkfs/format.ts'
import type { ControlClient } from '../src/control/client.ts'
import { connectTo, resolveTarget } from '../src/control/target.ts'
import { touchFailed, watchBusErrors } from '../src/dax/bus-errors.ts'
import { isHeld } from '../src/dax/claim.ts'
import { type DaxDevice, openDevice, openSimulated } from '../src/dax/device.ts'
import {
  fsDaxGet,
  fsPutDax,
  type Holder,
  killDax,
  MF_ACTION_REQUIRED,
  MF_MEM_PRE_REMOVE,
  notifyFailure,
} from '../src/dax/holder.ts'
import { MemoryFailure } from '../src/dax/memory.ts'
import { watchRemoval } from '../src/dax/removal.ts'
import { SimulatedMemory } from '../src/dax/simulated-memory.ts'
import type { Filesystem } from '../src/fs/filesystem.ts'
import { readSuperblocks, requireSuperblock } from '../src/media/superblock.ts'
import { mountDevice, scratchFilesystem } from './support/core.ts'
import {
  cannotMount,
  type MountedRegion,
  mountRegion,
  PythonClient,
  ROOT,
  runProgram,
  scratch,
  sleep,
} from './support/mounts.ts'

const { EIO, ENXIO, EOPNOTSUPP } = constants.errno
const EUCLEAN = 117
const MIB = 1024 * 1024
const BLOCK = 4096
const skip = cannotMount()
const CALLER = { uid: 0, gid: 0, pid: 1, umask: 0 }

// --- the claim -----------------------------------------------------------------------------------

class Racer {
  busy = false
  readonly #process: ChildProcess
  readonly #lines: AsyncIterator<string>
  readonly #ended: Promise<unknown>

  constructor(t: Test) {
    this.#process = spawn(process.execPath, ['--import=tsx', 'test/support/claimer.ts'], {
      cwd: ROOT,
      stdio: ['pipe', 'pipe', 'inherit'],
    })
    t.teardown(() => this.#process.kill('SIGKILL'))
    this.#lines = createInterface({ input: this.#process.stdout! })[Symbol.asyncIterator]()
    this.#ended = new Promise((resolve) => this.#process.once('exit', resolve))
  }

  /** Its next line, after it was told `line`. */
  async say(line?: string): Promise<string> {
    if (line !== undefined) this.#process.stdin!.write(`${line}\n`)
    return String((await this.#lines.next()).value)
  }

  async end(): Promise<void> {
    this.#process.stdin!.end()
    await this.#ended
  }
}

/** 105 pairs, each of two other processes. */
const PROCESSES = 15
const RACES_AT_A_TIME = 3

t.test('fs_dax_get: 100 pairs of processes race, exactly one of each wins', async (t) => {
  const racers = Array.from({ length: PROCESSES }, () => new Racer(t))
  await Promise.all(racers.map((racer) => racer.say()))
  const pairs = racers.flatMap((one, at) => racers.slice(at + 1).map((other) => [one, other]))
  const outcomes: string[] = []
  const lane = async () => {
    const path = regionFile(t, MIB)
    for (let pair = nextPair(pairs); pair !== undefined; pair = nextPair(pairs)) {
      const at = Date.now() + 3
      const said = await Promise.all(pair.map((racer) => racer.say(`${path} ${at}`)))
      outcomes.push(said.sort().join(' '))
      await Promise.all(pair.map((racer) => racer.say('release')))
      for (const racer of pair) racer.busy = false
    }
  }
  await Promise.all(Array.from({ length: RACES_AT_A_TIME }, lane))
  await Promise.all(racers.map((racer) => racer.end()))
  t.ok(outcomes.length >= 100)
  t.same(
    outcomes.filter((outcome) => outcome !== 'EBUSY claimed'),
    [],
  )
})

/** Two processes that are in no other race now. */
function nextPair(pairs: Racer[][]): Racer[] | undefined {
  const free = pairs.findIndex((pair) => pair.every((racer) => !racer.busy))
  const [pair] = free === -1 ? [] : pairs.splice(free, 1)
  for (const racer of pair ?? []) racer.busy = true
  return pair
}

t.test('fs_put_dax by another holder changes nothing: it goes on being told', async (t) => {
  const path = regionFile(t, MIB)
  const dev = openDevice(path)
  t.teardown(() => dev.close())
  const told: number[] = []
  const holder: Holder = { purpose: 'mount' }
  fsDaxGet(dev, holder, { notifyFailure: (_dev, offset) => told.push(offset) && 0 })
  t.capture(process, 'emitWarning')
  fsPutDax(dev, { purpose: 'mount' })
  t.equal(dev.holder, holder)
  t.equal(isHeld(path), true, 'the lock stays as well')
  t.equal(notifyFailure(dev, BLOCK, BLOCK, 0), 0)
  t.same(told, [BLOCK])
})

t.test('holder_ops: told between claim and release, not before, not after', async (t) => {
  const dev = openSimulated(new SimulatedMemory(MIB))
  const told: number[] = []
  const holder: Holder = { purpose: 'mount' }
  t.equal(dev.memoryFailure(0, 1), -EOPNOTSUPP, 'before')
  fsDaxGet(dev, holder, { notifyFailure: (_dev, offset) => told.push(offset) && 0 })
  for (let at = 1; at <= 100; at++) t.equal(dev.memoryFailure(at * BLOCK, 1), 0)
  fsPutDax(dev, holder)
  t.equal(dev.memoryFailure(200 * BLOCK, 1), -EOPNOTSUPP, 'after')
  t.same(
    told,
    Array.from({ length: 100 }, (_, i) => (i + 1) * BLOCK),
  )
  t.equal(dev.badRanges.overlaps(200 * BLOCK, 1), true, 'the device remembers all the same')
})

// --- what the filesystem answers -----------------------------------------------------------------

function fileOf(fs: Filesystem, name: string, bytes: number): { ino: number; offset: number } {
  const handle = fs.create(1, Buffer.from(name), 0o644, 2, CALLER)
  const options = { cached: false, killPrivileges: false, append: false }
  fs.write(handle, 0, Buffer.alloc(bytes, 1), 0, bytes, options)
  const { extents } = fs.administration.getmap(handle.ino)
  return { ino: handle.ino, offset: extents[0]!.regionOffset }
}

t.test('xfs_dax_notify_failure: 0 for data and free space, EUCLEAN for metadata', async (t) => {
  const { fs, device } = scratchFilesystem(64 * MIB, 'cacheline')
  const file = fileOf(fs, 'file', 3 * BLOCK)
  const free = fs.volume.allocator.findFree(1)!.block * BLOCK
  t.equal(notifyFailure(device, file.offset, BLOCK, MF_ACTION_REQUIRED), 0)
  t.equal(notifyFailure(device, file.offset, BLOCK, MF_ACTION_REQUIRED), 0, 'again: no news')
  t.equal(notifyFailure(device, free, BLOCK, 0), 0)
  t.equal(fs.administration.status().failures.length, 2)
  t.equal(notifyFailure(device, 0, BLOCK, 0), -EUCLEAN)
  t.equal(notifyFailure(device, free + BLOCK, BLOCK, 0), -EIO, 'shut down before')
  t.equal(device.memoryFailure(64 * MIB, BLOCK), -ENXIO, 'outside of the device')
})

t.test('xfs_dax_notify_dev_failure: all kills first, then the shutdown', async (t) => {
  const { fs, device } = scratchFilesystem(64 * MIB, 'cacheline')
  fileOf(fs, 'one', BLOCK)
  fileOf(fs, 'two', BLOCK)
  const events: string[] = []
  fs.administration.subscribe(({ event }) => events.push(event))
  // From the primary superblock over the journal to the end of the data.
  t.equal(notifyFailure(device, 0, 64 * MIB, 0), -EUCLEAN)
  t.same(events, ['kill', 'kill', 'failure', 'shutdown'])
})

t.test('kill_dax: MF_MEM_PRE_REMOVE kills every handle, then shuts down', async (t) => {
  const { fs, device } = scratchFilesystem(64 * MIB, 'cacheline')
  for (const name of ['one', 'two', 'three']) fileOf(fs, name, BLOCK)
  t.equal(notifyFailure(device, 0, device.size, MF_MEM_PRE_REMOVE), 0)
  const { state, shutdown, handles } = fs.administration.status()
  t.same([state, shutdown?.reason], ['shutdown', 'the device is being removed'])
  t.equal(handles.killed, 3)
  killDax(device)
  t.equal(device.memoryFailure(0, BLOCK), -ENXIO, 'dead')
  await fs.unmount()
})

t.test('sb_born: what fails before the filesystem is there has its consequences', async (t) => {
  const memory = new SimulatedMemory(64 * MIB, 'cacheline')
  format(memory, { label: '', uid: 0, gid: 0, now: 1 })
  const before = mountDevice(openSimulated(memory))
  const file = fileOf(before, 'file', BLOCK)
  await before.unmount()

  const device = openSimulated(memory)
  fsDaxGet(device, { purpose: 'mount' })
  t.equal(device.memoryFailure(file.offset, BLOCK), -EOPNOTSUPP, 'a holder, no filesystem yet')
  const fs = mountDevice(device, device.holder)
  t.match(fs.administration.status().failures, [{ kind: 'data', inodes: [file.ino] }])
  await fs.unmount()
  const again = mountDevice(openSimulated(memory))
  t.equal(again.administration.status().blocks.poisoned, 1, 'and is remembered')
  await again.unmount()

  const third = openSimulated(memory)
  fsDaxGet(third, { purpose: 'mount' })
  third.memoryFailure(0, BLOCK)
  t.throws(() => mountDevice(third, third.holder), { message: 'fsck.holdfast --repair' })
})

t.test('fs_put_dax: a failure after the unmount is not an operation on it', async (t) => {
  const { fs, device, memory } = scratchFilesystem(64 * MIB, 'cacheline')
  const file = fileOf(fs, 'file', BLOCK)
  const unmounting = fs.unmount()
  t.equal(device.memoryFailure(file.offset, BLOCK), 0, 'while it is being unmounted')
  await unmounting
  t.equal(device.memoryFailure(file.offset + BLOCK, BLOCK), -EOPNOTSUPP)
  const next = mountDevice(openSimulated(memory))
  t.equal(next.administration.status().blocks.poisoned, 1)
  await next.unmount()
})

// --- a region file that goes away ----------------------------------------------------------------

function regionFile(t: Test, size: number): string {
  const directory = mkdtempSync(join(tmpdir(), 'holdfast-holder-'))
  t.teardown(() => rmSync(directory, { recursive: true, force: true }))
  const path = join(directory, 'region')
  writeFileSync(path, '')
  truncateSync(path, size)
  return path
}

interface Told {
  dev: DaxDevice
  told: { offset: number; length: number; flags: number }[]
  warnings: string[]
}

function watched(t: Test, path: string, inotify: boolean): Told {
  const dev = openDevice(path)
  const told: Told['told'] = []
  const warnings: string[] = []
  fsDaxGet(
    dev,
    { purpose: 'mount' },
    {
      notifyFailure: (_dev, offset, length, flags) => told.push({ offset, length, flags }) && 0,
    },
  )
  const stops = [watchBusErrors(dev)]
  if (inotify) stops.push(watchRemoval(dev, (sentence) => warnings.push(sentence)))
  t.teardown(() => {
    for (const stop of stops) stop()
    dev.close()
  })
  return { dev, told, warnings }
}

async function until(condition: () => boolean | Promise<boolean>): Promise<boolean> {
  for (let tries = 0; tries < 200; tries++) {
    if (await condition()) return true
    await sleep(20)
  }
  return false
}

t.test('a file cut to nothing is kill_dax: told by inotify', async (t) => {
  const path = regionFile(t, MIB)
  const { dev, told } = watched(t, path, true)
  truncateSync(path, 0)
  t.equal(await until(() => !dev.alive), true)
  t.same(told, [{ offset: 0, length: MIB, flags: MF_MEM_PRE_REMOVE }])
})

t.test('... and without inotify by the first touch', async (t) => {
  const path = regionFile(t, MIB)
  const { dev, told } = watched(t, path, false)
  truncateSync(path, 0)
  try {
    dev.memory.read(5 * BLOCK, Buffer.alloc(1), 0, 1)
    t.fail('it can be read')
  } catch (error) {
    t.ok(error instanceof MemoryFailure)
    touchFailed(dev, 5 * BLOCK, BLOCK)
  }
  t.equal(dev.alive, false)
  t.same(told, [{ offset: 0, length: MIB, flags: MF_MEM_PRE_REMOVE }])
})

t.test('a file cut short is a memory failure of what was cut off, told once', async (t) => {
  const path = regionFile(t, MIB)
  const { dev, told } = watched(t, path, true)
  truncateSync(path, 3 * BLOCK + 1)
  t.equal(await until(() => told.length > 0), true)
  touchFailed(dev, 10 * BLOCK, BLOCK)
  t.same(told, [{ offset: 4 * BLOCK, length: MIB - 4 * BLOCK, flags: MF_ACTION_REQUIRED }])
  t.equal(dev.alive, true)
})

t.test('a file that is unlinked only warns', async (t) => {
  const path = regionFile(t, MIB)
  const { dev, told, warnings } = watched(t, path, true)
  unlinkSync(path)
  t.equal(await until(() => warnings.length > 0), true)
  t.match(warnings[0], /was deleted: its memory lasts until this mount ends/)
  t.equal(dev.alive, true)
  t.same(told, [])
  dev.memory.write(0, Buffer.from('still there'), 0, 11)
})

// --- the same over real mounts -------------------------------------------------------------------

async function connect(mount: MountedRegion): Promise<ControlClient> {
  return connectTo(resolveTarget(mount.mountpoint))
}

/** Has `name` open and mapped, and has read its first page through both. */
async function opener(mount: MountedRegion, name: string): Promise<PythonClient> {
  const client = new PythonClient(`
fd = os.open(${JSON.stringify(mount.path(name))}, os.O_RDWR)
m = mmap.mmap(fd, 65536)
m[0]; os.pread(fd, 1, 0)
`)
  await client.ready
  return client
}

async function makeFiles(mount: MountedRegion, ...names: string[]): Promise<void> {
  const each = names.map((name) => `head -c 64K /dev/urandom > ${name}`)
  const { status, stderr } = await mount.client(`${each.join('; ')}; sync *`)
  if (status !== 0) throw new Error(stderr)
}

async function ended(client: PythonClient): Promise<unknown> {
  client.process.stdin?.write('m[0]\n')
  return client.ended
}

t.test(
  'removal of a mounted file: handles die, umount works, nothing hangs',
  { skip },
  async (t) => {
    const mount = await mountRegion()
    await makeFiles(mount, 'a', 'b')
    const [one, two] = [await opener(mount, 'a'), await opener(mount, 'b')]
    truncateSync(mount.region, 0)
    t.equal(await until(async () => (await mount.status()).state === 'shutdown'), true)
    const status = await mount.status()
    t.equal(status.shutdown?.reason, 'the device is being removed')
    t.ok(status.handles.killed >= 2)
    t.same(await one.evaluate('os.pread(fd, 1, 0)'), { ok: false, error: 'EIO' })
    t.same(await one.evaluate('os.pwrite(fd, b"x", 0)'), { ok: false, error: 'EIO' })
    t.equal(await ended(one), 'SIGBUS')
    t.equal(await ended(two), 'SIGBUS')
    t.not((await mount.client('ls; cat a')).status, 0)
    await mount.unmount()
    t.equal(statSync(mount.region).size, 0, 'nothing was written to it')
  },
)

t.test('a mounted file that is unlinked: a warning, and all goes on', { skip }, async (t) => {
  const mount = await mountRegion()
  await makeFiles(mount, 'a')
  unlinkSync(mount.region)
  t.equal(await until(() => mount.logText().includes('was deleted')), true)
  t.equal((await mount.client('sha256sum a && echo more > b && sync b')).status, 0)
  // The path is gone, the mountpoint still leads to the daemon.
  await mount.unmount()
})

t.test(
  'removal while the mount is starting: no mount or a dead one, no hang',
  { skip },
  async (t) => {
    for (const delay of [0, 100, 200, 300, 400]) {
      const directory = scratch()
      const [region, mountpoint] = [join(directory, 'region'), join(directory, 'mnt')]
      mkdirSync(mountpoint)
      await runProgram('mkfs.holdfast', ['--size', '64M', region])
      const mounting = runProgram('holdfast', ['mount', region, mountpoint])
      await sleep(delay)
      truncateSync(region, 0)
      const outcome = await mounting
      t.equal(outcome.timedOut, false, `${delay} ms: the command comes to its end`)
      const gone = await runProgram('holdfast', ['umount', mountpoint], { timeoutMs: 20_000 })
      if (outcome.status === 0) t.equal(gone.status, 0, `${delay} ms: ${gone.stderr}`)
      else t.match(outcome.stderr, /\S/, `${delay} ms: refused with a sentence`)
    }
  },
)

t.test(
  'a failure while frozen: the handles die now, others wait for the thaw',
  { skip },
  async (t) => {
    const mount = await mountRegion({ on: 'memory' })
    await makeFiles(mount, 'hit', 'other')
    const page = 'dd if=hit bs=4096 skip=9 count=1 status=none | sha256sum'
    const before = (await mount.client(page)).stdout
    const client = await connect(mount)
    const victim = await opener(mount, 'hit')
    const other = await opener(mount, 'other')
    await client.call('freeze', {})
    // A dirty page of the victim's mapping must not keep its pages alive until the thaw.
    await victim.evaluate('m.__setitem__(40000, 7)')
    const started = performance.now()
    const hit = await inject(mount, client, 'hit')
    t.match(hit, { kind: 'data', shutdown: false })
    t.ok(performance.now() - started < 4000, 'at once')
    t.same(await victim.evaluate('os.pread(fd, 1, 0)'), { ok: false, error: 'EIO' })
    t.equal(await ended(victim), 'SIGBUS')
    const waiting = other.evaluate('os.pwrite(fd, b"after", 0)')
    await sleep(100)
    t.equal((await mount.status()).frozen, true)
    await client.call('thaw', {})
    t.same(await waiting, { ok: true, value: 5 })
    await other.end()
    client.close()
    await mount.unmount()
    const next = await mount.mountAgain()
    t.equal((await next.status()).blocks.poisoned, 1)
    t.equal((await next.client(page)).stdout, before, 'the dirty page is lost')
    await next.unmount()
  },
)

/** One block of a file fails; the daemon is asked, for this process must not touch the mount. */
async function inject(mount: MountedRegion, client: ControlClient, name: string) {
  const { stdout } = await mount.client(`stat -c %i ${name}`)
  const target = { kind: 'file', inode: Number(stdout), fileOffset: 0 } as const
  return client.call('inject', { target, length: BLOCK, method: 'soft' })
}

t.test('a shutdown while frozen: who waits for the thaw gets EIO', { skip }, async (t) => {
  const mount = await mountRegion()
  await makeFiles(mount, 'a')
  const client = await connect(mount)
  const writer = await opener(mount, 'a')
  await client.call('freeze', {})
  const waiting = writer.evaluate('os.pwrite(fd, b"x", 0)')
  await sleep(100)
  const target = { kind: 'metadata', structure: 'superblock' } as const
  const result = await client.call('inject', { target, length: BLOCK, method: 'soft' })
  t.equal(result.shutdown, true)
  t.same(await waiting, { ok: false, error: 'EIO' })
  t.equal((await mount.status()).frozen, false, 'a shutdown thaws, as XFS does')
  writer.stop()
  await writer.ended
  client.close()
  await mount.unmount()
})

t.test('removal while frozen', { skip }, async (t) => {
  const mount = await mountRegion()
  await makeFiles(mount, 'a')
  const client = await connect(mount)
  const writer = await opener(mount, 'a')
  await client.call('freeze', {})
  const waiting = writer.evaluate('os.pwrite(fd, b"x", 0)')
  await sleep(100)
  truncateSync(mount.region, 0)
  t.same(await waiting, { ok: false, error: 'EIO' })
  t.equal(await ended(writer), 'SIGBUS')
  client.close()
  await mount.unmount()
})

/** Names enough that an image takes several slices. */
const MANY = 'mkdir d; cd d; for i in $(seq 1 30); do mkdir $i; (cd $i; touch $(seq 1 400)); done'

t.test('a failure while a checkpoint is being written', { skip }, async (t) => {
  const mount = await mountRegion({ size: '256M', on: 'memory' })
  await makeFiles(mount, 'hit', 'other')
  t.equal((await mount.client(MANY)).status, 0)
  const before = (await mount.client('sha256sum other; find d | sort | sha256sum')).stdout
  const client = await connect(mount)
  for (const method of ['soft', 'sigbus', 'soft', 'sigbus'] as const) {
    // Both requests are there before it looks at the first: the failure comes between two slices.
    process.kill(mount.pid, 'SIGSTOP')
    const slot = superseded(mount)
    t.ok(slot.length >= 2 * MIB, 'the slot has grown')
    const current = client.call('checkpoint', {})
    const target = { kind: 'offset', offset: slot.offset + slot.length / 2 } as const
    const hit = client.call('inject', { target, length: BLOCK, method })
    await sleep(50)
    process.kill(mount.pid, 'SIGCONT')
    t.match(await hit, { shutdown: false }, method)
    t.ok((await current).sequence > 0, 'the checkpoint is taken all the same')
  }
  // A fault behind what is still to be written is discovered when the slot is used again.
  t.ok((await mount.status()).blocks.poisoned >= 2)
  const running = client.call('checkpoint', {})
  t.match(await inject(mount, client, 'hit'), { kind: 'data', handlesKilled: 0 })
  await running
  client.close()
  t.equal((await mount.client('sha256sum other; find d | sort | sha256sum')).stdout, before)
  await mount.unmount()
  const check = await runProgram('fsck.holdfast', ['-n', '-f', mount.region])
  t.ok([0, 4].includes(check.status ?? -1), `fsck: exit ${check.status}: ${check.stdout}`)
  const next = await mount.mountAgain()
  t.equal((await next.client('sha256sum other; find d | sort | sha256sum')).stdout, before)
  await next.unmount()
})

/** Where the next checkpoint goes, by the superblock in the region; bytes. */
function superseded(mount: MountedRegion): { offset: number; length: number } {
  const dev = openDevice(mount.region, { readOnly: true })
  try {
    const { checkpoint, slots } = requireSuperblock(readSuperblocks(dev.memory))
    const [first] = slots[checkpoint.slot === 0 ? 1 : 0]
    return { offset: first!.block * BLOCK, length: first!.blocks * BLOCK }
  } finally {
    dev.close()
  }
}

t.test('a failure while unmounting', { skip }, async (t) => {
  const mount = await mountRegion({ on: 'memory' })
  for (const delay of [60, 100, 130, 160]) {
    await makeFiles(mount, 'hit', 'other')
    const client = await connect(mount)
    const before = (await mount.client('sha256sum other')).stdout
    const inode = Number((await mount.client('stat -c %i hit')).stdout)
    const unmounting = mount.unmount()
    await sleep(delay)
    const target = { kind: 'file', inode, fileOffset: 0 } as const
    const hit = client.call('inject', { target, length: BLOCK, method: 'soft' }, 5000)
    const outcome = await hit.then(
      ({ kind }) => kind,
      (error: Error) => error.message,
    )
    t.match(outcome, /^data$|hung up/, `after ${delay} ms: ${outcome}`)
    await unmounting
    client.close()
    const next = await mount.mountAgain()
    t.equal((await next.client('sha256sum other')).stdout, before)
  }
  await mount.unmount()
})

t.test('a fault that the last writes of an unmount discover', { skip }, async (t) => {
  const mount = await mountRegion({ on: 'memory' })
  await makeFiles(mount, 'a')
  const before = (await mount.client('sha256sum a')).stdout
  const client = await connect(mount)
  const target = { kind: 'offset', offset: superseded(mount).offset } as const
  await client.call('inject', { target, length: BLOCK, method: 'sigbus' })
  client.close()
  await mount.unmount()
  t.match(mount.logText(), /memory failure at \d+\+4096: free, quarantined/)
  t.notMatch(mount.logText(), /unmount failed/)
  const next = await mount.mountAgain()
  t.equal((await next.client('sha256sum a')).stdout, before)
  await next.unmount()
})
