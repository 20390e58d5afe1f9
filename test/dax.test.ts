import { linkSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs'
import { constants } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import t from 'tap'
import { BadRanges } from '../src/dax/bad-ranges.ts'
import { DaxDevice, openDevice, openSimulated } from '../src/dax/device.ts'
import { DaxError } from '../src/dax/errors.ts'
import {
  fsDaxGet,
  fsPutDax,
  type Holder,
  type HolderOperations,
  killDax,
  MF_ACTION_REQUIRED,
  MF_MEM_PRE_REMOVE,
  notifyFailure,
} from '../src/dax/holder.ts'
import { MappedMemory } from '../src/dax/mapped-memory.ts'
import { MemoryFailure, PAGE_SIZE } from '../src/dax/memory.ts'
import { openRegion, regionKey } from '../src/dax/region.ts'
import { SimulatedMemory } from '../src/dax/simulated-memory.ts'

const { EBUSY, EISDIR, EINVAL, ENODEV, ENOENT, ENXIO, EOPNOTSUPP, EUCLEAN } = {
  ...constants.errno,
  EUCLEAN: 117,
}
const MIB = 1024 * 1024

function simulated(size = MIB): { dev: DaxDevice; memory: SimulatedMemory } {
  const memory = new SimulatedMemory(size)
  return { dev: openSimulated(memory), memory }
}

/** A holder that writes down what it is told. */
function recorder(answer = 0): HolderOperations & { calls: number[][] } {
  const calls: number[][] = []
  return {
    calls,
    notifyFailure(_dev, offset, length, flags) {
      calls.push([offset, length, flags])
      return answer
    },
  }
}

function errnoOf(work: () => unknown): number {
  try {
    work()
  } catch (error) {
    if (error instanceof DaxError) return error.errno
    throw error
  }
  return 0
}

t.test('fs_dax_get: one holder at a time, claiming again is no error', async (t) => {
  const { dev } = simulated()
  const [first, second]: [Holder, Holder] = [{ purpose: 'mount' }, { purpose: 'mkfs' }]
  fsDaxGet(dev, first, recorder())
  t.equal(dev.holder, first)
  t.equal(
    errnoOf(() => fsDaxGet(dev, second)),
    EBUSY,
  )
  t.equal(dev.holder, first, 'the loser changes nothing')
  const again = recorder()
  fsDaxGet(dev, first, again)
  t.equal(dev.holderOps, again)
  fsPutDax(dev, first)
  fsDaxGet(dev, second)
  t.equal(dev.holder, second)
})

t.test(
  'fs_dax_get: dead is ENODEV before disabled is EOPNOTSUPP before held is EBUSY',
  async (t) => {
    const { dev } = simulated()
    fsDaxGet(dev, { purpose: 'mount' })
    t.equal(
      errnoOf(() => fsDaxGet(dev, { purpose: 'mount' })),
      EBUSY,
    )
    dev.enabled = false
    t.equal(
      errnoOf(() => fsDaxGet(dev, { purpose: 'mount' })),
      EOPNOTSUPP,
    )
    dev.alive = false
    t.equal(
      errnoOf(() => fsDaxGet(dev, { purpose: 'mount' })),
      ENODEV,
    )
  },
)

t.test('fs_dax_get: a claim that is refused outside leaves no holder', async (t) => {
  const memory = new SimulatedMemory(MIB)
  const claim = {
    take: () => {
      throw new DaxError(EBUSY, 'another process was faster')
    },
    update: () => {},
    release: () => {},
  }
  const options = { name: 'x', path: 'x', align: PAGE_SIZE, readOnly: false, memory, claim }
  const dev = new DaxDevice({ ...options, kind: 'simulated' })
  t.throws(() => fsDaxGet(dev, { purpose: 'mount' }), { code: 'EBUSY', errno: EBUSY })
  t.equal(dev.holder, undefined)
})

t.test('fs_put_dax: clears only its own holder', async (t) => {
  const { dev } = simulated()
  const holder: Holder = { purpose: 'mount' }
  const ops = recorder()
  fsDaxGet(dev, holder, ops)
  const warnings = t.capture(process, 'emitWarning')
  fsPutDax(dev, { purpose: 'mount' })
  const sentence = `fsPutDax of ${dev.path} by a mount that does not hold it`
  t.match(warnings(), [{ args: [sentence] }])
  t.equal(dev.holder, holder)
  t.equal(dev.holderOps, ops)
  fsPutDax(dev, holder)
  t.equal(dev.holder, undefined)
  t.doesNotThrow(() => fsPutDax(dev, holder), 'nobody there: kill_dax was faster')
})

t.test(
  'dax_holder_notify_failure: ENXIO if dead, EOPNOTSUPP without ops, else verbatim',
  async (t) => {
    const { dev } = simulated()
    t.equal(notifyFailure(dev, 0, 4096, 0), -EOPNOTSUPP)
    fsDaxGet(dev, { purpose: 'mount' })
    t.equal(notifyFailure(dev, 0, 4096, 0), -EOPNOTSUPP, 'a holder, but no operations')
    fsPutDax(dev, dev.holder!)
    const ops = recorder(-EUCLEAN)
    fsDaxGet(dev, { purpose: 'mount' }, ops)
    t.equal(notifyFailure(dev, 8192, 4096, MF_ACTION_REQUIRED), -EUCLEAN)
    t.same(ops.calls, [[8192, 4096, MF_ACTION_REQUIRED]])
    dev.alive = false
    t.equal(notifyFailure(dev, 0, 4096, 0), -ENXIO)
    t.equal(ops.calls.length, 1)
  },
)

t.test('kill_dax: tells the whole range with MF_MEM_PRE_REMOVE while still alive', async (t) => {
  const { dev } = simulated()
  const holder: Holder = { purpose: 'mount' }
  const seen: unknown[] = []
  fsDaxGet(dev, holder, {
    notifyFailure: (device, offset, length, flags) => {
      seen.push([device.alive, offset, length, flags])
      return -EUCLEAN
    },
  })
  killDax(dev)
  t.same(seen, [[true, 0, MIB, MF_MEM_PRE_REMOVE]])
  t.equal(dev.alive, false)
  t.equal(dev.holder, undefined)
  t.doesNotThrow(() => fsPutDax(dev, holder))
  t.equal(
    errnoOf(() => fsDaxGet(dev, holder)),
    ENODEV,
  )
  killDax(dev)
  t.equal(seen.length, 1)
})

t.test('memory_failure: whole pages, remembered before the holder hears of it', async (t) => {
  const { dev, memory } = simulated()
  t.equal(dev.memoryFailure(5000, 10), -EOPNOTSUPP, 'remembered even if nobody listens')
  t.same(dev.badRanges.list(), [{ offset: 4096, length: 4096 }])
  const ops = recorder()
  fsDaxGet(dev, { purpose: 'mount' }, ops)
  t.equal(dev.memoryFailure(MIB - 1, 2 * MIB, 0), 0)
  t.equal(dev.memoryFailure(MIB, 4096), -ENXIO)
  t.equal(dev.memoryFailure(0, 0), -ENXIO)
  t.same(ops.calls, [[MIB - 4096, 4096, 0]])

  t.test('the device itself refuses what is bad, though the memory reads on', async (t) => {
    const bytes = new Uint8Array(8192)
    t.doesNotThrow(() => memory.read(0, bytes, 0, 8192))
    const refusal = { name: 'MemoryFailure', offset: 4096, known: true }
    t.throws(() => dev.memory.read(0, bytes, 0, 8192), refusal)
    t.throws(() => dev.memory.write(4100, bytes, 0, 1), refusal)
    t.throws(() => dev.memory.zero(0, 8192), refusal)
    t.throws(() => dev.memory.move(0, 4096, 10), refusal)
    t.throws(() => dev.memory.move(4096, 0, 10), refusal)
    t.throws(() => dev.memory.isZero(0, 8192), refusal)
    t.throws(() => dev.memory.crc32c(0, 8192, 0), refusal)
    t.throws(() => dev.memory.probe(0, 8192), MemoryFailure)
    t.doesNotThrow(() => dev.memory.flush(0, 8192))
    dev.memory.read(0, bytes, 0, 4096)
    dev.markHealed(4096, 4096)
    dev.memory.read(0, bytes, 0, 8192)
  })
})

t.test('badRanges behaves as a set of bytes', async (t) => {
  const range = fc.record({ offset: fc.nat(60), length: fc.nat(12), add: fc.boolean() })
  fc.assert(
    fc.property(fc.array(range), fc.nat(60), fc.nat(12), (steps, offset, length) => {
      const ranges = new BadRanges()
      const model = new Set<number>()
      for (const step of steps) {
        if (step.add) ranges.add(step.offset, step.length)
        else ranges.remove(step.offset, step.length)
        for (let i = step.offset; i < step.offset + step.length; i++) {
          if (step.add) model.add(i)
          else model.delete(i)
        }
      }
      const list = ranges.list()
      const covered = list.flatMap((r) => Array.from({ length: r.length }, (_, i) => r.offset + i))
      t.same(
        covered,
        [...model].sort((a, b) => a - b),
      )
      for (let i = 1; i < list.length; i++) {
        if (list[i - 1]!.offset + list[i - 1]!.length >= list[i]!.offset) return false
      }
      const inside = covered.filter((byte) => byte >= offset && byte < offset + length)
      const clipped = ranges.within(offset, length)
      return (
        ranges.bytes === model.size &&
        ranges.empty === (model.size === 0) &&
        ranges.overlaps(offset, length) === inside.length > 0 &&
        ranges.firstIn(offset, length) === (inside[0] ?? -1) &&
        clipped.reduce((sum, r) => sum + r.length, 0) === inside.length
      )
    }),
  )
})

t.test('simulated cache lines: a store is durable on return, torn before', async (t) => {
  const memory = new SimulatedMemory(32 * MIB)
  t.equal(memory.durableStores, true)
  memory.write(100, Buffer.alloc(200, 1), 0, 200)
  t.equal(memory.persistPoints, 1)
  t.same(memory.unflushedLines(), [])
  t.same(bytesOf(memory.crash(), 100, 200), Buffer.alloc(200, 1))

  const outcomes: Buffer[] = []
  memory.onPersist = (point, before) => {
    t.equal(point, 1)
    t.same(before.unflushedLines(), [1, 2])
    outcomes.push(bytesOf(before.crash(), 64, 128))
    outcomes.push(
      bytesOf(
        before.crash((line) => line === 2),
        64,
        128,
      ),
    )
    outcomes.push(
      bytesOf(
        before.crash(
          () => true,
          (_line, word) => word % 2 === 0,
        ),
        64,
        128,
      ),
    )
  }
  memory.write(64, Buffer.alloc(128, 2), 0, 128)
  const old = Buffer.concat([Buffer.alloc(36), Buffer.alloc(92, 1)])
  t.same(outcomes[0], old, 'nothing of it')
  t.same(outcomes[1], Buffer.concat([old.subarray(0, 64), Buffer.alloc(64, 2)]), 'the second line')
  const torn = Buffer.from(old)
  for (let at = 0; at < 128; at += 16) torn.fill(2, at, at + 8)
  t.same(outcomes[2], torn, 'every other word')
  t.same(bytesOf(memory.crash(), 64, 128), Buffer.alloc(128, 2))
})

t.test('simulated cache lines: a crash inside the hook leaves the store undecided', async (t) => {
  const memory = new SimulatedMemory(MIB)
  memory.onPersist = () => {
    throw new Error('power failure')
  }
  t.throws(() => memory.write(0, Buffer.alloc(64, 7), 0, 64), /power failure/)
  memory.onPersist = undefined
  t.equal(bytesOf(memory.crash(), 0, 1)[0], 0)
  t.equal(
    bytesOf(
      memory.crash(() => true),
      0,
      1,
    )[0],
    7,
  )
})

t.test('simulated pages: durable at flush, whole pages, not before', async (t) => {
  const memory = new SimulatedMemory(64 * MIB, 'page')
  t.equal(memory.durableStores, false)
  memory.write(4000, Buffer.alloc(200, 3), 0, 200)
  t.same(memory.unflushedLines(), [0, 1])
  t.equal(memory.persistPoints, 0)
  t.equal(memory.crash().isZero(0, 8192), true)
  t.equal(memory.crash((page) => page === 1).isZero(0, 4096), true)
  t.equal(
    bytesOf(
      memory.crash((page) => page === 1),
      4096,
      1,
    )[0],
    3,
  )
  memory.flush(4096, 1)
  t.equal(memory.persistPoints, 1)
  t.same(memory.unflushedLines(), [0])
  memory.flush(8192, 4096)
  t.equal(memory.persistPoints, 1, 'nothing to flush is no persist point')
  memory.writeBack(() => true)
  t.same(bytesOf(memory.crash(), 4000, 200), Buffer.alloc(200, 3))
})

t.test('simulated pages: flushAsync promises only what was stored before it', async (t) => {
  const memory = new SimulatedMemory(MIB, 'page')
  memory.write(0, Buffer.from('old'), 0, 3)
  memory.flush(0, 4096)
  memory.write(0, Buffer.from('one'), 0, 3)
  const flushed = memory.flushAsync(0, 8192)
  memory.write(0, Buffer.from('two'), 0, 3)
  t.equal(bytesOf(memory.crash(), 0, 3).toString(), 'old')
  await flushed
  t.equal(bytesOf(memory.crash(), 0, 3).toString(), 'one')
  t.equal(
    bytesOf(
      memory.crash(() => true),
      0,
      3,
    ).toString(),
    'two',
  )
  await memory.flushAsync(0, 8192)
  t.equal(bytesOf(memory.crash(), 0, 3).toString(), 'two')
  t.same(memory.unflushedLines(), [])
})

t.test('simulated memory agrees with a model of two plain buffers', async (t) => {
  const size = 64 * 1024
  const step = fc.record({
    verb: fc.constantFrom('write', 'zero', 'move', 'flush'),
    at: fc.nat(size - 1),
    from: fc.nat(size - 1),
    length: fc.integer({ min: 1, max: 9000 }),
    value: fc.integer({ min: 1, max: 255 }),
  })
  const agrees = () =>
    fc.assert(
      fc.property(fc.array(step), fc.constantFrom('cacheline', 'page'), (steps, mode) => {
        const memory = new SimulatedMemory(size, mode)
        // Half of the runs take the short cut for stores that nobody watches.
        if (steps.length % 2 === 0) memory.onPersist = () => {}
        const now = Buffer.alloc(size)
        const kept = Buffer.alloc(size)
        for (const { verb, at, from, value, ...rest } of steps) {
          const length = Math.min(rest.length, size - at, size - from)
          if (verb === 'write') {
            memory.write(at, Buffer.alloc(length, value), 0, length)
            now.fill(value, at, at + length)
          } else if (verb === 'zero') {
            memory.zero(at, length)
            now.fill(0, at, at + length)
          } else if (verb === 'move') {
            memory.move(from, at, length)
            now.copyWithin(at, from, from + length)
          } else {
            memory.flush(at, length)
          }
          if (mode === 'page' && verb !== 'flush') continue
          const line = memory.lineSize
          const start = Math.floor(at / line) * line
          now.copy(kept, start, start, Math.ceil((at + length) / line) * line)
        }
        return (
          now.equals(bytesOf(memory, 0, size)) &&
          kept.equals(bytesOf(memory.crash(), 0, size)) &&
          now.equals(
            bytesOf(
              memory.crash(() => true),
              0,
              size,
            ),
          )
        )
      }),
    )
  t.doesNotThrow(agrees)
})

t.test('simulated poison: touches fail at the first bad page, and crashes keep it', async (t) => {
  const memory = new SimulatedMemory(MIB)
  memory.poison(8200, 1)
  const bytes = Buffer.alloc(16384, 5)
  for (const touch of [
    () => memory.read(0, bytes, 0, 16384),
    () => memory.write(0, bytes, 0, 16384),
    () => memory.zero(8192, 1),
    () => memory.probe(0, MIB),
    () => memory.crc32c(0, MIB, 0),
    () => memory.crash().isZero(8192, 4096),
  ]) {
    t.throws(touch, { name: 'MemoryFailure', offset: 8192, length: 4096, known: false })
  }
  t.same(bytesOf(memory, 0, 8192), Buffer.alloc(8192, 5), 'stored as far as it went')
  t.equal(bytesOf(memory.crash(), 0, 1)[0], 0, 'but nobody made that durable')
  memory.unpoison(8192, 4096)
  t.equal(memory.isZero(8192, 4096), true)
})

t.test('simulated memory refuses what is outside', async (t) => {
  const memory = new SimulatedMemory(MIB)
  const bytes = new Uint8Array(16)
  t.throws(() => memory.read(MIB - 8, bytes, 0, 16), RangeError)
  t.throws(() => memory.read(-1, bytes, 0, 1), RangeError)
  t.throws(() => memory.read(0, bytes, 8, 9), RangeError)
  t.throws(() => memory.write(0, bytes, 16, 1), RangeError)
  t.throws(() => new SimulatedMemory(1000), RangeError)
})

t.test('a mapped file: what is stored is in the file after a flush', async (t) => {
  const path = regionFile(t.testdir(), MIB)
  const dev = openDevice(path)
  t.match(dev, { kind: 'file', name: 'region', size: MIB, align: PAGE_SIZE, alive: true })
  const text = Buffer.from('123456789')
  dev.memory.write(4097, text, 0, 9)
  dev.memory.move(4097, 10, 9)
  t.equal(dev.memory.crc32c(10, 9, 0), 0xe3069283)
  t.equal(dev.memory.isZero(10, 9), false)
  dev.memory.zero(10, 9)
  t.equal(dev.memory.isZero(0, 4096), true)
  dev.memory.flush(4097, 9)
  const closing = dev.memory.flushAsync(0, MIB)
  dev.close()
  dev.close()
  await closing
  t.equal(dev.alive, false)
  t.throws(() => dev.memory.read(0, text, 0, 9), RangeError, 'closed is closed')

  const reader = openDevice(path, { readOnly: true })
  t.teardown(() => reader.close())
  reader.memory.read(4097, text, 0, 9)
  t.equal(text.toString(), '123456789')
  t.throws(() => reader.memory.write(0, text, 0, 9), { code: 'EROFS' })
  t.throws(() => reader.memory.zero(0, 1), { code: 'EROFS' })
  t.throws(() => reader.memory.move(0, 1, 1), { code: 'EROFS' })
})

t.test('a file truncated underneath is a memory failure with the right offset', async (t) => {
  const path = regionFile(t.testdir(), 16 * PAGE_SIZE)
  const dev = openDevice(path)
  t.teardown(() => dev.close())
  const bytes = Buffer.alloc(16 * PAGE_SIZE, 1)
  dev.memory.write(0, bytes, 0, bytes.length)
  truncateSync(path, 5 * PAGE_SIZE)
  const failure = { name: 'MemoryFailure', offset: 5 * PAGE_SIZE, length: PAGE_SIZE, known: false }
  t.throws(() => dev.memory.read(0, bytes, 0, bytes.length), failure)
  t.throws(() => dev.memory.write(0, bytes, 0, bytes.length), failure)
  t.throws(() => dev.memory.crc32c(0, bytes.length, 0), failure)
  t.throws(() => dev.memory.isZero(5 * PAGE_SIZE, PAGE_SIZE), failure)
  t.throws(() => dev.memory.probe(0, bytes.length), failure)
  t.throws(() => dev.memory.zero(9 * PAGE_SIZE + 7, 1), { ...failure, offset: 9 * PAGE_SIZE })
  dev.memory.read(0, bytes, 0, 5 * PAGE_SIZE)
})

t.test('openDevice says what is wrong with a path', async (t) => {
  const directory = t.testdir({ empty: '', small: 'x'.repeat(4095) })
  const missing = join(directory, 'missing')
  t.equal(
    errnoOf(() => openDevice(missing)),
    ENOENT,
  )
  t.throws(() => openDevice(missing), /truncate -s 1G/)
  t.equal(
    errnoOf(() => openDevice(directory)),
    EISDIR,
  )
  t.equal(
    errnoOf(() => openDevice(join(directory, 'empty'))),
    EINVAL,
  )
  t.equal(
    errnoOf(() => openDevice(join(directory, 'small'))),
    EINVAL,
  )
  t.throws(() => openDevice('/dev/null'), { code: 'EINVAL', message: /not a DAX device/ })
  const loop = join(directory, 'loop')
  symlinkSync('loop', loop)
  t.throws(() => openDevice(loop), { code: 'ELOOP', name: 'DaxError' })
})

t.test('a device-dax node is judged by its driver in sysfs', async (t) => {
  const device = (driver: string | undefined, size = String(512 * MIB)) =>
    t.testdir({
      bus: { dax: { drivers: { [driver ?? 'none']: {} } } },
      devices: {
        'dax0.0': {
          size: `${size}\n`,
          align: '2097152\n',
          subsystem: t.fixture('symlink', '../../bus/dax'),
          ...(driver && { driver: t.fixture('symlink', `../../bus/dax/drivers/${driver}`) }),
        },
      },
      // /dev/null stands in for the node: any user may open it, and it is 1:3 everywhere.
      dev: { char: { '1:3': t.fixture('symlink', '../../devices/dax0.0') } },
    })
  const open = (sysfs: string) => openRegion('/dev/null', true, sysfs)
  t.throws(() => open(device('kmem')), {
    code: 'EOPNOTSUPP',
    message: /system-ram.*daxctl reconfigure-device --mode=devdax dax0\.0/,
  })
  t.throws(() => open(device('fsdev_dax')), { errno: EOPNOTSUPP, message: /reconfigure-device/ })
  t.throws(() => open(device(undefined)), { code: 'ENODEV', message: /no driver/ })
  t.throws(() => open(device('device_dax', '0')), { code: 'ENODEV', message: /no memory/ })
  const region = open(device('device_dax', String(512 * MIB + 4096)))
  const expected = { kind: 'device-dax', name: 'dax0.0', size: 512 * MIB, align: 2 * MIB }
  t.match(region, { ...expected, key: 'dax-1-3' })
  t.throws(() => new MappedMemory(region), DaxError, '/dev/null cannot be mapped, and we live on')
})

t.test('every path to one region is one key', async (t) => {
  const directory = t.testdir({ sub: {} })
  const path = regionFile(directory, MIB)
  linkSync(path, join(directory, 'hard'))
  symlinkSync(path, join(directory, 'soft'))
  const key = regionKey(path)
  t.match(key, /^file-[0-9a-f]+-[0-9]+$/)
  t.equal(regionKey(join(directory, 'hard')), key)
  t.equal(regionKey(join(directory, 'soft')), key)
  t.equal(regionKey(join(directory, 'sub', '..', 'region')), key)
  const other = join(directory, 'other')
  writeFileSync(other, '')
  t.not(regionKey(other), key)
})

function regionFile(directory: string, size: number): string {
  const path = join(directory, 'region')
  writeFileSync(path, '')
  truncateSync(path, size)
  return path
}

function bytesOf(memory: SimulatedMemory, offset: number, length: number): Buffer {
  const bytes = Buffer.alloc(length)
  memory.read(offset, bytes, 0, length)
  return bytes
}
