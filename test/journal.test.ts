import fc from 'fast-check'
import t from 'tap'
import { MemoryFailure } from '../src/dax/memory.ts'
import { SimulatedMemory, type SimulatedMode } from '../src/dax/simulated-memory.ts'
import { Checkpointer, loadImage } from '../src/journal/checkpoint.ts'
import { Journal, JournalFullError, RecordTooLargeError } from '../src/journal/journal.ts'
import { emptyJournal, listRecords, type ReplayResult, scanJournal } from '../src/journal/replay.ts'
import type { Change } from '../src/media/change.ts'
import { MediaError } from '../src/media/errors.ts'
import { BLOCK_SIZE, geometryFor, UNIT_SIZE } from '../src/media/geometry.ts'
import { RECORD_MARK } from '../src/media/record.ts'
import {
  createSuperblock,
  mountedSuperblock,
  readSuperblocks,
  requireSuperblock,
  type Superblock,
  writeSuperblocks,
} from '../src/media/superblock.ts'

const SIZE = 32 * 1024 * 1024
const BOOTS = [
  '00000000-0000-0000-0000-000000000001',
  '00000000-0000-0000-0000-000000000002',
  '00000000-0000-0000-0000-000000000003',
] as const
const HOLDER = { pid: 1, host: 'h', mountpoint: '/m', since: 0 }
/** Longest name and a value: a record of a few hundred bytes. */
const PADDING = Buffer.alloc(700, 0x70)

/** A change that tells which transaction it belongs to. */
function changeOf(sequence: number, padding = PADDING): Change[] {
  return [{ type: 'putXattr', ino: sequence, name: Buffer.from('user.s'), value: padding }]
}

function format(mode: SimulatedMode): SimulatedMemory {
  const memory = new SimulatedMemory(SIZE, mode)
  const geometry = geometryFor(SIZE)
  const start = geometry.dataStartBlock
  const superblock = createSuperblock({
    geometry,
    label: 'test',
    created: 1,
    slots: [[{ block: start, blocks: 512 }], [{ block: start + 512, blocks: 512 }]],
  })
  writeSuperblocks(memory, {
    ...superblock,
    checkpoint: { ...superblock.checkpoint, sequence: 1 },
  })
  return memory
}

interface Mount {
  memory: SimulatedMemory
  superblock: Superblock
  journal: Journal
  replay: ReplayResult
  /** Transactions the replay passed on. */
  seen: number[]
}

function scan(memory: SimulatedMemory, bootId: string = BOOTS[0]) {
  const superblock = requireSuperblock(readSuperblocks(memory))
  const seen: number[] = []
  const replay = scanJournal(memory, superblock, {
    bootId,
    onTransaction(sequence, changes) {
      const [change] = changes
      if (change?.type !== 'putXattr' || change.ino !== sequence) throw new Error('wrong payload')
      seen.push(sequence)
    },
  })
  return { superblock, replay, seen }
}

function mount(memory: SimulatedMemory, bootId: string = BOOTS[0]): Mount {
  const { superblock: found, replay, seen } = scan(memory, bootId)
  const next = mountedSuperblock(found, { bootId, holder: HOLDER, lastEpoch: replay.lastEpoch })
  const { superblock } = writeSuperblocks(memory, next)
  return { memory, superblock, journal: new Journal(memory, superblock, replay), replay, seen }
}

function append(journal: Journal, count: number): void {
  for (let i = 0; i < count; i += 1) journal.append(changeOf(journal.nextSequence))
}

/** Appends until the active half takes no more; returns the last sequence. */
function fill(journal: Journal): number {
  for (;;) {
    try {
      append(journal, 1)
    } catch (error) {
      if (!(error instanceof JournalFullError)) throw error
      return journal.lastSequence
    }
  }
}

/** A whole checkpoint whose image is just text. */
function checkpoint(mounted: Mount, between: () => void = () => {}): void {
  const { memory, journal } = mounted
  const sequence = journal.lastSequence
  const slot = mounted.superblock.checkpoint.slot === 0 ? 1 : 0
  journal.switchHalves()
  const checkpointer = new Checkpointer(memory)
  const image = Buffer.from(`image at ${sequence}`)
  checkpointer.begin(image, sequence, slot, mounted.superblock.slots[slot])
  between()
  mounted.superblock = checkpointer.finish(mounted.superblock)
  journal.releaseOldHalf()
}

const upTo = (first: number, last: number) =>
  Array.from({ length: last - first + 1 }, (_, index) => first + index)

/** Everything that was stored survives: the daemon dies, the host does not. */
const killed = (memory: SimulatedMemory) => memory.crash(() => true)

t.test('append and replay', async (t) => {
  const memory = format('cacheline')
  const first = mount(memory)
  t.same(first.seen, [])
  t.match(first.replay, { lastSequence: 1, position: 0, transactions: 0, stoppedAtMark: false })
  const { journal } = first
  t.equal(journal.nextSequence, 2)
  t.equal(journal.size, UNIT_SIZE)
  t.equal(journal.append(changeOf(2)), 2)
  t.equal(journal.durableSequence, 2, 'durable on return')
  append(journal, 9)
  t.equal(journal.lastSequence, 11)
  await journal.commit()
  journal.commitNow()
  const again = mount(memory.crash())
  t.same(again.seen, upTo(2, 11))
  t.equal(again.replay.position, journal.used, 'no marks where stores are durable')
  append(again.journal, 5)
  t.same(scan(again.memory.crash()).seen, upTo(2, 16), 'over an epoch change')
  t.equal(again.replay.lastEpoch, 1)
})

t.test('a record is there or not, wherever its write is cut', async (t) => {
  const memory = format('cacheline')
  const { journal } = mount(memory)
  append(journal, 3)
  let cuts = 0
  memory.onPersist = () => {
    for (let words = 0; words < 120; words += 7) {
      const lines = memory.unflushedLines()
      const torn = memory.crash(
        () => true,
        (line, word) => (line - lines[0]!) * 8 + word < words,
      )
      const { seen, replay } = scan(torn)
      // 48 bytes of header, then the payload: without its last word it is no record.
      const whole = words * 8 >= 48 + 8 + 8 + 6 + PADDING.length
      if (!whole) t.same(seen, upTo(2, 4))
      t.equal(replay.lastSequence, seen.at(-1))
      const after = mount(torn)
      append(after.journal, 2)
      t.same(scan(torn.crash()).seen, upTo(2, seen.at(-1)! + 2))
      cuts += 1
    }
    const random = memory.crash(
      () => true,
      (line, word) => ((line * 8 + word) * 2654435761) % 4096 < 2048,
    )
    t.same(scan(random).seen, upTo(2, 4))
  }
  append(journal, 1)
  memory.onPersist = undefined
  t.ok(cuts > 10)
  t.same(scan(memory.crash()).seen, upTo(2, 5))
})

t.test('journal full', async (t) => {
  const memory = format('cacheline')
  const { journal } = mount(memory)
  const last = fill(journal)
  t.ok(journal.used <= journal.size * 0.875)
  t.ok(journal.used > journal.size * 0.87)
  t.equal(journal.lastSequence, last, 'a refused append changes nothing')
  t.equal(journal.append(changeOf(last + 1), 'shrinking'), last + 1)
  for (;;) {
    try {
      journal.append(changeOf(journal.nextSequence), 'shrinking')
    } catch (error) {
      t.type(error, JournalFullError)
      break
    }
  }
  t.ok(journal.used > journal.size * 0.99)
  const huge = [1, 2, 3, 4, 5, 6, 7, 8, 9].flatMap((ino) => [...changeOf(ino, Buffer.alloc(65536))])
  t.throws(() => journal.append(huge), RecordTooLargeError)
  t.same(scan(memory.crash()).seen, upTo(2, journal.lastSequence))
})

t.test('the largest record fits a fresh half', async (t) => {
  const memory = format('cacheline')
  const { journal } = mount(memory)
  const change = (bytes: number) => changeOf(2, Buffer.alloc(bytes))
  const whole = [...change(65536), ...change(65536), ...change(65536), ...change(65536)]
  const seven = [...whole, ...change(65536), ...change(65536), ...change(65536)]
  journal.append([...seven, ...change(journal.maxRecord - 48 - 8 * 22 - 7 * 65536)])
  t.equal(journal.used, journal.maxRecord)
  t.throws(() => journal.append([...seven, ...change(65536)]), RecordTooLargeError)
})

t.test('checkpoints lap the halves', async (t) => {
  const memory = format('cacheline')
  const mounted = mount(memory)
  const { journal } = mounted
  for (let lap = 0; lap < 5; lap += 1) {
    fill(journal)
    const at = journal.lastSequence
    checkpoint(mounted, () => append(journal, 3))
    t.equal(journal.rangesInUse().length, 1)
    const { seen, replay } = scan(memory.crash())
    t.same(seen, upTo(at + 1, at + 3), 'only what came after the checkpoint')
    t.equal(replay.otherHalfUsed, 0)
    t.equal(loadImage(memory, mounted.superblock).toString(), `image at ${at}`)
    append(journal, lap)
  }
})

t.test('a checkpoint that was not finished: older image, both halves', async (t) => {
  for (const more of [0, 1, 50]) {
    const memory = format('cacheline')
    const mounted = mount(memory)
    fill(mounted.journal)
    mounted.journal.switchHalves()
    append(mounted.journal, more)
    const last = mounted.journal.lastSequence
    t.equal(mounted.journal.rangesInUse().length, 2)
    const next = mount(memory.crash())
    t.same(next.seen, upTo(2, last))
    append(next.journal, 2)
    // The first checkpoint after such a mount cannot switch: both halves are needed.
    let during = 0
    checkpoint(next, () => {
      during = more
      append(next.journal, during)
    })
    const tail = scan(next.memory.crash())
    t.same(tail.seen, upTo(last + 3, last + 2 + during), 'continues in the middle of a half')
    append(next.journal, 1)
    const final = mount(next.memory.crash())
    t.same(final.seen, upTo(last + 3, last + 3 + during))
    append(final.journal, 1)
    checkpoint(final)
    append(final.journal, 1)
    t.same(scan(final.memory.crash()).seen, [last + 5 + during])
  }
})

t.test('a checkpoint given up and begun again', async (t) => {
  const mounted = mount(format('cacheline'))
  const { journal, memory } = mounted
  append(journal, 5)
  journal.switchHalves()
  append(journal, 5)
  checkpoint(mounted, () => append(journal, 2))
  t.same(scan(memory.crash()).seen, [12, 13])
  fill(journal)
  checkpoint(mounted)
  t.ok(journal.used < journal.size / 100, 'room again')
})

t.test('after a synchronous checkpoint there is room, even when it could not switch', async (t) => {
  const memory = format('cacheline')
  const first = mount(memory)
  fill(first.journal)
  first.journal.switchHalves()
  fill(first.journal)
  const second = mount(memory.crash())
  t.throws(() => append(second.journal, 1), JournalFullError)
  checkpoint(second)
  append(second.journal, 3)
  t.equal(scan(second.memory.crash()).seen.length, 3)
})

t.test('stale records of earlier laps are not taken for news', async (t) => {
  const memory = format('cacheline')
  let mounted = mount(memory)
  fc.assert(
    fc.property(
      fc.array(fc.constantFrom('append', 'checkpoint', 'mount'), { maxLength: 12 }),
      (steps) => {
        for (const step of steps) {
          if (step === 'append') append(mounted.journal, 1 + (mounted.journal.lastSequence % 7))
          else if (step === 'checkpoint') checkpoint(mounted, () => append(mounted.journal, 1))
          else mounted = mount(mounted.memory.crash())
          const { seen, superblock } = scan(mounted.memory.crash())
          t.same(seen, upTo(superblock.checkpoint.sequence + 1, mounted.journal.lastSequence))
        }
      },
    ),
    { numRuns: 40 },
  )
})

/** Spoils one byte of the record of a transaction, in place. */
function spoil(memory: SimulatedMemory, sequence: number): number {
  const superblock = requireSuperblock(readSuperblocks(memory))
  for (const { half, position, header } of listRecords(memory, superblock)) {
    if (header.sequence !== sequence || header.kind === RECORD_MARK) continue
    const offset = superblock.geometry.journal[half].offset + position
    memory.write(offset + header.length - 1, Buffer.from([0xff]), 0, 1)
    memory.flush(offset, header.length)
    return offset
  }
  throw new Error(`no record ${sequence}`)
}

t.test('a gap before a record that proves it was durable is damage', async (t) => {
  for (const mode of ['cacheline', 'page'] as const) {
    const memory = format(mode)
    const mounted = mount(memory)
    for (let i = 0; i < 4; i += 1) {
      append(mounted.journal, 3)
      await mounted.journal.commit()
    }
    const copy = killed(memory)
    const offset = spoil(copy, 5)
    t.throws(() => scan(copy), { name: 'MediaError', offset, message: /fsck\.holdfast --repair/ })
    const last = killed(memory)
    spoil(last, 13)
    if (mode === 'cacheline') t.same(scan(last).seen, upTo(2, 12), 'nothing proves the last one')
    else t.throws(() => scan(last), MediaError, 'the mark does')
  }
  t.test('across the halves', async (t) => {
    const memory = format('cacheline')
    const { journal } = mount(memory)
    append(journal, 9)
    journal.switchHalves()
    append(journal, 9)
    const copy = killed(memory)
    spoil(copy, 4)
    t.throws(() => scan(copy), MediaError)
    const start = killed(memory)
    spoil(start, 11)
    t.throws(() => scan(start), MediaError)
    const first = killed(memory)
    spoil(first, 2)
    t.throws(() => scan(first), MediaError)
  })
  t.test('nothing is passed on', async (t) => {
    const memory = format('cacheline')
    append(mount(memory).journal, 9)
    spoil(memory, 8)
    const superblock = requireSuperblock(readSuperblocks(memory))
    const onTransaction = () => t.fail('a damaged journal is not replayed')
    t.throws(() => scanJournal(memory, superblock, { bootId: BOOTS[0], onTransaction }))
  })
})

t.test('bytes a user stored do not pass for records', async (t) => {
  const memory = format('cacheline')
  const { journal, superblock } = mount(memory)
  append(journal, 3)
  const forged = Buffer.alloc(1024)
  const [victim] = listRecords(memory, superblock)
  memory.read(superblock.geometry.journal[0].offset + victim!.position, forged, 0, 1024)
  // The right sequence is no secret, the seed of the CRC is.
  forged.writeUInt32LE(9, 24)
  forged.writeUInt32LE(8, 32)
  journal.append(changeOf(5, Buffer.concat([Buffer.alloc(128 - 48 - 22), forged])))
  t.same(scan(memory.crash()).seen, upTo(2, 5))
})

t.test('page memory: commits', async (t) => {
  const memory = format('page')
  const { journal } = mount(memory)
  const told: number[] = []
  journal.onDurable((sequence) => told.push(sequence))
  append(journal, 3)
  t.equal(journal.durableSequence, 1)
  const one = journal.commit()
  append(journal, 2)
  const two = journal.commit()
  t.equal(journal.commit(), two, 'callers share')
  await one
  t.equal(journal.durableSequence, 4)
  append(journal, 1)
  await two
  t.equal(journal.durableSequence, 7, 'it began after the append')
  t.same(told, [4, 7])
  append(journal, 1)
  journal.commitNow()
  t.same(told, [4, 7, 8])
  t.same(scan(memory.crash(), BOOTS[1]).seen, upTo(2, 8))
  const used = journal.used
  await journal.commit()
  journal.commitNow()
  t.equal(journal.used, used, 'no mark when there is nothing new')
  append(journal, 1)
  const pending = journal.commit()
  journal.commitNow()
  await pending
  t.same(told, [4, 7, 8, 9])
})

t.test('page memory: a failing flush reaches everyone who waits', async (t) => {
  const memory = format('page')
  const { journal } = mount(memory)
  append(journal, 1)
  const failure = new MemoryFailure(0)
  const real = memory.flushAsync
  memory.flushAsync = async () => {
    throw failure
  }
  const [one, two] = [journal.commit(), journal.commit()]
  await t.rejects(one, failure)
  await t.rejects(two, failure)
  memory.flushAsync = real
  await journal.commit()
  t.equal(journal.durableSequence, 2)
})

t.test('page memory: a host crash at any point keeps what was committed', async (t) => {
  for (let seed = 1; seed <= 10; seed += 1) {
    const random = generator(seed)
    const memory = format('page')
    const mounted = mount(memory)
    const { journal } = mounted
    const outcomes: SimulatedMemory[] = []
    const committed: number[] = []
    memory.onPersist = () => {
      outcomes.push(memory.crash(() => random() < 0.5))
      committed.push(journal.durableSequence)
    }
    for (let i = 0; i < 8; i += 1) {
      append(journal, 1 + Math.floor(random() * 6))
      const pending = journal.commit()
      if (random() < 0.5) append(journal, 1 + Math.floor(random() * 9))
      await pending
      if (random() < 0.3) checkpoint(mounted, () => append(journal, 2))
    }
    memory.onPersist = undefined
    for (const [index, after] of outcomes.entries()) {
      const { seen, superblock, replay } = scan(after, BOOTS[1])
      t.same(seen, upTo(superblock.checkpoint.sequence + 1, replay.lastSequence))
      if (replay.lastSequence < committed[index]!) t.fail(`seed ${seed}: a commit was lost`)
      const next = mount(after, BOOTS[1])
      append(next.journal, 3)
      next.journal.commitNow()
      const final = scan(
        after.crash(() => random() < 0.5),
        BOOTS[2],
      )
      t.equal(final.replay.lastSequence, replay.lastSequence + 3, `seed ${seed}`)
    }
  }
})

t.test('page memory: the boot id decides about the tail', async (t) => {
  const memory = format('page')
  const { journal } = mount(memory)
  append(journal, 5)
  await journal.commit()
  append(journal, 5)
  const everything = killed(memory)
  t.same(scan(everything, BOOTS[0]).seen, upTo(2, 11), 'a daemon crash loses nothing')
  const other = scan(everything, BOOTS[1])
  t.same(other.seen, upTo(2, 6), 'a host crash stops at the mark')
  t.equal(other.replay.stoppedAtMark, true)
  t.equal(other.replay.durableSequence, 6)

  const second = mount(everything, BOOTS[1])
  const idle = mount(killed(everything), BOOTS[1])
  t.same(idle.seen, upTo(2, 6), 'the tail stays unreplayed, though nothing was written since')
  append(second.journal, 1)
  const third = mount(killed(everything), BOOTS[1])
  t.same(third.seen, upTo(2, 7))
  t.equal(third.replay.stoppedAtMark, false, 'the rest of the old tail does not continue it')
})

t.test('page memory: an unreplayed tail, then a switch', async (t) => {
  const memory = format('page')
  const { journal } = mount(memory)
  append(journal, 5)
  await journal.commit()
  append(journal, 5)
  const second = mount(killed(memory), BOOTS[1])
  second.journal.switchHalves()
  append(second.journal, 2)
  second.journal.commitNow()
  t.same(scan(second.memory.crash(), BOOTS[2]).seen, upTo(2, 8))
  const third = mount(killed(memory), BOOTS[1])
  checkpoint(third, () => append(third.journal, 2))
  third.journal.commitNow()
  t.same(scan(third.memory.crash(), BOOTS[2]).seen, [7, 8])
})

t.test('page memory replayed on memory with durable stores', async (t) => {
  const memory = format('page')
  const { journal } = mount(memory)
  append(journal, 3)
  const dax = new SimulatedMemory(SIZE, 'cacheline')
  const bytes = Buffer.alloc(SIZE)
  memory.read(0, bytes, 0, SIZE)
  dax.write(0, bytes, 0, SIZE)
  const moved = mount(dax)
  t.same(moved.seen, upTo(2, 4))
  t.equal(moved.journal.durableSequence, 1)
  append(moved.journal, 1)
  moved.journal.commitNow()
  t.equal(moved.journal.durableSequence, 5)
  append(moved.journal, 1)
  t.equal(moved.journal.durableSequence, 6)
  t.same(scan(dax.crash(), BOOTS[1]).seen, upTo(2, 6))
})

t.test('memory failures', async (t) => {
  const [half, other] = geometryFor(SIZE).journal
  await t.test('in use: damage', async (t) => {
    const memory = format('cacheline')
    append(mount(memory).journal, 20)
    memory.poison(half.offset + BLOCK_SIZE, 1)
    t.throws(() => scan(memory), MediaError)
    memory.unpoison(0, SIZE)
    memory.poison(half.offset, 1)
    t.throws(() => scan(memory), MediaError)
  })
  await t.test('unused: nothing', async (t) => {
    const memory = format('cacheline')
    append(mount(memory).journal, 20)
    memory.poison(half.offset + half.length / 2, 65536)
    memory.poison(other.offset, UNIT_SIZE)
    t.equal(scan(memory).seen.length, 20)
  })
  await t.test('where the next record belongs: only a clean filesystem is sure', async (t) => {
    const memory = format('cacheline')
    memory.poison(half.offset, 1)
    t.same(scan(memory).seen, [])
    const mounted = mount(memory)
    t.throws(() => scan(memory), MediaError)
    const [block, blocks] = [half.offset / BLOCK_SIZE, 1]
    writeSuperblocks(memory, { ...mounted.superblock, poison: [{ block, blocks }] })
    t.same(scan(memory).seen, [], 'or when it was known to be bad')
    const again = mount(memory)
    append(again.journal, 3)
    t.equal(scan(memory.crash()).seen.length, 3, 'records go round it')
  })
  await t.test('met by append', async (t) => {
    const memory = format('cacheline')
    const { journal } = mount(memory)
    append(journal, 20)
    const bad = half.offset + Math.ceil(journal.used / BLOCK_SIZE) * BLOCK_SIZE
    memory.poison(bad, 2 * BLOCK_SIZE)
    t.throws(() => append(journal, 9), MemoryFailure)
    t.throws(() => append(journal, 9), MemoryFailure, 'page by page')
    const before = journal.lastSequence
    append(journal, 9)
    t.ok(journal.used > bad + 2 * BLOCK_SIZE - half.offset)
    t.same(scan(memory.crash()).seen, upTo(2, before + 9))
    const next = mount(memory.crash())
    t.equal(next.replay.position, journal.used)
    spoil(memory, before + 1)
    t.throws(() => scan(memory), MediaError, 'a gap hides nothing')
  })
  await t.test('told beforehand', async (t) => {
    const memory = format('cacheline')
    const mounted = mount(memory)
    const { journal } = mounted
    append(journal, 2)
    memory.poison(half.offset + 65536, 65536)
    memory.poison(other.offset, 4096)
    journal.avoid(half.offset + 65536, 65536)
    journal.avoid(other.offset, 4096)
    const last = fill(journal)
    t.same(scan(memory.crash()).seen, upTo(2, last))
    journal.switchHalves()
    append(journal, 5)
    t.same(scan(memory.crash()).seen, upTo(2, last + 5), 'the start of the other half is bad')
  })
  await t.test('one half entirely bad', async (t) => {
    const memory = format('cacheline')
    const mounted = mount(memory)
    mounted.journal.avoid(other.offset, other.length)
    memory.poison(other.offset, other.length)
    for (let lap = 0; lap < 3; lap += 1) {
      fill(mounted.journal)
      checkpoint(mounted)
      append(mounted.journal, 4)
      t.equal(scan(memory.crash()).seen.length, 4)
    }
  })
})

t.test('a half lost after a switch is damage', async (t) => {
  const memory = format('cacheline')
  const { journal } = mount(memory)
  append(journal, 4)
  journal.switchHalves()
  append(journal, 1)
  memory.poison(geometryFor(SIZE).journal[1].offset, 1)
  t.throws(() => scan(memory), MediaError)
})

t.test('checkpoint: interrupted at every slice, the old image holds', async (t) => {
  for (const mode of ['cacheline', 'page'] as const) {
    const memory = format(mode)
    const mounted = mount(memory)
    append(mounted.journal, 3)
    checkpoint(mounted)
    append(mounted.journal, 3)
    mounted.journal.commitNow()
    const image = Buffer.from(upTo(0, 299_999).map((n) => (n * 31) & 255))
    const slot = mounted.superblock.checkpoint.slot === 0 ? 1 : 0
    const old = mounted.superblock.checkpoint
    const sequence = mounted.journal.lastSequence
    const both = (after: SimulatedMemory) => {
      const { superblock, seen } = scan(after)
      const loaded = loadImage(after, superblock)
      if (superblock.checkpoint.sequence === sequence) return t.ok(loaded.equals(image))
      t.same(superblock.checkpoint, old)
      t.same(seen, upTo(old.sequence + 1, sequence))
      return t.equal(loaded.toString(), `image at ${old.sequence}`)
    }
    memory.onPersist = () => {
      both(memory.crash())
      both(memory.crash((line) => line % 3 === 0))
      both(memory.crash(() => true))
    }
    mounted.journal.switchHalves()
    const checkpointer = new Checkpointer(memory)
    checkpointer.begin(image, sequence, slot, mounted.superblock.slots[slot])
    let slices = 1
    while (checkpointer.step(40_000)) slices += 1
    t.equal(slices, 8)
    await checkpointer.flush()
    const written = checkpointer.finish(mounted.superblock)
    memory.onPersist = undefined
    t.match(written.checkpoint, { slot, sequence, length: image.length })
    t.ok(loadImage(memory.crash(), written).equals(image))
  }
})

t.test('checkpoint: extents in pieces, growth, errors', async (t) => {
  const memory = format('cacheline')
  const { superblock } = mount(memory)
  const start = superblock.geometry.dataStartBlock
  const extents = [
    { block: start + 2048, blocks: 512 },
    { block: start + 1024, blocks: 1024 },
  ]
  const image = Buffer.alloc(5 * 1024 * 1024)
  for (let at = 0; at < image.length; at += 4) image.writeUInt32LE(at, at)
  const checkpointer = new Checkpointer(memory)
  t.throws(() => checkpointer.step(), /no checkpoint/)
  t.throws(() => checkpointer.begin(image, 1, 1, superblock.slots[1]), /for a slot of 2097152/)
  checkpointer.begin(image, 1, 0, extents)
  t.throws(() => checkpointer.finish(superblock), /the current one/)
  checkpointer.begin(image, 1, 1, extents)
  const grown = [...extents, { block: start + 512, blocks: 512 }]
  const written = checkpointer.finish({ ...superblock, slots: [superblock.slots[0], grown] })
  t.same(written.slots[1], grown, 'a slot that grew meanwhile keeps what it got')
  t.ok(loadImage(memory, written).equals(image))
  memory.write(extents[1]!.block * BLOCK_SIZE, Buffer.from([1]), 0, 1)
  t.throws(() => loadImage(memory, written), {
    name: 'MediaError',
    structure: 'checkpoint slot 1',
    offset: extents[0]!.block * BLOCK_SIZE,
  })
  memory.poison(extents[1]!.block * BLOCK_SIZE, 1)
  t.throws(() => loadImage(memory, written), MemoryFailure)
})

t.test('a journal of arbitrary bytes gives a result or a MediaError', async () => {
  const memory = format('cacheline')
  append(mount(memory).journal, 30)
  const { geometry } = requireSuperblock(readSuperblocks(memory))
  const poke = fc.record({ at: fc.nat(30_000), bytes: fc.uint8Array({ maxLength: 80 }) })
  fc.assert(
    fc.property(fc.array(poke, { maxLength: 5 }), (pokes) => {
      const copy = killed(memory)
      for (const { at, bytes } of pokes) {
        copy.write(geometry.journal[0].offset + at, bytes, 0, bytes.length)
      }
      try {
        scan(copy)
      } catch (error) {
        if (!(error instanceof MediaError)) throw error
      }
    }),
    { numRuns: 100 },
  )
})

t.test('an empty journal', async (t) => {
  const memory = format('cacheline')
  const superblock = requireSuperblock(readSuperblocks(memory))
  t.same(scan(memory).replay, emptyJournal(superblock))
  t.same([...listRecords(memory, superblock)], [])
})

/** Small numbers in [0, 1) that a seed decides. */
function generator(seed: number): () => number {
  let state = seed * 2654435761
  return () => {
    state = (Math.imul(state ^ (state >>> 15), 0x2c1b3c6d) + 0x9e3779b9) >>> 0
    return state / 2 ** 32
  }
}
