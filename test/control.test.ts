/** The control socket: lines, garbage, methods, events, and how a target is found. */
import { existsSync, mkdtempSync, rmSync, statSync } from 'node:fs'
import { createConnection, Server, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import t, { type Test } from 'tap'
import { ControlClient } from '../src/control/client.ts'
import { LineReader } from '../src/control/lines.ts'
import {
  deviceNumber,
  isHoldfast,
  mountAt,
  mountOfDevice,
  parseMountinfo,
  readMounts,
  unescapeOctal,
} from '../src/control/mountinfo.ts'
import { ControlError, MAX_LINE } from '../src/control/protocol.ts'
import { ControlServer } from '../src/control/server.ts'
import { canonical, resolveFile, resolveTarget } from '../src/control/target.ts'
import type { Administration, FilesystemEvent, InjectRequest } from '../src/fs/administration.ts'
import { E2BIG, EINVAL, ENOENT, ENOSYS, FsError } from '../src/fs/errors.ts'

/** A filesystem that only remembers what it was asked. */
class FakeFilesystem {
  readonly calls: unknown[] = []
  readonly listeners = new Set<(event: FilesystemEvent) => void>()

  status() {
    return { uuid: 'u', label: 'l', state: 'mounted' }
  }

  getmap(inode: number) {
    if (inode === 404) throw new FsError(ENOENT, 'no such inode')
    if (inode === 500) throw new Error('a bug')
    // As many bytes of extents.
    if (inode > 2 ** 20) return { inode, size: 0, extents: ['x'.repeat(inode)] }
    return { inode, size: 0, extents: [] }
  }

  rmap(offset: number, length: number, limit: number) {
    this.calls.push({ offset, length, limit })
    return []
  }

  inject(request: InjectRequest) {
    this.calls.push(request)
    return { kind: 'data', offset: 0, length: 1, inodes: [], handlesKilled: 0, shutdown: false }
  }

  async revoked() {}

  clearPoison(range: unknown) {
    this.calls.push(range)
    return 4096
  }

  async freeze() {
    await new Promise((resolve) => setTimeout(resolve, 50))
  }

  thaw() {}

  subscribe(listener: (event: FilesystemEvent) => void) {
    this.listeners.add(listener)
    return () => this.listeners.delete(listener)
  }
}

interface Served {
  path: string
  fs: FakeFilesystem
  server: ControlServer
  warnings: string[]
}

async function serve(t: Test): Promise<Served> {
  const directory = mkdtempSync(join(tmpdir(), 'holdfast-control-'))
  const path = join(directory, 's')
  const fs = new FakeFilesystem()
  const warnings: string[] = []
  const server = await ControlServer.listen(path, {
    fs: fs as unknown as Administration,
    facts: { region: '/r', mountpoint: '/m', transport: 'kernel', holder: null },
    warn: (sentence) => warnings.push(sentence),
  })
  t.teardown(async () => {
    await server.close()
    rmSync(directory, { recursive: true })
  })
  return { path, fs, server, warnings }
}

/** Sends bytes as they are; resolves with the lines that came back until `count` or the end. */
function exchange(path: string, bytes: string | Buffer, count: number): Promise<unknown[]> {
  return new Promise((resolve, reject) => {
    const lines: unknown[] = []
    const reader = new LineReader(2 ** 24)
    const socket = createConnection(path, () => socket.write(bytes))
    const end = (): void => {
      clearTimeout(limit)
      socket.destroy()
      resolve(lines)
    }
    const limit = setTimeout(() => reject(new Error('no answer in 10 s')), 10_000)
    socket.on('data', (chunk) => {
      reader.push(chunk, (line) => lines.push(JSON.parse(line)))
      if (lines.length >= count) end()
    })
    socket.on('close', end)
    socket.on('error', end)
  })
}

async function connect(t: Test, path: string): Promise<ControlClient> {
  const client = await ControlClient.connect(path)
  t.teardown(() => client.close())
  return client
}

t.test('lines are cut from any chunks', async (t) => {
  const text = fc.string().map((line) => line.replaceAll('\n', ''))
  fc.assert(
    fc.property(fc.array(text), fc.array(fc.nat(7)), (lines, cuts) => {
      const bytes = Buffer.from(lines.map((line) => `${line}\n`).join(''))
      const reader = new LineReader(1 << 20)
      const got: string[] = []
      let at = 0
      for (const cut of [...cuts, bytes.length]) {
        reader.push(bytes.subarray(at, at + cut), (line) => got.push(line))
        at += cut
      }
      return JSON.stringify(got) === JSON.stringify(lines)
    }),
  )
  const short = new LineReader(4)
  t.ok(short.push(Buffer.from('abcd'), () => {}))
  t.notOk(
    short.push(Buffer.from('e'), () => {}),
    'one byte too many',
  )
})

t.test('mountinfo', async (t) => {
  const text =
    '26 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n' +
    '43 26 0:40 / /mnt/a\\040b\\011\\134c rw,nodev - fuse.holdfast /tmp/r\\040x ro,user_id=1000\n' +
    '44 26 0:41 / /mnt/a\\040b\\011\\134c rw shared:3 master:1 - fuse.holdfast /two rw\n' +
    'nonsense\n'
  const mounts = parseMountinfo(text)
  t.equal(mounts.length, 3)
  t.same(mounts[1], {
    id: 43,
    device: '0:40',
    mountpoint: '/mnt/a b\t\\c',
    options: ['rw', 'nodev', 'ro', 'user_id=1000'],
    type: 'fuse.holdfast',
    source: '/tmp/r x',
  })
  t.equal(mountAt('/mnt/a b\t\\c', mounts)?.id, 44, 'the topmost')
  t.equal(mountOfDevice(0x28n, mounts)?.id, 43)
  t.same(mounts.map(isHoldfast), [false, true, true])
  t.equal(unescapeOctal('\\043x\\12'), '#x\\12')
  t.equal(deviceNumber(0x12345678n), '1110:74616', 'as gnu_dev_major and gnu_dev_minor')
  const root = readMounts().find((mount) => mount.mountpoint === '/')
  t.equal(deviceNumber(statSync('/', { bigint: true }).dev), root?.device)
})

t.test('methods and errors', async (t) => {
  const { path, fs, warnings } = await serve(t)
  t.equal(statSync(path).mode & 0o777, 0o600)
  const client = await connect(t, path)
  const status = await client.call('status', {})
  t.match(status, { uuid: 'u', region: '/r', mountpoint: '/m', transport: 'kernel' })
  t.same(await client.call('getmap', { inode: 7 }), { inode: 7, size: 0, extents: [] })
  await t.rejects(client.call('getmap', { inode: 404 }), {
    errno: ENOENT,
    message: 'no such inode',
  })
  t.same(warnings, [])
  await t.rejects(client.call('getmap', { inode: 500 }), { errno: 5, message: 'a bug' })
  t.match(warnings, [/Error: a bug/], 'a bug is logged with its stack')
  for (const inode of [0, -1, 1.5, Number.NaN, 2 ** 60]) {
    await t.rejects(client.call('getmap', { inode }), ControlError, `inode ${inode}`)
  }
  await client.call('rmap', { offset: 0, length: 10, limit: 2 ** 40 })
  t.same(fs.calls.pop(), { offset: 0, length: 10, limit: 4096 }, 'a reply stays small')
  const request: InjectRequest = {
    target: { kind: 'file', inode: 3, fileOffset: 0 },
    length: 4096,
    method: 'soft',
  }
  const { milliseconds } = await client.call('inject', request)
  t.ok(milliseconds >= 0 && milliseconds < 1000, 'how long the consequences took')
  t.same(fs.calls.pop(), request)
  t.same(await client.call('clearPoison', { range: 'all' }), { cleared: 4096 })
  t.same(fs.calls.pop(), 'all')
  const bad = { target: { kind: 'file', path: '/etc/passwd' }, length: 1, method: 'soft' }
  const wrong = client.call('inject', bad as unknown as InjectRequest)
  await t.rejects(wrong, ControlError)
  const order: string[] = []
  const frozen = client.call('freeze', {}).then(() => order.push('freeze'))
  await Promise.all([frozen, client.call('status', {}).then(() => order.push('status'))])
  t.same(order, ['status', 'freeze'], 'a slow request holds up no other')
})

t.test('the socket is nobody else’s from the moment it is there', async (t) => {
  const before = process.umask(0)
  const listen = Server.prototype.listen
  const modes: number[] = []
  Server.prototype.listen = function (this: Server, ...args: unknown[]) {
    const result = Reflect.apply(listen, this, args) as Server
    // Bound by now, and nobody had a turn in between.
    modes.push(statSync(String(args[0])).mode & 0o777)
    return result
  } as typeof listen
  try {
    await serve(t)
    t.same(modes, [0o600])
    t.equal(process.umask(), 0, 'what else is made is not touched')
  } finally {
    Server.prototype.listen = listen
    process.umask(before)
  }
})

t.test('garbage is answered, logged once, and harms nobody', async (t) => {
  const { path, warnings } = await serve(t)
  const einval = { id: null, error: { errno: EINVAL } }
  const garbage = 'GET / HTTP/1.1\n{"id":1\n[]\nnull\n"x"\n{"id":"1","method":"status"}\n\n{}\n'
  t.match(await exchange(path, garbage, 7), Array(7).fill(einval))
  t.equal(warnings.length, 1, 'one line a connection')
  t.match(await exchange(path, '{"id":1,"method":"__proto__"}\n', 1), [
    { id: 1, error: { errno: ENOSYS } },
  ])
  t.match(await exchange(path, '{"id":2,"method":"getmap","params":7}\n', 1), [
    { id: 2, error: { errno: EINVAL } },
  ])
  const long = Buffer.alloc(MAX_LINE + 2, 'x')
  t.match(await exchange(path, long, 1), [{ id: null, error: { message: /too long/ } }])
  t.equal(warnings.length, 2)
  await exchange(path, Buffer.from([0xff, 0xfe, 0, 10]), 1)
  const client = await connect(t, path)
  t.ok(await client.call('status', {}), 'it still answers')
})

t.test('any bytes at all', async (t) => {
  const { path } = await serve(t)
  await fc.assert(
    fc.asyncProperty(fc.uint8Array({ maxLength: 200 }), async (bytes) => {
      const line = Buffer.concat([Buffer.from(bytes), Buffer.from('\n{"id":9,"method":"thaw"}\n')])
      const replies = (await exchangeUntil(path, line, 9)) as { id: number }[]
      return replies.at(-1)?.id === 9
    }),
    { numRuns: 50 },
  )
})

/** Until the reply with this id. */
function exchangeUntil(path: string, bytes: Buffer, id: number): Promise<unknown[]> {
  return new Promise((resolve) => {
    const lines: { id: number }[] = []
    const reader = new LineReader(2 ** 24)
    const socket: Socket = createConnection(path, () => socket.write(bytes))
    socket.on('data', (chunk) => {
      reader.push(chunk, (line) => lines.push(JSON.parse(line)))
      if (lines.at(-1)?.id === id) socket.destroy()
    })
    socket.on('close', () => resolve(lines))
  })
}

t.test('watch', async (t) => {
  const { path, fs, server } = await serve(t)
  const client = await connect(t, path)
  const events: FilesystemEvent[] = []
  await client.watch((event) => events.push(event))
  await client.call('watch', {})
  t.equal(fs.listeners.size, 1, 'a second watch is the same one')
  for (const listener of fs.listeners) listener({ event: 'freeze', time: 'now' })
  await client.call('status', {})
  t.same(events, [{ event: 'freeze', time: 'now' }])
  await server.close()
  await client.closed
  t.equal(fs.listeners.size, 0, 'hanging up unsubscribes')
  await t.rejects(client.call('status', {}), ControlError)
  t.notOk(existsSync(path), 'the socket is gone')
  await t.rejects(ControlClient.connect(path), { code: 'ENOENT' })
})

t.test('one reply may be long, but not longer than a client takes', async (t) => {
  const { path, warnings } = await serve(t)
  const client = await connect(t, path)
  const inode = 20 * 2 ** 20
  const { extents } = await client.call('getmap', { inode })
  t.equal(String(extents[0]).length, inode)
  const longer = client.call('getmap', { inode: 64 * 2 ** 20 })
  await t.rejects(longer, { errno: E2BIG, message: /longer than 64 MiB/ })
  t.ok(await client.call('status', {}), 'and the connection stays')
  t.same(warnings, [])
})

t.test('a watcher that does not read is given up', async (t) => {
  const { path, fs } = await serve(t)
  const socket = createConnection(path, () => socket.write('{"id":1,"method":"watch"}\n'))
  t.teardown(() => socket.destroy())
  socket.pause()
  for (let tries = 0; fs.listeners.size === 0 && tries < 200; tries++) {
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
  const event = { event: 'shutdown', time: 'now', offset: 0, reason: 'x'.repeat(1 << 20) } as const
  for (let i = 0; i < 20; i++) for (const listener of fs.listeners) listener(event)
  for (let tries = 0; fs.listeners.size > 0 && tries < 200; tries++) {
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
  t.equal(fs.listeners.size, 0)
})

t.test('a stopped client does not hold up the end', async (t) => {
  const { path, server } = await serve(t)
  const socket = createConnection(path)
  socket.on('error', () => {})
  await new Promise((resolve) => socket.once('connect', resolve))
  socket.pause()
  const started = performance.now()
  await server.close()
  t.ok(performance.now() - started < 5000)
})

t.test('targets', async (t) => {
  t.equal(canonical('/proc/self/../self/nothing-here/x'), '/proc/self/nothing-here/x')
  t.throws(() => resolveTarget('/nonexistent/region'), /does not exist/)
  t.throws(() => resolveTarget('/proc'), /neither a holdfast mount nor a region/)
  t.throws(() => resolveTarget('file-0-1'), /nobody holds/)
  t.throws(() => resolveFile('/etc/passwd'), /not on a holdfast mount/)
  t.throws(() => resolveFile('/nonexistent/file'), { code: 'ENOENT' })
})
