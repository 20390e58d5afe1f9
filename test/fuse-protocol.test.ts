/** The FUSE protocol without a kernel: struct tables, the node table, one request at a time. */
import t from 'tap'
import { ENOENT, FrozenError, FsError } from '../src/fs/errors.ts'
import { Handle } from '../src/fs/handles.ts'
import type { FilesystemOperations, Inode } from '../src/fs/operations.ts'
import { FOREVER } from '../src/fuse/attributes.ts'
import { Dispatcher } from '../src/fuse/dispatcher.ts'
import type { Negotiated } from '../src/fuse/negotiate.ts'
import { NODE_FREE, NODE_LIVE, NODE_RETIRED, NODE_REVOKING, NodeTable } from '../src/fuse/nodes.ts'
import { Notifier } from '../src/fuse/notify.ts'
import { cachePolicy } from '../src/fuse/policy.ts'
import { Init, Opcode, WRITE_CACHE } from '../src/fuse/protocol.ts'
import * as reply from '../src/fuse/reply-structs.ts'
import * as request from '../src/fuse/request-structs.ts'
import { Session } from '../src/fuse/session.ts'
import type { Channel } from '../src/native/binding.ts'

const { ESTALE, EIO, EINVAL, ENOSYS, ENOTTY } = (await import('node:os')).constants.errno

/** sizeof and a few offsetof of <linux/fuse.h>, as gcc has them. */
const SIZES: Record<string, number> = {
  IN_HEADER: 40,
  INIT_IN: 64,
  FORGET_IN: 8,
  BATCH_FORGET_IN: 8,
  FORGET_ONE: 16,
  GETATTR_IN: 16,
  STATX_IN: 24,
  MKNOD_IN: 16,
  MKDIR_IN: 8,
  RENAME_IN: 8,
  RENAME2_IN: 16,
  LINK_IN: 8,
  SETATTR_IN: 88,
  OPEN_IN: 8,
  CREATE_IN: 16,
  RELEASE_IN: 24,
  READ_IN: 40,
  WRITE_IN: 40,
  FSYNC_IN: 16,
  SETXATTR_IN: 16,
  GETXATTR_IN: 8,
  INTERRUPT_IN: 8,
  FALLOCATE_IN: 32,
  LSEEK_IN: 24,
  COPY_FILE_RANGE_IN: 56,
  OUT_HEADER: 16,
  ATTR: 88,
  ENTRY_OUT: 128,
  ATTR_OUT: 104,
  STATX: 256,
  STATX_OUT: 32,
  OPEN_OUT: 16,
  WRITE_OUT: 8,
  GETXATTR_OUT: 8,
  LSEEK_OUT: 8,
  COPY_FILE_RANGE_OUT: 8,
  STATFS_OUT: 80,
  INIT_OUT: 64,
  DIRENT: 24,
  NOTIFY_INVAL_INODE_OUT: 24,
  NOTIFY_INVAL_ENTRY_OUT: 16,
}

t.test('struct sizes and offsets', async (t) => {
  const structs = Object.entries({ ...request, ...reply })
  t.same(Object.fromEntries(structs.map(([name, { size }]) => [name, size])), SIZES)
  t.equal(request.WRITE_IN.at.write_flags, 40 + 20)
  t.equal(request.SETATTR_IN.at.ctimensec, 40 + 64)
  t.equal(request.COPY_FILE_RANGE_IN.at.nodeid_out, 40 + 16)
  t.equal(reply.ATTR.at.rdev, 76)
  t.equal(reply.ENTRY_OUT.at.attr, 40)
  t.equal(reply.ATTR_OUT.at.attr, 16)
  t.equal(reply.INIT_OUT.at.max_pages, 28)
  t.equal(reply.STATX.at.atime_sec, 64)
  t.equal(reply.STATX.at.rdev_major, 128)
})

t.test('nodes', async (t) => {
  const nodes = new NodeTable()
  const slot = nodes.remember(77)
  t.equal(nodes.remember(77), slot, 'an inode has one nodeid')
  t.equal(nodes.state(slot, nodes.high(slot)), NODE_LIVE)
  t.equal(nodes.inoOf(slot), 77)
  t.equal(nodes.forget(slot, nodes.high(slot), 1), 77)
  t.equal(nodes.state(slot, 0), NODE_LIVE, 'one of two lookups is left')
  t.equal(nodes.forget(slot, 0, 1), 77)
  t.equal(nodes.state(slot, 0), NODE_FREE)
  t.equal(nodes.forget(slot, 0, 1), 0, 'a stranger')
  t.equal(nodes.remember(78), slot, 'slots are used again')
  t.equal(nodes.high(slot), 1, 'nodeids are not')
  t.equal(nodes.state(slot, 0), NODE_FREE)
  t.equal(nodes.forget(1, 0, 5), 0, 'the root stays')
  t.equal(nodes.retire(1), 0)

  const retired = nodes.retire(78)
  t.equal(retired, slot)
  t.equal(nodes.state(slot, 1), NODE_REVOKING)
  t.equal(nodes.slotOf(78), 0)
  const fresh = nodes.remember(78)
  t.not(fresh, slot, 'the same inode has a new nodeid')
  nodes.revoked(slot, 1)
  t.equal(nodes.state(slot, 1), NODE_RETIRED)
  t.equal(nodes.inoOf(slot), 78)
  t.equal(nodes.forget(slot, 1, 1), 78)
  t.equal(nodes.slotOf(78), fresh, 'forgetting the old node leaves the new one')
  nodes.revoked(slot, 1)
  t.equal(nodes.state(slot, 1), NODE_FREE, 'a late end of a revocation')

  for (let ino = 1000; ino < 6000; ino++) nodes.remember(ino)
  t.equal(nodes.count, 5002)
  const left: number[] = []
  nodes.clear((ino) => left.push(ino))
  t.equal(left.length, 5001)
  t.equal(nodes.count, 1)
})

interface Answer {
  unique: number
  error: number
  payload: Buffer
}

/** A channel that keeps what is written to it. */
class FakeChannel implements Channel {
  readonly request = new Uint8Array(64 * 1024)
  readonly payload = new Uint8Array(64 * 1024)
  readonly answers: Answer[] = []
  readonly notes: Buffer[] = []
  /** What notify() waits for. */
  gate: Promise<void> = Promise.resolve()

  reply(unique: number, error: number, length: number): number {
    this.answers.push({ unique, error, payload: Buffer.from(this.payload.slice(0, length)) })
    return 0
  }
  replyWith(unique: number, error: number, payload: Uint8Array): number {
    this.answers.push({ unique, error, payload: Buffer.from(payload) })
    return 0
  }
  replyPieces(): number {
    throw new Error('no mapping here')
  }
  async notify(message: Uint8Array): Promise<number> {
    this.notes.push(Buffer.from(message))
    await this.gate
    return 0
  }
  stop(): void {}
}

const INODE: Inode = {
  ino: 0x1_0000_0007,
  mode: 0o100644,
  uid: 1000,
  gid: 1001,
  nlink: 2,
  rdev: 0,
  flags: 0,
  size: 0x2_0000_0001,
  blocks: 3,
  parent: 0,
  atime: -1,
  atimeNs: 5,
  mtime: 1_700_000_000,
  mtimeNs: 6,
  ctime: 1_700_000_001,
  ctimeNs: 7,
  btime: 1_600_000_000,
  btimeNs: 8,
  target: null,
}

function setUp(operations: Partial<FilesystemOperations>) {
  const channel = new FakeChannel()
  const fs = operations as FilesystemOperations
  const session = new Session(fs, channel, cachePolicy('keep', false), { mapId: undefined })
  const agreed: Negotiated[] = []
  const dispatcher = new Dispatcher(
    session,
    (result) => agreed.push(result),
    () => {},
  )
  let unique = 2
  /** Sends a request; returns its answer, if it came at once. */
  const send = (opcode: number, node: { low: number; high: number }, body: Buffer) => {
    const header = Buffer.alloc(request.IN_HEADER.size)
    unique += 2
    header.writeUInt32LE(header.length + body.length, 0)
    header.writeUInt32LE(opcode, 4)
    header.writeBigUInt64LE(BigInt(unique), 8)
    header.writeUInt32LE(node.low, 16)
    header.writeUInt32LE(node.high, 20)
    header.writeUInt32LE(1000, 24)
    channel.request.set(header)
    channel.request.set(body, header.length)
    const before = channel.answers.length
    dispatcher.handle(header.length + body.length)
    return channel.answers[before]
  }
  return { channel, session, dispatcher, send, agreed }
}

const ROOT = { low: 1, high: 0 }
const name = (text: string) => Buffer.from(`${text}\0`)
const u64 = (...values: number[]) => {
  const bytes = Buffer.alloc(values.length * 8)
  values.forEach((value, i) => {
    bytes.writeBigUInt64LE(BigInt(value), i * 8)
  })
  return bytes
}
const u32 = (...values: number[]) => {
  const bytes = Buffer.alloc(values.length * 4)
  values.forEach((value, i) => {
    bytes.writeUInt32LE(value, i * 4)
  })
  return bytes
}

t.test('INIT takes what it wants of what is offered', async (t) => {
  const { send, agreed } = setUp({})
  const offered = Init.BIG_WRITES | Init.MAX_PAGES | Init.POSIX_ACL | Init.EXPLICIT_INVAL_DATA
  const body = Buffer.alloc(64)
  body.set(u32(7, 45, 131072, offered, 0x7ff))
  const answer = send(Opcode.INIT, { low: 0, high: 0 }, body)!
  t.equal(answer.error, 0)
  t.equal(answer.payload.length, 64)
  t.equal(answer.payload.readUInt32LE(0), 7)
  t.equal(answer.payload.readUInt32LE(4), 45)
  t.equal(answer.payload.readUInt32LE(12), offered)
  t.equal(answer.payload.readUInt32LE(20), 1 << 20, 'max_write')
  t.equal(answer.payload.readUInt32LE(24), 1, 'time_gran')
  t.equal(answer.payload.readUInt16LE(28), 256, 'max_pages')
  t.same(agreed, [{ minor: 45, kernelMinor: 45, flags: offered, flags2: 0 }])

  body.set(u32(8, 0))
  t.equal(send(Opcode.INIT, { low: 0, high: 0 }, body)!.payload.readUInt32LE(0), 7)
  t.equal(agreed.length, 1, 'a newer major asks again')
  body.set(u32(7, 12))
  t.not(send(Opcode.INIT, { low: 0, high: 0 }, body)!.error, 0, 'a kernel that is too old')
})

t.test('LOOKUP, to the byte', async (t) => {
  const forgotten: number[][] = []
  const { send, session } = setUp({
    lookup: (parent, found) => {
      t.equal(parent, 1)
      if (Buffer.from(found).toString() === 'file') return INODE
      throw new FsError(ENOENT)
    },
    forget: (ino, count) => forgotten.push([ino, count]),
  })
  const { payload } = send(Opcode.LOOKUP, ROOT, name('file'))!
  const expected = Buffer.concat([
    u64(2, 0, FOREVER, FOREVER),
    u32(0, 0),
    u64(INODE.ino, INODE.size, 24),
    Buffer.alloc(8, 0xff),
    u64(1_700_000_000, 1_700_000_001),
    u32(5, 6, 7, 0o100644, 2, 1000, 1001, 0, 4096, 0),
  ])
  t.equal(payload.toString('hex'), expected.toString('hex'))

  const negative = send(Opcode.LOOKUP, ROOT, name('other'))!
  t.equal(negative.error, 0, 'a missing name is an answer to be cached')
  t.equal(negative.payload.readBigUInt64LE(0), 0n)
  t.equal(negative.payload.readBigUInt64LE(16), BigInt(FOREVER))
  t.equal(session.nodes.count, 2)

  t.equal(send(Opcode.LOOKUP, { low: 9, high: 0 }, name('x'))!.error, ESTALE, 'unknown nodeid')
  t.equal(send(Opcode.FORGET, { low: 2, high: 0 }, u64(1)), undefined, 'no answer')
  send(Opcode.BATCH_FORGET, { low: 0, high: 0 }, Buffer.concat([u32(5, 0), u64(2, 1)]))
  t.same(forgotten, [[INODE.ino, 1]])
  t.equal(session.nodes.count, 1)
})

t.test('STATX and GETATTR', async (t) => {
  const { send } = setUp({ getattr: () => INODE })
  const { payload } = send(Opcode.STATX, ROOT, Buffer.alloc(24))!
  t.equal(payload.length, 288)
  const at = (field: number) => 32 + field
  t.equal(payload.readUInt32LE(at(0)), 0xfff)
  t.equal(payload.readUInt16LE(at(28)), 0o100644)
  t.equal(payload.readBigUInt64LE(at(32)), BigInt(INODE.ino))
  t.equal(payload.readBigInt64LE(at(64)), -1n, 'atime before 1970')
  t.equal(payload.readBigInt64LE(at(80)), 1_600_000_000n, 'btime')
  const attributes = send(Opcode.GETATTR, ROOT, Buffer.alloc(16))!.payload
  t.equal(attributes.length, 104)
  t.equal(attributes.readUInt32LE(16 + 60), 0o100644)
})

t.test('errors', async (t) => {
  const reported: string[] = []
  const { send, session } = setUp({
    getattr: () => {
      throw new TypeError('a bug')
    },
  })
  session.bug = (_error, operation) => reported.push(operation)
  t.equal(send(Opcode.GETATTR, ROOT, Buffer.alloc(16))!.error, EIO)
  t.same(reported, ['GETATTR'])
  t.equal(send(Opcode.IOCTL, ROOT, Buffer.alloc(32))!.error, ENOTTY)
  t.equal(send(Opcode.FLUSH, ROOT, Buffer.alloc(24))!.error, ENOSYS)
  t.equal(send(Opcode.ACCESS, ROOT, Buffer.alloc(8))!.error, ENOSYS)
  t.equal(send(4000, ROOT, Buffer.alloc(8))!.error, ENOSYS)
  t.equal(send(Opcode.LOOKUP, ROOT, Buffer.from('no end'))!.error, EINVAL)
  const short = Buffer.alloc(40)
  short.writeUInt32LE(4096, 16)
  session.fs.handle = () => new Handle(1, 1, 2, false)
  t.equal(send(Opcode.WRITE, ROOT, short)!.error, EINVAL, 'less data than it says')
})

t.test('a retired node', async (t) => {
  const written: boolean[] = []
  let openGate = () => {}
  const { send, session, channel } = setUp({
    lookup: () => INODE,
    handle: () => new Handle(1, INODE.ino, 2, false),
    write: (_handle, _offset, _source, _at, length, options) => {
      written.push(options.cached)
      return length
    },
    open: () => new Handle(2, INODE.ino, 0, false),
    release: () => {},
  })
  const notifier = new Notifier(session, 45, () => {})
  channel.gate = new Promise((resolve) => {
    openGate = resolve
  })
  send(Opcode.LOOKUP, ROOT, name('file'))
  const old = { low: 2, high: 0 }
  const revoked = notifier.revoke(INODE.ino, [
    { parent: 1, name: Buffer.from('file') },
    { parent: 4711, name: Buffer.from('in a directory the kernel does not know') },
  ])
  const write = (flags: number) =>
    Buffer.concat([u64(1, 0), u32(4, flags), u64(0), u32(0, 0), Buffer.from('data')])
  t.equal(send(Opcode.OPEN, old, Buffer.alloc(8))!.error, ESTALE)
  t.equal(send(Opcode.GETATTR, old, Buffer.alloc(16))!.error, ESTALE, 'on the way to an OPEN')
  t.equal(send(Opcode.STATX, old, Buffer.alloc(24))!.error, ESTALE, 'the same')
  t.equal(send(Opcode.READ, old, Buffer.alloc(40))!.error, EIO)
  t.equal(send(Opcode.WRITE, old, write(0))!.error, EIO)
  t.equal(send(Opcode.WRITE, old, write(WRITE_CACHE))!.error, 0, 'dirty pages, while they go')
  t.equal(send(Opcode.RELEASE, old, Buffer.alloc(24))!.error, 0)
  openGate()
  await revoked
  t.equal(send(Opcode.WRITE, old, write(WRITE_CACHE))!.error, EIO, 'afterwards nothing')
  t.equal(send(Opcode.GETATTR, old, Buffer.alloc(16))!.error, EIO)
  t.same(written, [true])
  t.same(
    channel.notes.map((note) => note.toString('hex')),
    [
      Buffer.concat([
        ...[u32(40, 2), u64(0, 2, 0, 0)],
        ...[u32(37, 3), u64(0, 1), u32(4, 0), name('file')],
      ]).toString('hex'),
    ],
    'in one go: the pages of the old node, then its names',
  )
  const again = send(Opcode.LOOKUP, ROOT, name('file'))!.payload
  t.equal(again.readBigUInt64LE(0), 3n, 'a new nodeid')
  t.equal(again.readBigUInt64LE(40), BigInt(INODE.ino), 'the same st_ino')
})

t.test('names that have to wait hold up no pages of other files', async (t) => {
  const { send, session, channel } = setUp({
    lookup: (_parent, wanted) => ({ ...INODE, ino: 100 + Buffer.from(wanted).readUInt8(0) }),
  })
  let openGate = () => {}
  channel.gate = new Promise((resolve) => {
    openGate = resolve
  })
  const notifier = new Notifier(session, 45, () => {})
  const revoked = ['a', 'b', 'c'].map((text) => {
    send(Opcode.LOOKUP, ROOT, name(text))
    return notifier.revoke(100 + text.charCodeAt(0), [{ parent: 1, name: Buffer.from(text) }])
  })
  const codes = () =>
    channel.notes.map((note) => {
      const found: number[] = []
      for (let at = 0; at < note.length; at += note.readUInt32LE(at)) {
        found.push(note.readInt32LE(at + 4))
      }
      return found
    })
  t.same(codes(), [[2, 3], [2], [2]], 'all pages are on their way')
  openGate()
  await Promise.all(revoked)
  t.same(codes(), [[2, 3], [2], [2], [3], [3]], 'and the other names, one after the other')
  notifier.close()
  await notifier.revokeAll()
  t.equal(channel.notes.length, 5, 'nothing is written to a connection that has ended')
})

t.test('revoking everything: all names where the kernel can, every node anywhere', async (t) => {
  for (const [minor, names] of [
    [44, ['8']],
    [43, []],
  ] as const) {
    const { send, session, channel } = setUp({ lookup: () => INODE })
    send(Opcode.LOOKUP, ROOT, name('file'))
    await new Notifier(session, minor, () => {}).revokeAll()
    const told = channel.notes.map((note) => {
      const code = note.readInt32LE(4)
      return code === 2 ? `2 of node ${note.readBigUInt64LE(16)}` : String(code)
    })
    t.same(told, [...names, '2 of node 1', '2 of node 2'], `FUSE 7.${minor}`)
  }
})

t.test('frozen: kept, in order, until the thaw', async (t) => {
  let frozen = true
  let thaw = () => {}
  const made: string[] = []
  const thawed = new Promise<void>((resolve) => {
    thaw = resolve
  })
  const { send, channel } = setUp({
    thawed: () => thawed,
    mkdir: (_parent, wanted) => {
      if (frozen) throw new FrozenError()
      made.push(Buffer.from(wanted).toString())
      return INODE
    },
    getattr: () => INODE,
  })
  const body = (text: string) => Buffer.concat([u32(0o755, 0), name(text)])
  t.equal(send(Opcode.MKDIR, ROOT, body('a')), undefined)
  t.equal(send(Opcode.MKDIR, ROOT, body('b')), undefined)
  t.equal(send(Opcode.GETATTR, ROOT, Buffer.alloc(16))!.error, 0, 'reading goes on')
  frozen = false
  thaw()
  await new Promise((resolve) => setImmediate(resolve))
  t.same(made, ['a', 'b'])
  t.same(
    channel.answers.map(({ unique }) => unique),
    [8, 4, 6],
  )
})

t.test('frozen: a write to a file that is killed fails at once', async (t) => {
  const { send, session, channel } = setUp({
    thawed: () => new Promise(() => {}),
    lookup: () => INODE,
    handle: () => new Handle(1, INODE.ino, 2, false),
    write: () => {
      throw new FrozenError()
    },
  })
  send(Opcode.LOOKUP, ROOT, name('file'))
  const body = Buffer.concat([u64(1, 0), u32(4, 0), u64(0), u32(0, 0), Buffer.from('data')])
  t.equal(send(Opcode.WRITE, { low: 2, high: 0 }, body), undefined)
  await new Notifier(session, 45, () => {}).revoke(INODE.ino, [])
  t.match(channel.answers.at(-1), { unique: 6, error: EIO })
})

t.test('fsync is answered when it is done', async (t) => {
  let finish = () => {}
  const { send, channel } = setUp({
    fsync: () =>
      new Promise((resolve) => {
        finish = resolve
      }),
    getattr: () => INODE,
  })
  t.equal(send(Opcode.FSYNC, ROOT, Buffer.alloc(16)), undefined)
  t.equal(send(Opcode.GETATTR, ROOT, Buffer.alloc(16))!.unique, 6)
  finish()
  await new Promise((resolve) => setImmediate(resolve))
  t.match(channel.answers.at(-1), { unique: 4, error: 0 })
})

t.test('READDIR and READDIRPLUS', async (t) => {
  const entries = [
    { name: Buffer.from('.'), ino: 1, kind: 4, cookie: 1 },
    { name: Buffer.from('..'), ino: 1, kind: 4, cookie: 2 },
    { name: Buffer.from('ninechars'), ino: INODE.ino, kind: 8, cookie: 900 },
  ]
  const { send, session } = setUp({
    opendir: () => new Handle(5, 1, 0, true),
    release: () => {},
    lookup: () => INODE,
    readdir: (_handle, cookie, emit) => {
      for (const entry of entries) if (entry.cookie > cookie && !emit(entry)) return
    },
  })
  const body = (size: number, cookie: number) =>
    Buffer.concat([u64(0, cookie), u32(size, 0), u64(0), u32(0, 0)])
  const plain = send(Opcode.READDIR, ROOT, body(4096, 0))!.payload
  t.equal(plain.length, 32 + 32 + 40)
  t.equal(plain.subarray(88, 97).toString(), 'ninechars')
  t.equal(plain.readBigUInt64LE(72), 900n)
  t.equal(send(Opcode.READDIR, ROOT, body(70, 0))!.payload.length, 64, 'two of them fit')
  t.equal(send(Opcode.READDIR, ROOT, body(4096, 900))!.payload.length, 0, 'the end')
  t.equal(session.nodes.count, 1)
  const plus = send(Opcode.READDIRPLUS, ROOT, body(4096, 1))!.payload
  t.equal(plus.length, 128 + 32 + 128 + 40)
  t.equal(plus.readBigUInt64LE(0), 0n, "'..' counts no lookup")
  t.equal(plus.readBigUInt64LE(160), 2n)
  t.equal(session.nodes.count, 2)
})
