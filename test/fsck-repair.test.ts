import { type Test, t } from 'tap'
import { format } from '../mkfs/format.ts'
import { openSimulated } from '../src/dax/device.ts'
import { fsDaxGet } from '../src/dax/holder.ts'
import { bootId } from '../src/dax/identity.ts'
import { SimulatedMemory } from '../src/dax/simulated-memory.ts'
import { type Examination, examine } from '../src/fs/check/examine.ts'
import { Filesystem } from '../src/fs/filesystem.ts'
import { Actions } from '../src/fs/repair/actions.ts'
import type { RepairContext } from '../src/fs/repair/context.ts'
import { onlySafe } from '../src/fs/repair/policy.ts'
import { needsRepair, planRepair, repairRegion } from '../src/fs/repair/repair.ts'
import { arrangeSlots } from '../src/fs/repair/slots.ts'
import type { Index } from '../src/index/index.ts'
import { Checkpointer } from '../src/journal/checkpoint.ts'
import { OWNER_CHECKPOINT } from '../src/media/change.ts'
import { BLOCK_SIZE, BLOCKS_PER_UNIT } from '../src/media/geometry.ts'
import type { Superblock } from '../src/media/superblock.ts'
import { recordOffset, superblockOf } from './support/records.ts'

const SIZE = 64 * 1024 * 1024
const FILES = 20
const CALLER = { uid: 0, gid: 0, pid: 1, umask: 0 }
const WRITE = { cached: false, killPrivileges: false, append: false }
const silent = { info() {}, warn() {}, error() {} }
const name = (i: number) => Buffer.from(`file${i}`)

function mount(memory: SimulatedMemory) {
  const device = openSimulated(memory)
  fsDaxGet(device, { purpose: 'mount' })
  const options = {
    readOnly: false,
    commitSeconds: 60,
    onFailure: 'handles',
    logger: silent,
  } as const
  return { device, filesystem: Filesystem.mount(device, options) }
}

function addFiles(filesystem: Filesystem, from: number, to: number): void {
  for (let i = from; i < to; i++) {
    const handle = filesystem.create(1, name(i), 0o644, 2, CALLER)
    filesystem.write(handle, 0, Buffer.alloc(5000, 65 + i), 0, 5000, WRITE)
    filesystem.release(handle)
  }
}

/** A filesystem with FILES files: half of them in the checkpoint; cleanly unmounted, or crashed. */
async function populated(clean: boolean): Promise<SimulatedMemory> {
  const memory = new SimulatedMemory(SIZE)
  format(memory, { label: '', uid: 0, gid: 0, now: 1 })
  const { filesystem } = mount(memory)
  addFiles(filesystem, 0, FILES / 2)
  await filesystem.administration.checkpoint()
  addFiles(filesystem, FILES / 2, FILES)
  const crashed = memory.crash()
  await filesystem.unmount()
  return clean ? memory : crashed
}

/** How many of the files are there, in order and with the right bytes. */
async function survivors(memory: SimulatedMemory): Promise<number> {
  const { filesystem } = mount(memory)
  const bytes = Buffer.alloc(6000)
  let count = 0
  for (; count < FILES; count++) {
    try {
      const { ino } = filesystem.lookup(1, name(count))
      const length = filesystem.readInto(filesystem.open(ino, 0, false), 0, bytes, 0, 6000)
      if (length !== 5000 || bytes[4999] !== 65 + count) break
    } catch {
      break
    }
  }
  await filesystem.unmount()
  return count
}

function look(memory: SimulatedMemory): Examination {
  const stages = examine(memory, { bootId: bootId() })
  for (;;) {
    const next = stages.next()
    if (next.done) return next.value
  }
}

const codes = (examination: Examination) => examination.problems.map((problem) => problem.code)

/** Repairs, makes sure that a second repair has nothing to do, and returns what is left. */
function repair(t: Test, memory: SimulatedMemory, expected: readonly string[]) {
  const before = look(memory)
  t.same(codes(before), expected, 'found')
  const safe = onlySafe(before)
  t.ok(needsRepair(memory, before))
  const actions = repairRegion(memory, before, { now: 1 })
  const after = look(memory)
  t.notOk(needsRepair(memory, after), 'a second repair has nothing to do')
  return {
    actions: actions.map((action) => action.kind),
    left: codes(after),
    lost: before.salvaged!.lost,
    safe,
  }
}

function scribble(memory: SimulatedMemory, offset: number, length: number): void {
  memory.write(offset, Buffer.alloc(length, 0x5a), 0, length)
}

const slotOffset = ({ slots }: Superblock, slot: 0 | 1) => slots[slot][0]!.block * BLOCK_SIZE

/** Puts an index on media that was changed by hand. */
function damageIndex(memory: SimulatedMemory, damage: (index: Index) => void): void {
  const { superblock, salvaged } = look(memory)
  damage(salvaged!.index)
  const { sequence, index } = salvaged!
  const slot = superblock!.checkpoint.slot === 0 ? 1 : 0
  const checkpointer = new Checkpointer(memory)
  checkpointer.begin(index.serialize(), sequence, slot, superblock!.slots[slot])
  checkpointer.finish(superblock!)
}

t.test('nothing is wrong with what was unmounted, or what crashed', async (t) => {
  const clean = await populated(true)
  t.same(codes(look(clean)), [])
  t.notOk(needsRepair(clean, look(clean)))
  const crashed = await populated(false)
  t.same(codes(look(crashed)), [])
  const { actions, left } = repair(t, crashed, [])
  t.same(actions, ['checkpoint'], 'a replay, and no more')
  t.same(left, [])
  t.equal(superblockOf(crashed).state, 'clean')
  t.equal(await survivors(crashed), FILES)
})

t.test('one bad superblock is made from the other', async (t) => {
  for (const offset of [0, SIZE - BLOCK_SIZE]) {
    const memory = await populated(true)
    scribble(memory, offset + 100, 8)
    const { left, safe } = repair(t, memory, ['superblock-damaged'])
    t.same(left, [])
    t.ok(safe, 'also at boot')
    t.equal(await survivors(memory), FILES)
  }
})

t.test('metadata on record as bad that can be read is used again', async (t) => {
  const memory = await populated(true)
  const { geometry } = superblockOf(memory)
  const [one, other] = geometry.journal
  damageIndex(memory, ({ poison }) => {
    poison.put(one.offset / BLOCK_SIZE, one.length / BLOCK_SIZE)
    poison.put(other.offset / BLOCK_SIZE, other.length / BLOCK_SIZE)
  })
  t.equal(look(memory).problems[0]?.offset, one.offset)
  t.throws(() => mount(memory), /^journal .* both halves; run fsck.holdfast --repair/)
  const { left, actions } = repair(t, memory, ['journal-poisoned'])
  t.same([left, actions], [[], ['poison', 'poison', 'checkpoint']])
  t.equal(await survivors(memory), FILES)

  const { slots, checkpoint } = superblockOf(memory)
  const next = slots[checkpoint.slot === 0 ? 1 : 0][0]!
  damageIndex(memory, ({ poison }) => poison.put(next.block + 3, 2))
  t.same(repair(t, memory, ['checkpoint-poisoned']).left, [])
  t.equal(await survivors(memory), FILES)
})

t.test('two bad superblocks are beyond repair', async (t) => {
  const memory = await populated(true)
  scribble(memory, 100, 8)
  scribble(memory, SIZE - BLOCK_SIZE + 100, 8)
  const found = look(memory)
  t.same(codes(found), ['superblock-damaged', 'superblock-damaged'])
  t.notOk(found.problems.some((problem) => problem.fixable))
  t.notOk(needsRepair(memory, found))
})

t.test('a superblock in bad memory is told, and nothing is tried', async (t) => {
  const memory = await populated(true)
  memory.poison(0, BLOCK_SIZE)
  const found = look(memory)
  t.same(codes(found), ['superblock-unreadable'])
  t.notOk(needsRepair(memory, found))
  t.equal(await survivors(memory), FILES)
})

t.test('a journal damaged in the middle keeps its valid beginning', async (t) => {
  for (const harm of ['scribble', 'poison'] as const) {
    const memory = await populated(false)
    const offset = recordOffset(memory, 7)
    if (harm === 'scribble') scribble(memory, offset + 70, 4)
    else memory.poison(offset, 1)
    const { actions, left, lost, safe } = repair(t, memory, ['journal-damaged'])
    t.notOk(safe, 'not without being asked')
    t.ok(actions.includes('journal'))
    t.ok(lost >= FILES - 6, `${lost} operations lost`)
    t.same(left, [])
    const count = await survivors(memory)
    t.ok(count >= FILES / 2 && count < FILES, `${count} files survived`)
    t.same(codes(look(memory)), [])
  }
})

t.test('a lost checkpoint image is made up for by the older one and the journal', async (t) => {
  for (const clean of [true, false]) {
    for (const harm of ['scribble', 'poison'] as const) {
      const memory = await populated(clean)
      const superblock = superblockOf(memory)
      const offset = slotOffset(superblock, superblock.checkpoint.slot)
      if (harm === 'scribble') scribble(memory, offset + 9000, 100)
      else memory.poison(offset + 8192, BLOCK_SIZE)
      const { actions, left } = repair(t, memory, ['checkpoint-damaged'])
      t.same(left, [])
      t.equal(actions.includes('slot-unit'), harm === 'poison')
      t.equal(await survivors(memory), FILES, `${harm}, ${clean ? 'clean' : 'crashed'}`)
    }
  }
})

/** A region that crashed, or was unmounted, with the image lost that the superblocks point at. */
function withoutImage(memory: SimulatedMemory): SimulatedMemory {
  const lost = memory.crash(() => true)
  const superblock = superblockOf(lost)
  scribble(lost, slotOffset(superblock, superblock.checkpoint.slot) + 4096, 20_000)
  return lost
}

t.test('what the older image needs stays until the next checkpoint', async (t) => {
  for (const mode of ['cacheline', 'page'] as const) {
    const memory = new SimulatedMemory(SIZE, mode)
    format(memory, { label: '', uid: 0, gid: 0, now: 1 })
    let { filesystem } = mount(memory)
    let files = 0
    const addOne = async () => {
      addFiles(filesystem, files, ++files)
      await filesystem.fsync(1, false)
    }
    const mountAgain = async () => {
      await filesystem.unmount()
      filesystem = mount(memory).filesystem
    }
    const check = async (moment: string) => {
      const lost = withoutImage(memory)
      t.same(repair(t, lost, ['checkpoint-damaged']).left, [], moment)
      t.equal(await survivors(lost), files, `${mode}: ${moment}`)
    }
    const steps = {
      'the first file after mkfs': addOne,
      'the first unmount': async () => {
        for (let i = 0; i < 5; i++) await addOne()
        await mountAgain()
      },
      'one more file': addOne,
      'one more unmount': mountAgain,
      'one more file in the first half': addOne,
      'a checkpoint': () => filesystem.administration.checkpoint(),
      'another one, nothing between': () => filesystem.administration.checkpoint(),
      'a file behind both': addOne,
      'an unmount, then one with nothing done': async () => {
        await mountAgain()
        await mountAgain()
      },
      'a file behind these': addOne,
      'the last unmount': () => filesystem.unmount(),
    }
    for (const [moment, step] of Object.entries(steps)) {
      await step()
      await check(moment)
    }
    t.equal(files, 10)
  }
})

t.test('page memory: a commit while a checkpoint is written costs no reach', async (t) => {
  const memory = new SimulatedMemory(SIZE, 'page')
  format(memory, { label: '', uid: 0, gid: 0, now: 1 })
  const { filesystem } = mount(memory)
  addFiles(filesystem, 0, 5)
  // Its mark is the only record in the new half when the checkpoint is complete.
  const commit = filesystem.fsync(1, false)
  await Promise.all([commit, filesystem.administration.checkpoint()])
  t.equal(filesystem.volume.journal.used, 64)
  addFiles(filesystem, 5, 8)
  await filesystem.fsync(1, false)
  const lost = withoutImage(memory)
  await filesystem.unmount()
  t.same(repair(t, lost, ['checkpoint-damaged']).left, [])
  t.equal(await survivors(lost), 8)
})

/** Power failed while a checkpoint was written: file 0 has mode 600 in one half, 1 in the other. */
async function crashedInCheckpoint(): Promise<SimulatedMemory> {
  const memory = new SimulatedMemory(SIZE)
  format(memory, { label: '', uid: 0, gid: 0, now: 1 })
  const { filesystem } = mount(memory)
  addFiles(filesystem, 0, 5)
  await filesystem.administration.checkpoint()
  makePrivate(filesystem, 0)
  const checkpoint = filesystem.administration.checkpoint()
  makePrivate(filesystem, 1)
  const crashed = memory.crash()
  await checkpoint
  await filesystem.unmount()
  return crashed
}

/** Leaves no trace in anything else, so that nobody can see that it is missing. */
function makePrivate(filesystem: Filesystem, file: number): void {
  filesystem.setattr(filesystem.lookup(1, name(file)).ino, { mode: 0o600 }, CALLER)
}

t.test('a checkpoint that could not switch: the older image needs both halves', async (t) => {
  const memory = await crashedInCheckpoint()
  const { filesystem } = mount(memory)
  const checkpoint = filesystem.administration.checkpoint()
  makePrivate(filesystem, 2)
  await checkpoint
  const lost = withoutImage(memory)
  await filesystem.unmount()
  t.same(repair(t, lost, ['checkpoint-damaged']).left, [])
  const repaired = mount(lost).filesystem
  const modes = [0, 1, 2, 3].map((file) => repaired.lookup(1, name(file)).mode & 0o777)
  t.same(modes, [0o600, 0o600, 0o600, 0o644], 'not the shortest way that seems to fit')
  await repaired.unmount()
})

t.test('an image whose records are gone is not taken for a later one', async (t) => {
  const memory = await crashedInCheckpoint()
  // The checkpoint at the unmount cannot switch, and then the first half is overwritten.
  await mount(memory).filesystem.unmount()
  const { filesystem } = mount(memory)
  makePrivate(filesystem, 2)
  const lost = withoutImage(memory)
  await filesystem.unmount()
  const found = look(lost)
  t.same(codes(found), ['checkpoint-damaged'])
  t.notOk(needsRepair(lost, found), 'file 0 would not be private')
})

t.test('nor is one whose first record is damaged', async (t) => {
  const memory = new SimulatedMemory(SIZE)
  format(memory, { label: '', uid: 0, gid: 0, now: 1 })
  const { filesystem } = mount(memory)
  addFiles(filesystem, 0, 5)
  await filesystem.administration.checkpoint()
  makePrivate(filesystem, 0)
  makePrivate(filesystem, 1)
  const offset = recordOffset(memory, 1)
  await filesystem.unmount()
  const again = mount(memory).filesystem
  const lost = withoutImage(memory)
  await again.unmount()
  t.ok(needsRepair(lost, look(lost)))
  scribble(lost, offset + 70, 4)
  t.notOk(needsRepair(lost, look(lost)), 'file 0 would not be private')
})

t.test('both images lost are beyond repair', async (t) => {
  const memory = await populated(true)
  const superblock = superblockOf(memory)
  for (const slot of [0, 1] as const) scribble(memory, slotOffset(superblock, slot) + 4096, 20_000)
  const found = look(memory)
  t.same(codes(found), ['checkpoint-damaged'])
  t.notOk(needsRepair(memory, found))
})

t.test('a shutdown after a metadata failure is cleared when the memory works again', async (t) => {
  const places = {
    superblock: () => 0,
    backup: () => SIZE - BLOCK_SIZE,
    journal: (superblock: Superblock) => superblock.geometry.journal[0].offset,
    checkpoint: (superblock: Superblock) => slotOffset(superblock, superblock.checkpoint.slot),
  }
  for (const [place, offsetOf] of Object.entries(places)) {
    for (const real of [false, true]) {
      const memory = new SimulatedMemory(SIZE)
      format(memory, { label: '', uid: 0, gid: 0, now: 1 })
      const { device, filesystem } = mount(memory)
      addFiles(filesystem, 0, FILES)
      const offset = offsetOf(filesystem.volume.superblock)
      if (real) memory.poison(offset, BLOCK_SIZE)
      t.ok(device.memoryFailure(offset, BLOCK_SIZE) < 0, `${place}: not taken lightly`)
      await filesystem.unmount()
      t.throws(() => mount(memory), /run fsck/)
      const stays = real && (place === 'superblock' || place === 'backup')
      const unreadable = stays ? ['superblock-unreadable'] : []
      // What was on the page is not known, but it was all in the emergency checkpoint.
      const journal = real && place === 'journal' ? ['journal-damaged'] : []
      const { actions, left } = repair(t, memory, [...unreadable, 'shutdown', ...journal])
      t.ok(actions.includes('shutdown'))
      t.equal(actions.includes('poison'), !real)
      t.same(left, unreadable, `${place}, ${real ? 'bad' : 'good'} memory`)
      t.equal(await survivors(memory), FILES)
    }
  }
})

t.test('an index that contradicts itself is put right', async (t) => {
  const memory = await populated(true)
  damageIndex(memory, ({ database }) => {
    database.exec(`UPDATE inode SET nlink = 7, blocks = 9 WHERE ino > 1;
      UPDATE free SET blocks = blocks - 3;
      INSERT INTO dirent VALUES(1, 16, x'78', 12345, 8)`)
  })
  const each = (code: string) => Array.from({ length: FILES }, () => code)
  const found = ['dirent-dangling', ...each('link-count'), ...each('inode-blocks'), 'space-lost']
  const { left, safe, actions } = repair(t, memory, found)
  t.notOk(safe, 'a name was lost')
  t.ok(actions.includes('dirent-removed'))
  t.same(left, [])
  t.equal(await survivors(memory), FILES)
})

t.test('a filesystem that stays wrong stays shut down', async (t) => {
  const memory = new SimulatedMemory(SIZE)
  format(memory, { label: '', uid: 0, gid: 0, now: 1 })
  const { filesystem } = mount(memory)
  addFiles(filesystem, 0, FILES)
  filesystem.administration.shutdown('test')
  await filesystem.unmount()
  const superblock = superblockOf(memory)
  for (const slot of [0, 1] as const) scribble(memory, slotOffset(superblock, slot) + 4096, 20_000)
  const found = look(memory)
  t.same(codes(found), ['shutdown', 'checkpoint-damaged'])
  t.notOk(found.problems.some((problem) => problem.fixable))
  t.notOk(needsRepair(memory, found))
  t.throws(() => mount(memory), /run fsck/)
})

t.test('power fails during a repair: it can be done again', async (t) => {
  const memory = await populated(false)
  scribble(memory, 100, 8)
  const crashes: SimulatedMemory[] = []
  memory.onPersist = () =>
    crashes.push(
      memory.crash(),
      memory.crash((line) => line % 3 === 0),
    )
  repairRegion(memory, look(memory), { now: 1 })
  for (const crashed of crashes) {
    const found = look(crashed)
    if (needsRepair(crashed, found)) repairRegion(crashed, found, { now: 1 })
    t.same(codes(look(crashed)), [])
  }
  t.ok(crashes.length > 4)
  t.equal(await survivors(crashes.at(-1)!), FILES)
  t.equal(await survivors(crashes[0]!), FILES)
})

/** Two files of ten blocks; the second one claims the last six of the first one's as well. */
async function overlapping(): Promise<{ memory: SimulatedMemory; first: number; second: number }> {
  const memory = new SimulatedMemory(SIZE)
  format(memory, { label: '', uid: 0, gid: 0, now: 1 })
  const { filesystem } = mount(memory)
  const inodes = ['first', 'second'].map((text, at) => {
    const handle = filesystem.create(1, Buffer.from(text), 0o644, 2, CALLER)
    filesystem.write(handle, 0, Buffer.alloc(40_960, 65 + at), 0, 40_960, WRITE)
    return handle.ino
  })
  await filesystem.unmount()
  const [first, second] = inodes as [number, number]
  damageIndex(memory, ({ database }) => {
    database.exec(`UPDATE inode SET mtime = mtime + 10 WHERE ino = ${second};
      UPDATE rmap SET block = (SELECT block + 4 FROM rmap WHERE owner = ${first})
      WHERE owner = ${second}`)
  })
  return { memory, first, second }
}

function contents(memory: SimulatedMemory, file: string): (string | number)[] {
  const { filesystem } = mount(memory)
  const { ino, size } = filesystem.lookup(1, Buffer.from(file))
  const handle = filesystem.open(ino, 0, false)
  const found = Array.from({ length: size / BLOCK_SIZE }, (_, block) => {
    const bytes = Buffer.alloc(BLOCK_SIZE)
    try {
      filesystem.readInto(handle, block * BLOCK_SIZE, bytes, 0, BLOCK_SIZE)
      return bytes[0] ?? 0
    } catch {
      return 'EIO'
    }
  })
  filesystem.unmount().catch(() => {})
  return found
}

t.test('two files that claim the same blocks are both kept', async (t) => {
  for (const overlap of ['zero', 'quarantine'] as const) {
    const { memory, first, second } = await overlapping()
    const before = look(memory)
    t.ok(codes(before).includes('extent-shared'))
    t.notOk(onlySafe(before), 'not without being asked')
    const messages = repairRegion(memory, before, { now: 1, overlap }).map(({ message }) => message)
    const told = new RegExp(`inode ${first}: 24576 bytes at 16384 .*inode ${second} keeps`)
    t.ok(
      messages.some((message) => told.test(message)),
      'the loser and its range are named',
    )
    const after = look(memory)
    t.same(codes(after), [])
    t.notOk(needsRepair(memory, after))
    const lost = overlap === 'zero' ? 0 : 'EIO'
    t.same(contents(memory, 'first'), [65, 65, 65, 65, lost, lost, lost, lost, lost, lost], overlap)
    t.equal(contents(memory, 'second').length, 10)
    const bad = overlap === 'zero' ? [] : [{ path: '/first', fileOffset: 16384, length: 24576 }]
    t.match(look(memory).badFiles, bad)
    t.equal(look(memory).badFiles.length, bad.length)
  }
})

t.test('the plan is what a repair does, and writes nothing', async (t) => {
  for (const damage of [
    'UPDATE inode SET nlink = 7, blocks = 9 WHERE ino > 1; UPDATE free SET blocks = blocks - 3',
    'DELETE FROM dirent WHERE ino > 20; UPDATE inode SET mode = 0 WHERE ino > 22',
  ]) {
    const memory = await populated(true)
    damageIndex(memory, ({ database }) => database.exec(damage))
    const untouched = Buffer.alloc(SIZE)
    memory.read(0, untouched, 0, SIZE)
    const plan = planRepair(memory, look(memory), { now: 1 })
    const now = Buffer.alloc(SIZE)
    memory.read(0, now, 0, SIZE)
    t.ok(now.equals(untouched), 'nothing is written')
    t.ok(plan.actions.length > 1)
    t.same(repairRegion(memory, look(memory), { now: 1 }), plan.actions)
    t.same(codes(look(memory)), [])
  }
})

t.test('a slot in too many pieces gets other units', async (t) => {
  const size = 512 * 1024 * 1024
  const memory = new SimulatedMemory(size)
  format(memory, { label: '', uid: 0, gid: 0, now: 1 })
  const { filesystem } = mount(memory)
  addFiles(filesystem, 0, FILES)
  await filesystem.unmount()
  const superblock = superblockOf(memory)
  // Every other unit from the middle on, until the list is full; then an image that needs more.
  const units = Array.from({ length: 64 }, (_, at) => ({
    block: (128 + 2 * at) * BLOCKS_PER_UNIT,
    blocks: BLOCKS_PER_UNIT,
  }))
  const { index } = look(memory).salvaged!
  for (const unit of units) {
    index.freeSpace.allocate(unit.block, unit.blocks)
    index.rmap.put({ ...unit, owner: OWNER_CHECKPOINT, fileBlock: 0, flags: 0 })
  }
  fillIndex(index)
  const actions = new Actions()
  const context: RepairContext = {
    ...{ index, geometry: superblock.geometry, actions, slots: [units, []] },
    ...{ now: 1, overlap: 'zero', zeroed: [], sequence: 100 },
  }
  const { slots, roomy } = arrangeSlots(context, memory, 0)
  t.ok(roomy)
  const [slot] = slots
  const capacity = slot.reduce((sum, { blocks }) => sum + blocks, 0) * BLOCK_SIZE
  t.ok(slot.length <= 64, `${slot.length} pieces`)
  t.ok(capacity >= index.imageSize(), 'the image fits')
  t.ok(actions.list().some(({ kind }) => kind === 'slot-moved'))
})

/** Larger than 64 units. */
function fillIndex({ database }: Index): void {
  const insert = database.prepare('INSERT INTO xattr VALUES (1, ?, zeroblob(1048576))')
  for (let at = 0; at < 130; at++) insert.run(Buffer.from(`big${at}`))
}
