/** The addon: guard, checksums, poison, locks, arguments, and a small FUSE mount of its own. */
import { type ChildProcess, execFile, spawn } from 'node:child_process'
import fs from 'node:fs'
import os from 'node:os'
import path from 'node:path'
import { fileURLToPath } from 'node:url'
import t, { type Test } from 'tap'
import { type Channel, GUARD_OK, MAP_FILE, type MapId, native } from '../src/native/binding.ts'

const PAGE = 4096
const ADDON = fileURLToPath(new URL('../src/native/build/Release/holdfast.node', import.meta.url))
const NO = -2
const CRC_CHECK = 0xe3069283 // of the nine bytes '123456789'

/** A directory that goes away with the test. */
function scratch(t: Test, parent = os.tmpdir()): string {
  const dir = fs.mkdtempSync(path.join(parent, 'holdfast-native-'))
  t.teardown(() => fs.rmSync(dir, { recursive: true, force: true }))
  return dir
}

interface Region {
  id: MapId
  fd: number
  file: string
  bytes: Uint8Array
}

/** A mapped file of `pages` pages with recognisable contents. */
function makeRegion(t: Test, pages: number, parent?: string): Region {
  const file = path.join(scratch(t, parent), 'region')
  const bytes = new Uint8Array(pages * PAGE).map((_, i) => (i * 31 + (i >> 12)) & 255)
  fs.writeFileSync(file, bytes)
  const fd = fs.openSync(file, 'r+')
  const { id } = native.map(fd, 0, bytes.length, MAP_FILE, false)
  t.teardown(() => {
    native.unmap(id)
    fs.closeSync(fd)
  })
  return { id, fd, file, bytes }
}

function contents(region: Region): Uint8Array {
  const out = new Uint8Array(region.bytes.length)
  native.copyOut(region.id, 0, out, 0, out.length)
  return out
}

/** The first usual directory that is on tmpfs, or the first that is not. */
function directory(tmpfs: boolean): string | undefined {
  const TMPFS = 0x01021994
  return ['/dev/shm', os.tmpdir(), '/var/tmp', process.cwd()].find(
    (dir) => fs.existsSync(dir) && (fs.statfsSync(dir).type === TMPFS) === tmpfs,
  )
}

interface Finished {
  status: number | NodeJS.Signals
  out: string
}

/** Runs a child with a hard time limit; failing is an answer too. */
function run(file: string, args: string[]): Promise<Finished> {
  return new Promise((resolve) => {
    const options = { timeout: 20_000, killSignal: 'SIGKILL' } as const
    execFile(file, args, options, (error, out, err) =>
      resolve({
        status: error === null ? 0 : (error.signal ?? Number(error.code)),
        out: (out + err).trim(),
      }),
    )
  })
}

const runScript = (script: string, ...args: string[]) =>
  run(process.execPath, ['-e', script, '--', ...args])

t.test('copies go both ways, at any alignment', async (t) => {
  const region = makeRegion(t, 4)
  t.same(contents(region), region.bytes)
  for (const [at, length] of [
    [0, 0],
    [1, 7],
    [63, 255],
    [64, 256],
    [4095, 258],
    [4097, 9000],
  ] as const) {
    const source = new Uint8Array(length + 3).fill(at & 255)
    for (const durable of [false, true]) {
      t.equal(native.copyIn(region.id, at, source, 3, length, durable), GUARD_OK)
      region.bytes.set(source.subarray(3), at)
      t.same(contents(region), region.bytes, `${length} bytes at ${at}, durable ${durable}`)
    }
  }
  t.equal(native.move(region.id, 100, 5000, 6000, true), GUARD_OK)
  region.bytes.copyWithin(5000, 100, 6100)
  t.same(contents(region), region.bytes, 'moved, overlapping')
  t.equal(native.zero(region.id, 4000, 5000, true), GUARD_OK)
  region.bytes.fill(0, 4000, 9000)
  t.same(contents(region), region.bytes, 'zeroed')
  t.equal(native.isZero(region.id, 4000, 5000), GUARD_OK)
  t.equal(native.isZero(region.id, 4000, 5001), NO)
  t.equal(native.isZero(region.id, 3999, 2), NO)
  t.equal(native.isZero(region.id, 0, 0), GUARD_OK)
  t.equal(native.writeBack(region.id, 1, 8000), GUARD_OK)
  native.msync(region.id, 4000, 5000)
  await native.msyncAsync(region.id, 0, region.bytes.length)
  t.same(new Uint8Array(fs.readFileSync(region.file)), region.bytes, 'the file has it')
})

t.test('a file truncated underneath gives the failing offset', async (t) => {
  const { id, fd } = makeRegion(t, 8)
  const buffer = new Uint8Array(8 * PAGE)
  fs.ftruncateSync(fd, 3 * PAGE)
  const bad = 3 * PAGE
  t.equal(native.copyOut(id, 0, buffer, 0, 8 * PAGE), bad)
  t.equal(native.copyOut(id, 100, buffer, 0, 3 * PAGE - 100), GUARD_OK)
  for (const length of [2, 9, 31, 63, 127, 255, 600, 2000, 5000, 9000]) {
    t.equal(native.copyOut(id, bad - 1, buffer, 0, length), bad, `the first of ${length} bytes`)
    t.equal(native.copyIn(id, bad - 1, buffer, 0, length, false), bad, 'written')
  }
  t.equal(native.copyOut(id, 5 * PAGE + 77, buffer, 0, 10), 5 * PAGE + 77)
  t.equal(native.copyIn(id, bad + 1, buffer, 0, 10, true), bad + 1)
  t.equal(native.zero(id, PAGE, 4 * PAGE, false), bad)
  t.equal(native.move(id, 7 * PAGE, 0, 10, false), 7 * PAGE)
  t.equal(native.move(id, 0, 6 * PAGE + 1, 10, false), 6 * PAGE + 1, 'not what lies between')
  t.equal(native.probe(id, 10, 7 * PAGE), bad)
  t.equal(native.isZero(id, bad, PAGE), bad)
  t.equal(native.crc32c(id, 0, 4 * PAGE, 0), -1 - bad)
  t.equal(native.writeBack(id, bad + 64, 64), bad + 64)
  fs.ftruncateSync(fd, 8 * PAGE)
  t.equal(native.probe(id, 0, 8 * PAGE), GUARD_OK, 'and comes back when the file does')
})

t.test('the guard outlives a SIGBUS handler of Node', async (t) => {
  const listener = () => {}
  process.on('SIGBUS', listener)
  t.teardown(() => process.off('SIGBUS', listener))
  const { id, fd } = makeRegion(t, 2)
  fs.ftruncateSync(fd, PAGE)
  t.equal(native.probe(id, 0, 2 * PAGE), PAGE)
})

t.test('a SIGBUS from elsewhere still kills', async (t) => {
  const script = `
    const native = require(process.argv[1])
    const fd = require('node:fs').openSync(process.argv[2], 'r')
    native.map(fd, 0, 4096, 0, true)
    native.onBusError(() => {})
    process.kill(process.pid, 'SIGBUS')
    setTimeout(() => {}, 5000)`
  const { file } = makeRegion(t, 1)
  t.same(await runScript(script, ADDON, file), { status: 'SIGBUS', out: '' })
})

t.test('listening for bus errors keeps no process alive', async (t) => {
  const script = `require(process.argv[1]).onBusError(() => {})`
  t.same(await runScript(script, ADDON), { status: 0, out: '' })
})

t.test('CRC32C', async (t) => {
  const digits = Buffer.from('xx123456789')
  t.equal(native.crc32cBuffer(digits, 2, 9, 0), CRC_CHECK)
  const region = makeRegion(t, 4)
  native.copyIn(region.id, 1000, digits, 2, 9, false)
  t.equal(native.crc32c(region.id, 1000, 9, 0), CRC_CHECK)
  const all = contents(region)
  const whole = native.crc32cBuffer(all, 0, all.length, 0)
  t.equal(native.crc32c(region.id, 0, all.length, 0), whole)
  for (const cut of [0, 1, 7, 8, 4097]) {
    const first = native.crc32c(region.id, 0, cut, 0)
    t.equal(native.crc32c(region.id, cut, all.length - cut, first), whole, `cut at ${cut}`)
    t.equal(native.crc32cBuffer(all, cut, all.length - cut, first), whole, `cut at ${cut}`)
  }
})

for (const tmpfs of [true, false]) {
  const parent = directory(tmpfs)
  const where = tmpfs ? 'a file on tmpfs' : 'an ordinary file'
  const skip = parent === undefined && `no directory for ${where}`
  t.test(`poison on ${where}`, { skip }, async (t) => {
    const region = makeRegion(t, 8, parent)
    const buffer = new Uint8Array(8 * PAGE)
    const way = native.poison(region.id, 2 * PAGE + 10, PAGE)
    t.comment(`by ${way}`)
    if (!tmpfs) t.equal(way, 'remap')
    t.equal(native.copyOut(region.id, 0, buffer, 0, 8 * PAGE), 2 * PAGE)
    t.equal(native.probe(region.id, 3 * PAGE + 5, 1), 3 * PAGE + 5, 'widened to whole pages')
    t.equal(native.probe(region.id, 0, 2 * PAGE), GUARD_OK, 'not before')
    t.equal(native.probe(region.id, 4 * PAGE, 4 * PAGE), GUARD_OK, 'not behind')
    t.equal(native.copyIn(region.id, 2 * PAGE, buffer, 0, PAGE, false), 2 * PAGE)
    native.poison(region.id, PAGE, 3 * PAGE)
    t.equal(native.probe(region.id, 0, 8 * PAGE), PAGE, 'again, over what is poisoned already')
    native.unpoison(region.id, PAGE, 3 * PAGE)
    t.same(contents(region), region.bytes, 'the data is back')
    native.copyIn(region.id, 2 * PAGE, Buffer.from('new'), 0, 3, false)
    t.equal(fs.readFileSync(region.file).toString('latin1', 2 * PAGE, 2 * PAGE + 3), 'new')
  })
}

const TRY_LOCK = `
  const fd = require('node:fs').openSync(process.argv[2], 'r+')
  const [start, length, exclusive] = process.argv.slice(3).map(Number)
  console.log(require(process.argv[1]).lockRange(fd, start, length, exclusive === 1))`

t.test('OFD locks between processes', async (t) => {
  const { fd, file } = makeRegion(t, 4)
  const other = async (start: number, length: number, exclusive: number) =>
    (await runScript(TRY_LOCK, ADDON, file, `${start}`, `${length}`, `${exclusive}`)).out
  t.equal(native.lockRange(fd, PAGE, PAGE, true), true)
  t.equal(native.lockRange(fd, PAGE, PAGE, true), true, 'ours already')
  t.equal(await other(PAGE, PAGE, 1), 'false')
  t.equal(await other(0, 0, 0), 'false', 'a length of 0 reaches to the end')
  t.equal(await other(0, PAGE, 1), 'true', 'another range is free')
  native.unlockRange(fd, PAGE, PAGE)
  t.equal(await other(PAGE, PAGE, 1), 'true')
  t.equal(native.lockRange(fd, 0, 0, false), true)
  t.equal(await other(0, 0, 0), 'true', 'shared')
  t.equal(await other(8 * PAGE, 1, 1), 'false')
  t.throws(() => native.lockRange(-1, 0, 0, true), {
    code: 'EBADF',
    errno: os.constants.errno.EBADF,
  })
})

t.test('bad arguments are told, not followed', async (t) => {
  const { id, fd, file } = makeRegion(t, 2)
  const buffer = new Uint8Array(16)
  const range = (call: () => unknown, message: RegExp) =>
    t.throws(call, { name: 'RangeError', message })
  range(() => native.copyOut(id, 2 * PAGE - 8, buffer, 0, 16), /outside the mapping of 8192 bytes/)
  range(() => native.copyOut(id, 2 ** 52, buffer, 0, 16), /outside the mapping/)
  range(() => native.copyOut(id, 0, buffer, 8, 16), /outside the buffer of 16 bytes/)
  range(() => native.copyOut(id, -1, buffer, 0, 1), /integer from 0/)
  range(() => native.copyOut(id, 0.5, buffer, 0, 1), /integer from 0/)
  range(() => native.copyOut(id, Number.NaN, buffer, 0, 1), /integer from 0/)
  range(() => native.copyOut(id + 1, 0, buffer, 0, 1), /there is no mapping/)
  range(() => native.copyOut(-1, 0, buffer, 0, 1), /there is no mapping/)
  range(() => native.move(id, 0, PAGE, PAGE + 1, false), /outside the mapping/)
  range(() => native.crc32c(id, 0, 1, 2 ** 32), /32 bits/)
  range(() => native.map(fd, 1, PAGE, MAP_FILE, false), /multiple of 4096/)
  range(() => native.map(fd, 0, 0, MAP_FILE, false), /cannot be empty/)
  range(() => native.map(fd, 0, PAGE, 7, false), /no kind/)
  range(() => native.poison(id, 0, 0), /nothing to poison/)
  t.throws(() => native.copyOut(id, 0, [] as never, 0, 0), { name: 'TypeError' })
  t.throws(() => native.copyOut(id, 0, new DataView(buffer.buffer) as never, 0, 0), TypeError)
  t.throws(() => native.copyOut(id, '0' as never, buffer, 0, 0), TypeError)
  t.throws(() => native.onBusError(1 as never), TypeError)
  t.throws(() => native.map(-1, 0, PAGE, MAP_FILE, false), { code: 'EBADF' })
  t.throws(() => native.mount('a', 'b\0c', 'fuse', 0, ''), /contains a NUL/)

  const readOnly = fs.openSync(file, 'r')
  const map = native.map(readOnly, PAGE, PAGE, MAP_FILE, true)
  fs.closeSync(readOnly)
  t.equal(native.copyOut(map.id, 0, buffer, 0, 16), GUARD_OK)
  t.same(buffer, fs.readFileSync(file).subarray(PAGE, PAGE + 16), 'mapped at its file offset')
  range(() => native.copyIn(map.id, 0, buffer, 0, 16, false), /read-only/)
  range(() => native.zero(map.id, 0, 16, false), /read-only/)
  native.poison(map.id, 0, 1)
  t.equal(native.probe(map.id, 0, 1), 0, 'read-only mappings can be poisoned')
  native.unmap(map.id)
  range(() => native.unmap(map.id), /there is no mapping/)
})

const SEND_DESCRIPTOR = `
  import array, os, socket, sys
  s = socket.socket(fileno=3)
  fd = os.open(sys.argv[1], os.O_RDONLY)
  s.sendmsg([b'x'], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array('i', [fd]))])`

t.test('sockets, descriptors and signals', async (t) => {
  const [ours, theirs] = native.socketPair()
  const peer = native.peerCredentials(ours)
  t.same(peer, { pid: process.pid, uid: process.getuid?.(), gid: process.getgid?.() })
  const python = await run('python3', ['-c', 'pass'])
  if (python.status === 0) {
    const { file, bytes } = makeRegion(t, 1)
    const script = SEND_DESCRIPTOR.replaceAll('\n  ', '\n')
    const stdio = ['ignore', 'inherit', 'inherit', theirs] as const
    const child = spawn('python3', ['-c', script, file], { stdio: [...stdio] })
    await new Promise((resolve) => child.once('exit', resolve))
    const received = native.receiveDescriptor(ours)
    t.same(new Uint8Array(fs.readFileSync(received)), bytes)
    fs.closeSync(received)
  } else {
    t.pass('skipped: no python3 to send a descriptor with')
  }
  fs.closeSync(theirs)
  t.throws(() => native.receiveDescriptor(ours), { code: 'ECONNRESET' }, 'the peer is gone')
  fs.closeSync(ours)

  const child = spawn('sleep', ['30'], { stdio: 'ignore' })
  const ended = new Promise((resolve) => child.once('exit', (_, signal) => resolve(signal)))
  const pidfd = native.openProcess(child.pid!)
  native.signalProcess(pidfd, os.constants.signals.SIGBUS, 7)
  t.equal(await ended, 'SIGBUS')
  t.throws(() => native.signalProcess(pidfd, 0, 0), { code: 'ESRCH' }, 'it stands for the dead one')
  t.throws(() => native.openProcess(child.pid!), { code: 'ESRCH' })
  fs.closeSync(pidfd)
})

// A file system of one file, which is enough to meet every call of the channel.

const OP = { LOOKUP: 1, FORGET: 2, GETATTR: 3, OPEN: 14, READ: 15, WRITE: 16, INIT: 26 } as const
// release, flush, ...
const QUIET: Record<number, boolean> = { 18: true, 25: true, 29: true, 38: true }
const ENOENT = 2
const EINVAL = 22
const EIO = 5
const ENODEV = 19
const ENOSYS = 38
const FOPEN_DIRECT_IO = 1
const FILE_NODE = 2

class MiniMount {
  readonly dir: string
  readonly closed: Promise<number>
  readonly channel: Channel
  /** What replyPieces returned last. */
  lastFailure = GUARD_OK
  /** Set to throw from within the handler, once. */
  throwNext = false
  /** How a READ of the whole range [offset, offset + length) of the file is put together. */
  pieces: (offset: number, length: number) => number[] = (offset, length) => [offset, length]
  readonly #region: Region
  readonly #fd: number
  readonly #in: DataView
  readonly #out: DataView
  #mounted = true

  constructor(t: Test, region: Region) {
    this.#region = region
    this.dir = scratch(t)
    this.#fd = fs.openSync('/dev/fuse', 'r+')
    const data = `fd=${this.#fd},rootmode=40000,user_id=0,group_id=0`
    native.mount('holdfast-test', this.dir, 'fuse', 0, data)
    t.teardown(() => this.unmount()) // registered first: even a constructor may fail
    let onClosed: (errno: number) => void = () => {}
    this.closed = new Promise((resolve) => {
      onClosed = resolve
    })
    const size = (1 << 20) + PAGE
    this.channel = native.openChannel(this.#fd, size, (length) => this.#request(length), onClosed)
    const { request, payload } = this.channel
    this.#in = new DataView(request.buffer, request.byteOffset, request.length)
    this.#out = new DataView(payload.buffer, payload.byteOffset, payload.length)
  }

  async unmount(): Promise<void> {
    if (!this.#mounted) return
    this.#mounted = false
    native.umount(this.dir, 2) // MNT_DETACH
    if (this.channel !== undefined) await this.closed
    fs.closeSync(this.#fd)
  }

  #number(at: number): number {
    return Number(this.#in.getBigUint64(at, true))
  }

  #attributes(at: number, node: number): void {
    this.#out.setBigUint64(at, BigInt(node), true)
    if (node === FILE_NODE) {
      this.#out.setBigUint64(at + 8, BigInt(this.#region.bytes.length), true)
    }
    this.#out.setUint32(at + 60, node === FILE_NODE ? 0o100644 : 0o40755, true)
    this.#out.setUint32(at + 64, 1, true)
  }

  #request(length: number): void {
    if (this.throwNext) {
      this.throwNext = false
      this.channel.reply(this.#number(8), EIO, 0)
      throw new Error('thrown by a handler')
    }
    const opcode = this.#in.getUint32(4, true)
    const unique = this.#number(8)
    if (opcode === OP.FORGET || opcode === 42) return
    if (opcode === OP.READ) {
      this.#read(unique)
      return
    }
    const [error, size] = this.#answer(opcode, length)
    this.channel.reply(unique, error, size)
  }

  #read(unique: number): void {
    const offset = this.#number(48)
    const length = Math.min(this.#in.getUint32(56, true), this.#region.bytes.length - offset)
    const pieces = Float64Array.from(this.pieces(offset, length))
    const count = pieces.length / 2
    this.lastFailure = this.channel.replyPieces(unique, this.#region.id, pieces, count)
    if (this.lastFailure !== GUARD_OK) this.channel.replyWith(unique, EIO, new Uint8Array(0))
  }

  /** Builds the payload: [errno, length]. */
  #answer(opcode: number, length: number): [number, number] {
    const out = this.#out
    this.channel.payload.fill(0, 0, 256)
    switch (opcode) {
      case OP.INIT:
        out.setUint32(0, 7, true)
        out.setUint32(4, 31, true)
        out.setUint32(20, 1 << 20, true)
        return [0, 64]
      case OP.GETATTR:
        this.#attributes(16, this.#number(16))
        return [0, 104]
      case OP.LOOKUP:
        if (Buffer.from(this.channel.request.subarray(40, length - 1)).toString() !== 'file') {
          return [ENOENT, 0]
        }
        out.setBigUint64(0, BigInt(FILE_NODE), true)
        this.#attributes(40, FILE_NODE)
        return [0, 128]
      case OP.OPEN:
        out.setUint32(8, FOPEN_DIRECT_IO, true)
        return [0, 16]
      case OP.WRITE: {
        const size = this.#in.getUint32(56, true)
        const request = this.channel.request
        native.copyIn(this.#region.id, this.#number(48), request, 80, size, false)
        out.setUint32(0, size, true)
        return [0, 8]
      }
      default:
        return QUIET[opcode] ? [0, 0] : [ENOSYS, 0]
    }
  }
}

/** Reads from the mount as another process: prints hex, or the errno's name. */
const READ = `
  const fs = require('node:fs')
  const [file, offset, length] = process.argv.slice(1)
  try {
    const buffer = Buffer.alloc(Number(length))
    const got = fs.readSync(fs.openSync(file, 'r'), buffer, 0, buffer.length, Number(offset))
    console.log(require('node:crypto').createHash('md5').update(buffer.subarray(0, got)).digest('hex'), got)
  } catch (error) {
    console.log(error.code)
  }`

const { createHash } = await import('node:crypto')
const digest = (bytes: Uint8Array) =>
  `${createHash('md5').update(bytes).digest('hex')} ${bytes.length}`

const noMount =
  process.getuid?.() !== 0
    ? 'mounting needs root'
    : fs.existsSync('/dev/fuse')
      ? false
      : 'there is no /dev/fuse'

t.test('a mount served through the channel', { skip: noMount, timeout: 60_000 }, async (t) => {
  const region = makeRegion(t, 64)
  const mount = new MiniMount(t, region)
  const file = path.join(mount.dir, 'file')
  const read = async (offset: number, length: number) =>
    (await runScript(READ, file, `${offset}`, `${length}`)).out

  t.equal(await read(0, 64 * PAGE), digest(region.bytes), 'the whole file')
  t.equal(await read(5000, 3000), digest(region.bytes.subarray(5000, 8000)), 'a part')
  t.equal((await runScript(READ, path.join(mount.dir, 'none'), '0', '1')).out, 'ENOENT')

  const source = path.join(scratch(t), 'source')
  fs.writeFileSync(source, new Uint8Array(3 * PAGE).fill(0xa5))
  const dd = ['conv=notrunc', 'bs=12288', 'seek=1', 'status=none', `if=${source}`, `of=${file}`]
  t.same(await run('dd', dd), { status: 0, out: '' })
  region.bytes.fill(0xa5, 3 * PAGE, 6 * PAGE)
  t.same(contents(region), region.bytes, 'written by a client')

  await t.test('pieces and holes', async (t) => {
    mount.pieces = () => [8 * PAGE, 100, -1, 100_000, 0, 0, 17, 5]
    const expected = new Uint8Array(100_105)
    expected.set(region.bytes.subarray(8 * PAGE, 8 * PAGE + 100))
    expected.set(region.bytes.subarray(17, 22), 100_100)
    t.equal(await read(0, 32 * PAGE), digest(expected), 'a short read of three pieces')
    // More pieces than writev takes at once; every other 64 bytes of the file are a hole.
    mount.pieces = (offset, length) => {
      const pieces: number[] = []
      for (let at = offset; at < offset + length; ) {
        const next = Math.min(at - (at % 64) + 64, offset + length)
        pieces.push(at & 64 ? -1 : at, next - at)
        at = next
      }
      return pieces
    }
    const striped = region.bytes.map((byte, i) => (i & 64 ? 0 : byte))
    t.equal(await read(0, 64 * PAGE), digest(striped), 'thousands of pieces')
    mount.pieces = (offset, length) => [offset, length]
  })

  await t.test('poison in the way of a READ', async (t) => {
    native.poison(region.id, 9 * PAGE, 1)
    t.equal(await read(8 * PAGE, 4 * PAGE), 'EIO')
    t.equal(mount.lastFailure, 9 * PAGE)
    t.equal(await read(10 * PAGE, PAGE), digest(region.bytes.subarray(10 * PAGE, 11 * PAGE)))
    native.unpoison(region.id, 9 * PAGE, 1)
    t.equal(
      await read(8 * PAGE, 4 * PAGE),
      digest(region.bytes.subarray(8 * PAGE, 12 * PAGE)),
      'and out of it again',
    )
  })

  await t.test('notifications', async (t) => {
    // fuse_out_header, then NOTIFY_INVAL_INODE: node, offset, length
    const message = Buffer.alloc(40)
    message.writeUInt32LE(40, 0)
    message.writeInt32LE(2, 4)
    message.writeBigUInt64LE(99n, 16)
    t.equal(await mount.channel.notify(message), 0, 'a node the kernel does not know')
    const unheardOf = Buffer.from(message)
    unheardOf.writeInt32LE(1000, 4)
    const both = Buffer.concat([unheardOf, message])
    t.equal(await mount.channel.notify(both), EINVAL, 'refused')
    both.writeUInt32LE(41, 40)
    t.equal(await mount.channel.notify(both.subarray(40)), EINVAL, 'longer than it is')
    const child = spawn('sh', ['-c', 'exec sleep 30 < "$0"', file], { stdio: 'ignore' })
    t.teardown(() => child.kill('SIGKILL'))
    await opened(child, file)
    message.writeBigUInt64LE(BigInt(FILE_NODE), 16)
    t.equal(await mount.channel.notify(Buffer.concat([message, message])), 0, 'several in one go')
    const answers = Array.from({ length: 20 }, () => mount.channel.notify(message))
    message.fill(255) // a copy was taken
    t.same(await Promise.all(answers), new Array(20).fill(0))
    child.kill('SIGKILL')
  })

  await t.test('a handler that throws', async (t) => {
    const caught = new Promise((resolve) => process.once('uncaughtException', resolve))
    mount.throwNext = true
    await read(0, 10)
    t.match(await caught, { message: 'thrown by a handler' })
    t.equal(await read(0, 10), digest(region.bytes.subarray(0, 10)), 'the next request is served')
  })

  await t.test('bad arguments', async (t) => {
    const { reply, replyWith, replyPieces } = mount.channel
    const pairs =
      (...values: number[]) =>
      () =>
        replyPieces(1, region.id, Float64Array.from(values), values.length / 2)
    const outside = { name: 'RangeError', message: /outside the mapping/ }
    for (const bad of [-2, 64 * PAGE - 99, Number.NaN, Number.POSITIVE_INFINITY, -0.5]) {
      t.throws(pairs(bad, 100), outside, `an offset of ${bad}`)
      if (bad < 0 || !Number.isFinite(bad)) t.throws(pairs(0, bad), outside, `a length of ${bad}`)
    }
    t.throws(() => replyPieces(1, region.id, new Float64Array(2), 2), /Float64Array/)
    t.throws(() => replyPieces(1, region.id, new Uint8Array(2) as never, 1), /Float64Array/)
    t.throws(() => reply(1, 0, 2 ** 21), RangeError)
    t.throws(() => reply(-1, 0, 0), RangeError)
    t.equal(replyWith(12345, 0, new Uint8Array(8)), ENOENT, 'nobody waits for this answer')
    t.throws(
      () =>
        native.openChannel(
          -1,
          8192,
          () => {},
          () => {},
        ),
      { code: 'EBADF' },
    )
    t.throws(
      () =>
        native.openChannel(
          0,
          100,
          () => {},
          () => {},
        ),
      RangeError,
    )
  })

  await mount.unmount()
  t.equal(await mount.closed, ENODEV)
  mount.channel.stop()
})

/** Waits until the child has `file` open, without touching the mount from this process. */
async function opened(child: ChildProcess, file: string): Promise<void> {
  for (let i = 0; i < 200; i++) {
    const target = await fs.promises.readlink(`/proc/${child.pid}/fd/0`).catch(() => '')
    if (target === file) return
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
  throw new Error('the child did not open the file')
}

t.test('stop() lets the process end', { skip: noMount }, async (t) => {
  const script = `
    const native = require(process.argv[1]), fs = require('node:fs')
    const fd = fs.openSync('/dev/fuse', 'r+')
    native.mount('x', process.argv[2], 'fuse', 0, 'fd=' + fd + ',rootmode=40000,user_id=0,group_id=0')
    const channel = native.openChannel(fd, 65536, () => {
      channel.stop()
      channel.stop()
      console.log(channel.request[4])
      native.umount(process.argv[2], 2)
    }, () => console.log('closed'))`
  t.same(await runScript(script, ADDON, scratch(t)), { status: 0, out: String(OP.INIT) })
})
