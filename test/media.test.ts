import fc from 'fast-check'
import t from 'tap'
import { MemoryFailure } from '../src/dax/memory.ts'
import { SimulatedMemory } from '../src/dax/simulated-memory.ts'
import { ByteWriter } from '../src/media/byte-writer.ts'
import type { Change } from '../src/media/change.ts'
import { decodeChanges, encodeChanges } from '../src/media/change-codec.ts'
import { crc32c } from '../src/media/checksum.ts'
import { FeatureError, MediaError } from '../src/media/errors.ts'
import {
  BLOCK_SIZE,
  COUNTER_MAX,
  geometryFor,
  metadataExtents,
  UNIT_SIZE,
} from '../src/media/geometry.ts'
import { compileLayout, type Layout } from '../src/media/layout.ts'
import {
  RECORD_DURABLE_STORES,
  RECORD_HEADER_SIZE,
  RECORD_TRANSACTION,
  readRecord,
  sealRecord,
} from '../src/media/record.ts'
import { clipLabel } from '../src/media/scalar.ts'
import {
  createSuperblock,
  eraseSuperblocks,
  mountedSuperblock,
  readSuperblocks,
  requireSuperblock,
  type Superblock,
  writeSuperblocks,
} from '../src/media/superblock.ts'
import {
  decodeSuperblock,
  encodeSuperblock,
  superblockCodec,
} from '../src/media/superblock-codec.ts'

const MIB = 1024 * 1024
const SIZE = 32 * MIB
const UUID = '01234567-89ab-cdef-0123-456789abcdef'
const BOOT = 'fedcba98-7654-3210-fedc-ba9876543210'

function fresh(size = SIZE): Superblock {
  const geometry = geometryFor(size)
  const start = geometry.dataStartBlock
  const superblock = createSuperblock({
    geometry,
    label: 'größe',
    created: 1_700_000_000,
    uuid: UUID,
    slots: [[{ block: start, blocks: 512 }], [{ block: start + 512, blocks: 512 }]],
  })
  return { ...superblock, journalSeed: 0x12345678 }
}

/** Puts a valid CRC on bytes that were changed by hand. */
function reseal(bytes: Uint8Array): Uint8Array {
  const crc = crc32c(bytes, 4, bytes.length - 4)
  new DataView(bytes.buffer, bytes.byteOffset).setUint32(0, crc, true)
  return bytes
}

t.test('crc32c', async (t) => {
  const digits = Buffer.from('123456789')
  t.equal(crc32c(digits, 0, 9), 0xe3069283)
  t.equal(crc32c(Buffer.alloc(32), 0, 32), 0x8a9136aa)
  t.equal(crc32c(Buffer.alloc(32, 0xff), 0, 32), 0x62a8ab43)
  t.equal(crc32c(digits, 4, 5, crc32c(digits, 0, 4)), 0xe3069283, 'goes on from a seed')
  t.throws(() => crc32c(digits, 4, 6), RangeError)
  const memory = new SimulatedMemory(BLOCK_SIZE)
  const property = fc.property(
    fc.uint8Array({ maxLength: 999 }),
    fc.nat(0xffffffff),
    (bytes, seed) => {
      memory.write(0, bytes, 0, bytes.length)
      return memory.crc32c(0, bytes.length, seed) === crc32c(bytes, 0, bytes.length, seed)
    },
  )
  fc.assert(property)
})

const SAMPLE = [
  ['a', 'u8', ''],
  ['b', 'u16', ''],
  ['c', 'u32', ''],
  ['d', 'u64', ''],
  ['e', 'i64', ''],
  ['f', 'uuid', ''],
  ['g', 'label(12)', ''],
  ['gap', 'reserved(3)', ''],
  ['h', 'bytes(5)', ''],
] as const satisfies Layout

t.test('layout', async (t) => {
  const codec = compileLayout('sample', SAMPLE)
  t.same(codec.offsets, { a: 0, b: 1, c: 3, d: 7, e: 15, f: 23, g: 39, gap: 51, h: 54 })
  t.equal(codec.size, 59)
  const label = fc
    .string({ unit: 'binary', maxLength: 12 })
    .map((text) => clipLabel(text.toString(), 12))
  const struct = fc.record({
    a: fc.nat(0xff),
    b: fc.nat(0xffff),
    c: fc.nat(0xffffffff),
    d: fc.maxSafeNat(),
    e: fc.maxSafeInteger(),
    f: fc.uuid(),
    g: label,
    h: fc.uint8Array({ minLength: 5, maxLength: 5 }),
  })
  fc.assert(
    fc.property(struct, fc.nat(9), (value, at) => {
      const buffer = Buffer.alloc(80, 0xee)
      codec.encode(value, buffer, at)
      t.same(codec.decode(buffer, at), { ...value, h: Uint8Array.from(value.h) })
      t.equal(buffer[at + codec.size], 0xee, 'writes nothing behind its end')
      if (at > 0) t.equal(buffer[at - 1], 0xee)
    }),
    { numRuns: 200 },
  )
})

t.test('layout: what a field cannot hold', async (t) => {
  const codec = compileLayout('sample', SAMPLE)
  const good = { a: 1, b: 1, c: 1, d: 1, e: -1, f: UUID, g: 'x', h: new Uint8Array(5) }
  const bytes = Buffer.alloc(codec.size)
  const wrong: object[] = [
    { a: 256 },
    { a: -1 },
    { a: 1.5 },
    { b: 65536 },
    { c: 2 ** 32 },
    { d: -1 },
    { d: 2 ** 53 },
    { d: Number.NaN },
    { e: -(2 ** 53) },
    { f: 'no uuid' },
    { g: 'thirteen long' },
    { g: 'nul\0' },
    { h: new Uint8Array(4) },
  ]
  for (const change of wrong) {
    t.throws(
      () => codec.encode({ ...good, ...change }, bytes, 0),
      RangeError,
      JSON.stringify(change),
    )
  }
  t.throws(() => codec.encode(good, bytes, 1), RangeError, 'outside the buffer')
  codec.encode(good, bytes, 0)
  const spoilt = (at: number, value: number) => {
    const copy = Buffer.from(bytes)
    copy[at] = value
    return copy
  }
  const fault = { name: 'MediaError', structure: 'sample' }
  t.throws(() => codec.decode(spoilt(52, 1), 0, 1000), { ...fault, offset: 1051 }, 'reserved')
  t.throws(() => codec.decode(spoilt(14, 1), 0, 1000), { ...fault, offset: 1007 }, 'not safe')
  t.throws(() => codec.decode(spoilt(22, 0x7f), 0, 1000), { ...fault, offset: 1015 }, 'not safe')
  t.throws(() => codec.decode(spoilt(39, 0xff), 0, 1000), { ...fault, offset: 1039 }, 'not UTF-8')
  t.throws(
    () => codec.decode(spoilt(45, 0x41), 0, 1000),
    { ...fault, offset: 1039 },
    'behind its end',
  )
  t.throws(() => codec.decode(bytes.subarray(1), 0, 1000), { ...fault, offset: 1000 }, 'short')
  t.throws(
    () =>
      compileLayout('twice', [
        ['a', 'u8', ''],
        ['a', 'u8', ''],
      ]),
    TypeError,
  )
})

t.test('geometry', async (t) => {
  const small = geometryFor(SIZE + 12345)
  t.equal(small.size, SIZE)
  t.same(small.journal, [
    { offset: UNIT_SIZE, length: UNIT_SIZE },
    { offset: 2 * UNIT_SIZE, length: UNIT_SIZE },
  ])
  t.equal(small.backup, SIZE - BLOCK_SIZE)
  t.equal(geometryFor(64 * 1024 * MIB).journal[0].length, 512 * MIB, 'at most 1 GiB of journal')
  t.equal(geometryFor(1024 * 1024 * MIB).journal[0].length, 512 * MIB)
  t.throws(() => geometryFor(SIZE - 1), MediaError)
  t.throws(() => geometryFor(Number.NaN), MediaError)
  t.throws(() => geometryFor(SIZE, 3 * MIB), MediaError)
  t.throws(() => geometryFor(SIZE, 16 * MIB), MediaError)
  for (const size of [SIZE, 1024 * MIB, 5 * 1024 * MIB, 1e12]) {
    const geometry = geometryFor(size)
    const rows = metadataExtents(geometry).sort((a, b) => a.block - b.block)
    t.ok(
      rows.every((row) => row.block % 512 === 0 && row.blocks % 512 === 0),
      'whole units',
    )
    t.equal(rows[2]!.block + rows[2]!.blocks, geometry.dataStartBlock)
    t.equal(rows[3]!.block, geometry.dataEndBlock)
    t.equal(rows[3]!.block + 512, geometry.blocks)
  }
})

const range = (start: number, blocks: number) => ({ block: start, blocks })

t.test('superblock: round trip and golden bytes', async (t) => {
  const plain = fresh()
  const { dataStartBlock: data } = plain.geometry
  const full: Superblock = {
    ...plain,
    compat: 1,
    roCompat: 2,
    generation: 7,
    epoch: 5,
    state: 'shutdown',
    shutdownReason: 'metadata-failure',
    shutdownOffset: 4096,
    bootId: BOOT,
    bootEpoch: 4,
    holder: { pid: 42, host: 'host', mountpoint: '/mnt/ü', since: 1_700_000_001 },
    checkpoint: { slot: 1, sequence: 99, length: 5000, crc: 0xdeadbeef },
    slots: [[range(data, 512), range(data + 2048, 1024)], [range(data + 512, 512)]],
    poison: [range(0, 1), range(600, 3)],
  }
  t.same(decodeSuperblock(encodeSuperblock(full), 0), full)
  const bytes = Buffer.from(encodeSuperblock(full))
  t.equal(bytes.length, 4096)
  t.equal(
    bytes.subarray(0, 136).toString('hex'),
    [
      '1a75cd1001000000484f4c444641535401000000020000000000000078563412',
      '0123456789abcdef0123456789abcdef6772c3b6c39f65000000000000000000',
      '0000000000000000000000000000000000000000000000000000000000000000',
      '0000000000000000000000000000000000f15365000000000000000200000000',
      '0010000000002000',
    ].join(''),
    'the layout of a region out there does not change',
  )
  t.equal(bytes.readUInt32LE(0), crc32c(bytes, 4, 4092))
  t.equal(crc32c(bytes, 0, 4096).toString(16), 'cebb39b6')
})

t.test('superblock: long holder names are cut between characters', async (t) => {
  const holder = { pid: 1, host: 'h'.repeat(99), mountpoint: 'ü'.repeat(99), since: 0 }
  const read = decodeSuperblock(encodeSuperblock({ ...fresh(), holder }), 0)
  t.equal(read.holder?.host, 'h'.repeat(64))
  t.equal(read.holder?.mountpoint, 'ü'.repeat(64))
})

t.test('superblock: every flipped bit is noticed, and the other copy wins', async (t) => {
  const memory = new SimulatedMemory(SIZE)
  const { superblock } = writeSuperblocks(memory, fresh())
  const good = Buffer.alloc(BLOCK_SIZE)
  memory.read(0, good, 0, BLOCK_SIZE)
  let unnoticed = 0
  for (let bit = 0; bit < BLOCK_SIZE * 8; bit += 1) {
    const bytes = Buffer.from(good)
    bytes[bit >> 3]! ^= 1 << (bit & 7)
    try {
      decodeSuperblock(bytes, 0)
      unnoticed += 1
    } catch (error) {
      if (!(error instanceof MediaError)) throw error
    }
  }
  t.equal(unnoticed, 0)
  for (const place of [0, superblock.geometry.backup]) {
    for (let bit = 0; bit < BLOCK_SIZE * 8; bit += 97) {
      const offset = place + (bit >> 3)
      const byte = Buffer.alloc(1)
      memory.read(offset, byte, 0, 1)
      const flipped = Buffer.from([byte[0]! ^ (1 << (bit & 7))])
      memory.write(offset, flipped, 0, 1)
      const pair = readSuperblocks(memory)
      const spoilt = place === 0 ? pair.primary : pair.backup
      if (!(spoilt instanceof MediaError)) t.fail(`bit ${bit} at ${place}`)
      t.same(pair.best, superblock)
      memory.write(offset, byte, 0, 1)
    }
  }
})

t.test('superblock: malformed but well summed', async (t) => {
  const at = superblockCodec.offsets
  const base = fresh()
  const spoil = (write: (view: DataView) => void) => {
    const bytes = encodeSuperblock(base)
    write(new DataView(bytes.buffer))
    return reseal(bytes)
  }
  const u64 = (field: string, value: bigint, more = 0) =>
    spoil((view) => view.setBigUint64(at[field]! + more, value, true))
  const u8 = (field: string, value: number) => spoil((view) => view.setUint8(at[field]!, value))
  const cases: Record<string, Uint8Array> = {
    'reserved bytes': u8('reserved1', 1),
    'more reserved bytes': u8('reserved0', 1),
    'region size': u64('regionSize', 4096n),
    'region size not in units': u64('regionSize', 32n * 1024n * 1024n + 4096n),
    'region size not safe': u64('regionSize', 1n << 60n),
    'block size': spoil((view) => view.setUint32(at.blockSize!, 512, true)),
    'unit size': spoil((view) => view.setUint32(at.unitSize!, 4096, true)),
    'half 0': u64('journalOffset0', 0n),
    'half 1': u64('journalOffset1', 0n),
    'half 0 length': u64('journalLength0', 1n),
    'half 1 length': u64('journalLength1', 1n),
    'half 0 too long': u64('journalLength0', 1n << 40n),
    state: u8('state', 3),
    reason: u8('shutdownReason', 99),
    'reason without shutdown': u8('shutdownReason', 1),
    slot: u8('checkpointSlot', 2),
    'slot count': u8('slotCount0', 65),
    'slot extents missing': u8('slotCount0', 2),
    'slot extents left over': u8('slotCount0', 0),
    'poison count': u8('poisonCount', 17),
    'slot outside': u64('slot0', 1n << 40n),
    'slot in the journal': u64('slot0', 512n),
    'slot on the backup': u64('slot0', BigInt(base.geometry.dataEndBlock)),
    'slot not a unit': u64('slot0', BigInt(base.geometry.dataStartBlock + 1)),
    'slot extent too long': u64('slot0', 512n * (1n << 40n), 8),
    'slots overlap': u64('slot1', BigInt(base.geometry.dataStartBlock)),
    'image too long': u64('imageLength', 3n * 1024n * 1024n),
    'shutdown offset': u64('shutdownOffset', 1n << 40n),
    label: spoil((view) => view.setUint8(at.label! + 63, 65)),
  }
  for (const [name, bytes] of Object.entries(cases)) {
    t.throws(() => decodeSuperblock(bytes, 0), { name: 'MediaError' }, name)
  }
  fc.assert(
    fc.property(fc.nat(4091), fc.nat(255), (offset, value) => {
      const bytes = encodeSuperblock(base)
      bytes[4 + offset] = value
      try {
        decodeSuperblock(reseal(bytes), 0)
      } catch (error) {
        if (!(error instanceof MediaError)) throw error
      }
    }),
    { numRuns: 2000 },
  )
})

t.test('superblock: features', async (t) => {
  const memory = new SimulatedMemory(SIZE)
  const put = (offset: number, superblock: Superblock) =>
    memory.write(offset, encodeSuperblock(superblock), 0, BLOCK_SIZE)
  const base = fresh()
  put(0, { ...base, generation: 2, roCompat: 4 })
  put(base.geometry.backup, base)
  t.equal(readSuperblocks(memory).readOnly, true)
  put(0, { ...base, generation: 2, compat: 4 })
  t.equal(readSuperblocks(memory).readOnly, false)
  put(0, { ...base, generation: 2, incompat: 1 })
  const pair = readSuperblocks(memory)
  t.type(pair.primary, FeatureError)
  t.equal(pair.best, undefined, 'the older copy is no way round')
  t.throws(() => requireSuperblock(pair), /incompatible features 0x1 are unknown/)
})

t.test('superblock: two copies', async (t) => {
  const memory = new SimulatedMemory(SIZE)
  t.throws(() => requireSuperblock(readSuperblocks(memory)), /no holdfast superblock/)
  t.equal(readSuperblocks(new SimulatedMemory(BLOCK_SIZE)).best, undefined)
  const base = fresh()
  const { superblock: first, failures } = writeSuperblocks(memory, base)
  t.same(failures, [])
  t.equal(first.generation, 1)
  t.same(readSuperblocks(memory).best, first)

  memory.poison(0, 1)
  const { superblock: second, failures: one } = writeSuperblocks(memory, { ...first, epoch: 9 })
  t.equal(one.length, 1)
  t.equal(one[0]!.offset, 0)
  const pair = readSuperblocks(memory)
  t.type(pair.primary, MemoryFailure)
  t.same(pair.best, second)
  memory.unpoison(0, BLOCK_SIZE)
  t.same(readSuperblocks(memory).best, second, 'the newer copy wins')
  memory.poison(base.geometry.backup, 1)
  t.same(readSuperblocks(memory).best, first)
  memory.poison(0, 1)
  t.throws(() => writeSuperblocks(memory, second), MemoryFailure)
  t.throws(() => requireSuperblock(readSuperblocks(memory)), MemoryFailure)
  memory.unpoison(0, SIZE)

  const other = { ...fresh(), uuid: BOOT, generation: 1 }
  memory.write(0, encodeSuperblock(other), 0, BLOCK_SIZE)
  t.throws(() => requireSuperblock(readSuperblocks(memory)), /different filesystems/)
  eraseSuperblocks(memory, base.geometry)
  t.throws(() => requireSuperblock(readSuperblocks(memory)), /no holdfast superblock/)
})

t.test('superblock: regions that grew or shrank', async (t) => {
  const bytes = encodeSuperblock(fresh())
  const grown = new SimulatedMemory(2 * SIZE)
  grown.write(0, bytes, 0, BLOCK_SIZE)
  grown.write(SIZE - BLOCK_SIZE, bytes, 0, BLOCK_SIZE)
  const pair = readSuperblocks(grown)
  t.notOk(pair.backup instanceof Error, 'the backup is where the filesystem ends')
  const cut = new SimulatedMemory(SIZE)
  cut.write(0, encodeSuperblock(fresh(2 * SIZE)), 0, BLOCK_SIZE)
  t.throws(() => requireSuperblock(readSuperblocks(cut)), /the region only 33554432/)
})

t.test('superblock: a crash at any point of a write leaves one whole copy', async (t) => {
  for (const mode of ['cacheline', 'page'] as const) {
    const memory = new SimulatedMemory(SIZE, mode)
    const { superblock: first } = writeSuperblocks(memory, fresh())
    memory.onPersist = () => {
      for (const word of [0, 3, 7]) {
        const after = memory.crash(
          () => true,
          (line, index) => (line + index) % 8 > word,
        )
        const { best } = readSuperblocks(after)
        t.ok(best && best.epoch <= 6 && best.generation >= first.generation)
      }
    }
    writeSuperblocks(memory, { ...first, epoch: 6 })
  }
})

t.test('superblock: a mount begins', async (t) => {
  const holder = { pid: 1, host: 'h', mountpoint: '/m', since: 1 }
  const first = mountedSuperblock(fresh(), { bootId: BOOT, holder, lastEpoch: 0 })
  t.match(first, { state: 'dirty', epoch: 1, bootEpoch: 1, bootId: BOOT })
  const second = mountedSuperblock(first, { bootId: BOOT, holder, lastEpoch: 7 })
  t.match(second, { epoch: 8, bootEpoch: 1 })
  const third = mountedSuperblock(second, { bootId: UUID, holder, lastEpoch: 7 })
  t.match(third, { epoch: 9, bootEpoch: 9, bootId: UUID })
})

const REGION_BLOCKS = 8192

const bytesOf = (minLength: number, maxLength: number) =>
  fc.uint8Array({ min: 1, minLength, maxLength }).map((bytes) => Buffer.from(bytes))
const direntName = bytesOf(1, 255).map((bytes) => {
  const name = bytes.map((byte) => (byte === 0x2f ? 0x5f : byte))
  return name.length <= 2 ? Buffer.concat([name, Buffer.from('x')]) : Buffer.from(name)
})
const ino = fc.integer({ min: 1, max: Number.MAX_SAFE_INTEGER })
const block = fc.nat(REGION_BLOCKS - 100)
const blocks = fc.integer({ min: 1, max: 100 })
const owner = fc.oneof(ino, fc.integer({ min: -3, max: -1 }))
const u32 = fc.nat(0xffffffff)
const ns = fc.nat(999_999_999)
const time = fc.integer({ min: -(2 ** 40), max: 2 ** 40 })
const fileType = fc.constantFrom(1, 2, 4, 6, 8, 10, 12)
const inode = fc
  .record({
    ino,
    mode: fc.tuple(fileType, fc.nat(0o7777)).map(([type, bits]) => type * 4096 + bits),
    uid: u32,
    gid: u32,
    nlink: u32,
    rdev: fc.maxSafeNat(),
    flags: fc.nat(7),
    size: fc.maxSafeNat(),
    blocks: fc.maxSafeNat().map((n) => n % COUNTER_MAX),
    parent: fc.maxSafeNat(),
    atime: time,
    atimeNs: ns,
    mtime: time,
    mtimeNs: ns,
    ctime: time,
    ctimeNs: ns,
    btime: time,
    btimeNs: ns,
    link: bytesOf(1, 4095),
  })
  .map(({ link, ...row }) => ({ ...row, target: row.mode >>> 12 === 10 ? link : null }))

const extent = fc.record({ block, blocks, owner, fileBlock: fc.nat(), flags: fc.nat(1) })
const change: fc.Arbitrary<Change> = fc.oneof(
  inode.map((row) => ({ type: 'putInode' as const, inode: row })),
  fc.record({ type: fc.constant('removeInode' as const), ino }),
  fc.record({
    type: fc.constant('putDirent' as const),
    parent: ino,
    name: direntName,
    cookie: ino,
    ino,
    kind: fileType,
  }),
  fc.record({ type: fc.constant('removeDirent' as const), parent: ino, name: direntName }),
  fc.record({
    type: fc.constant('putXattr' as const),
    ino,
    name: bytesOf(1, 255),
    value: bytesOf(0, 2000),
  }),
  fc.record({ type: fc.constant('removeXattr' as const), ino, name: bytesOf(1, 255) }),
  extent.map((row) => ({ type: 'putExtent' as const, extent: row })),
  fc.record({ type: fc.constant('removeExtent' as const), block, owner, fileBlock: fc.nat() }),
  fc.record({
    type: fc.constantFrom('allocate', 'free', 'putPoison', 'removePoison'),
    block,
    blocks,
  }),
)

function encoded(changes: readonly Change[]): Buffer {
  const writer = new ByteWriter(16)
  encodeChanges(changes, writer, REGION_BLOCKS)
  return writer.bytes.subarray(0, writer.length)
}

t.test('changes: round trip', async (t) => {
  fc.assert(
    fc.property(fc.array(change, { maxLength: 8 }), (changes) => {
      const bytes = encoded(changes)
      const decoded = decodeChanges(bytes, 0, bytes.length, 0, REGION_BLOCKS)
      t.same(decoded, changes)
    }),
    { numRuns: 300 },
  )
})

t.test('changes: any bytes give changes or a MediaError', async () => {
  const noise = fc.property(
    fc.array(change, { minLength: 1, maxLength: 3 }),
    fc.array(fc.tuple(fc.nat(), fc.nat(255)), { maxLength: 4 }),
    fc.nat(40),
    (changes, pokes, cut) => {
      const bytes = Buffer.from(encoded(changes))
      for (const [at, value] of pokes) bytes[at % bytes.length] = value
      const end = Math.max(0, bytes.length - cut)
      try {
        const decoded = decodeChanges(bytes, 0, end, 4096, REGION_BLOCKS)
        encodeChanges(decoded, new ByteWriter(), REGION_BLOCKS)
      } catch (error) {
        if (!(error instanceof MediaError)) throw error
      }
    },
  )
  fc.assert(noise, { numRuns: 3000 })
})

t.test('changes: refused both ways', async (t) => {
  const name = Buffer.from('n')
  const row = {
    ...{ ino: 2, mode: 0o100644, uid: 0, gid: 0, nlink: 1, rdev: 0, flags: 0, size: 0 },
    ...{ blocks: 0, parent: 0, atime: 0, atimeNs: 0, mtime: 0, mtimeNs: 0 },
    ...{ ctime: 0, ctimeNs: 0, btime: 0, btimeNs: 0, target: null as Uint8Array | null },
  }
  const dirent = { type: 'putDirent', parent: 1, cookie: 2, ino: 2, kind: 8 } as const
  const put = { block: 1, blocks: 1, owner: 2, fileBlock: 0, flags: 0 }
  const wrong: Change[] = [
    { ...dirent, name: Buffer.alloc(0) },
    { ...dirent, name: Buffer.alloc(256, 65) },
    { ...dirent, name: Buffer.from('a/b') },
    { ...dirent, name: Buffer.from('a\0b') },
    { ...dirent, name: Buffer.from('.') },
    { ...dirent, name: Buffer.from('..') },
    { ...dirent, name, kind: 7 },
    { ...dirent, name, ino: 0 },
    { type: 'removeDirent', parent: 1, name: Buffer.from('..') },
    { type: 'removeInode', ino: 0 },
    { type: 'putXattr', ino: 2, name, value: Buffer.alloc(65537) },
    { type: 'putXattr', ino: 2, name: Buffer.alloc(0), value: name },
    { type: 'removeXattr', ino: 2, name: Buffer.from('a\0') },
    { type: 'putInode', inode: { ...row, mode: 0o644 } },
    { type: 'putInode', inode: { ...row, flags: 8 } },
    { type: 'putInode', inode: { ...row, blocks: COUNTER_MAX + 1 } },
    { type: 'putInode', inode: { ...row, atimeNs: 1e9 } },
    { type: 'putInode', inode: { ...row, target: name } },
    { type: 'putInode', inode: { ...row, mode: 0o120777 } },
    { type: 'putInode', inode: { ...row, mode: 0o120777, target: Buffer.alloc(4096, 65) } },
    { type: 'putExtent', extent: { ...put, owner: 0 } },
    { type: 'putExtent', extent: { ...put, owner: -4 } },
    { type: 'putExtent', extent: { ...put, flags: 2 } },
    { type: 'putExtent', extent: { ...put, blocks: 0 } },
    { type: 'putExtent', extent: { ...put, block: REGION_BLOCKS } },
    { type: 'putExtent', extent: { ...put, fileBlock: Number.MAX_SAFE_INTEGER } },
    { type: 'removeExtent', block: REGION_BLOCKS, owner: 2, fileBlock: 0 },
    { type: 'free', block: REGION_BLOCKS - 1, blocks: 2 },
    { type: 'allocate', block: 0, blocks: Number.MAX_SAFE_INTEGER },
    { type: 'putPoison', block: 0, blocks: 0 },
  ]
  for (const change of wrong) {
    t.throws(() => encoded([change]), { name: 'RangeError' }, JSON.stringify(change).slice(0, 120))
  }
  const [length] = [encoded([{ ...dirent, name }]).length]
  const swapped = Buffer.from(encoded([{ ...dirent, name }]))
  swapped[length - 1] = 0x2f
  const fault = { name: 'MediaError', structure: 'change', offset: 64 }
  t.throws(() => decodeChanges(swapped, 0, length, 64, REGION_BLOCKS), fault)
  const unknown = Buffer.from(encoded([{ type: 'removeInode', ino: 3 }]))
  unknown[0] = 99
  t.throws(() => decodeChanges(unknown, 0, unknown.length, 64, REGION_BLOCKS), fault)
  const valued = Buffer.from(encoded([{ type: 'removeInode', ino: 3 }]))
  valued[4] = 1
  t.throws(() => decodeChanges(valued, 0, valued.length, 64, REGION_BLOCKS), fault)
})

t.test('record: golden bytes', async (t) => {
  const writer = new ByteWriter()
  writer.take(RECORD_HEADER_SIZE)
  const changes: Change[] = [
    { type: 'putDirent', parent: 1, name: Buffer.from('hello'), cookie: 9, ino: 9, kind: 8 },
    { type: 'allocate', block: 2048, blocks: 2 },
  ]
  encodeChanges(changes, writer, REGION_BLOCKS)
  const { length } = writer
  writer.pad(64)
  const header = {
    ...{ crc: 0, magic: 0, length, kind: RECORD_TRANSACTION, flags: RECORD_DURABLE_STORES },
    ...{ epoch: 3, sequence: 9, durable: 8 },
  }
  sealRecord(header, writer.bytes, 0x12345678)
  const bytes = writer.bytes.subarray(0, writer.length)
  t.equal(
    bytes.toString('hex'),
    [
      '830af3b248464a526e0000000101000003000000000000000900000000000000',
      '0800000000000000000000000000000003050000000000000100000000000000',
      '090000000000000009000000000000000868656c6c6f09000000000000000008',
      '0000000000000200000000000000000000000000000000000000000000000000',
    ].join(''),
  )

  const memory = new SimulatedMemory(BLOCK_SIZE)
  memory.write(64, bytes, 0, bytes.length)
  t.match(readRecord(memory, 64, BLOCK_SIZE, 0x12345678), header)
  t.equal(readRecord(memory, 64, BLOCK_SIZE, 0x12345679), undefined, 'the seed is part of it')
  t.equal(readRecord(memory, 64, 64 + length - 1, 0x12345678), undefined, 'leaves the half')
  for (let bit = 0; bit < length * 8; bit += 1) {
    const flipped = Buffer.from([bytes[bit >> 3]! ^ (1 << (bit & 7))])
    memory.write(64 + (bit >> 3), flipped, 0, 1)
    if (readRecord(memory, 64, BLOCK_SIZE, 0x12345678)) t.fail(`bit ${bit} of a record`)
    memory.write(64, bytes, 0, bytes.length)
  }
})
