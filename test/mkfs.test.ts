import { spawn, spawnSync } from 'node:child_process'
import {
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readFileSync,
  readSync,
  statSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { t } from 'tap'
import { format } from '../mkfs/format.ts'
import { createRegion } from '../mkfs/region.ts'
import { openTarget } from '../mkfs/target.ts'
import { openDevice } from '../src/dax/device.ts'
import { fsDaxGet } from '../src/dax/holder.ts'
import { SimulatedMemory } from '../src/dax/simulated-memory.ts'
import { checkIndex } from '../src/fs/check/check.ts'
import { Index } from '../src/index/index.ts'
import { crc32c } from '../src/media/checksum.ts'
import { BLOCK_SIZE, BLOCKS_PER_UNIT, UNIT_SIZE } from '../src/media/geometry.ts'
import { readSuperblocks, requireSuperblock } from '../src/media/superblock.ts'

const MIB = 1024 * 1024
const PROGRAM = fileURLToPath(new URL('../mkfs/mkfs.holdfast.mjs', import.meta.url))
const OPTIONS = { label: 'test', uid: 7, gid: 8, now: 1_700_000_000 }

function mkfs(...args: string[]): { status: number | null; out: string; err: string } {
  const { status, stdout, stderr } = spawnSync(PROGRAM, args, { encoding: 'utf8', timeout: 60_000 })
  return { status, out: stdout, err: stderr }
}

/** Bytes of [offset, offset + length) of a file; a region is too large to read whole. */
function bytesAt(path: string, offset: number, length: number): Buffer {
  const fd = openSync(path, 'r')
  const bytes = Buffer.alloc(length)
  readSync(fd, bytes, 0, length, offset)
  closeSync(fd)
  return bytes
}

function put(path: string, offset: number, bytes: Uint8Array): void {
  const fd = openSync(path, 'r+')
  writeSync(fd, bytes, 0, bytes.length, offset)
  closeSync(fd)
}

/** Throws unless the memory holds a whole, healthy filesystem; returns its uuid. */
function requireWhole(memory: Pick<SimulatedMemory, 'read' | 'size'> & SimulatedMemory): string {
  const superblock = requireSuperblock(readSuperblocks(memory))
  const { slot, length, crc } = superblock.checkpoint
  const image = Buffer.alloc(length)
  memory.read(superblock.slots[slot][0]!.block * BLOCK_SIZE, image, 0, length)
  if (crc32c(image, 0, length) !== crc) throw new Error('the image is damaged')
  const index = Index.open(image)
  const problems = checkIndex(index.database, superblock.geometry, superblock, { sequence: 16 })
  index.close()
  if (problems.length > 0) throw new Error(JSON.stringify(problems))
  return superblock.uuid
}

t.test('a file is made: private, sparse, and a filesystem', (t) => {
  const region = join(t.testdir(), 'region')
  const made = mkfs('--size', '256M', '-L', 'grüße', '--json', region)
  t.match(made, { status: 0, err: '' })
  const summary = JSON.parse(made.out)
  t.match(summary, {
    label: 'grüße',
    region,
    regionSize: 256 * MIB,
    blockSize: 4096,
    blocks: 65536,
  })
  t.equal(summary.journalSize, 4 * MIB)
  t.equal(summary.usable, (256 - 2 - 4 - 4 - 2) * MIB)
  const stats = statSync(region)
  t.equal(stats.mode & 0o7777, 0o600)
  t.equal(stats.size, 256 * MIB)
  t.ok(stats.blocks * 512 < MIB, 'sparse')
  const device = openDevice(region, { readOnly: true })
  const superblock = requireSuperblock(readSuperblocks(device.memory))
  t.match(superblock, { uuid: summary.uuid, state: 'clean', epoch: 0, poison: [] })
  t.match(superblock.checkpoint, { slot: 0, sequence: 16 })
  device.close()
  t.end()
})

t.test('the layout is what SPEC.md says', (t) => {
  const memory = new SimulatedMemory(32 * MIB)
  const superblock = format(memory, OPTIONS)
  t.same(superblock.slots, [
    [{ block: 3 * BLOCKS_PER_UNIT, blocks: BLOCKS_PER_UNIT }],
    [{ block: 4 * BLOCKS_PER_UNIT, blocks: BLOCKS_PER_UNIT }],
  ])
  const magic = Buffer.alloc(8)
  for (const copy of [0, 32 * MIB - BLOCK_SIZE]) {
    memory.read(copy + 8, magic, 0, 8)
    t.equal(magic.toString(), 'HOLDFAST')
  }
  const image = Buffer.alloc(superblock.checkpoint.length)
  memory.read(3 * UNIT_SIZE, image, 0, image.length)
  const { database } = Index.open(image)
  const rows = (table: string) => database.prepare(`SELECT * FROM ${table}`).raw().all()
  t.same(rows('rmap'), [
    [0, 512, -1, 0, 0],
    [512, 512, -2, 0, 0],
    [1024, 512, -2, 512, 0],
    [1536, 512, -3, 0, 0],
    [2048, 512, -3, 0, 0],
    [7680, 512, -1, 512, 0],
  ])
  t.same(rows('free'), [[2560, 5120]])
  for (const table of ['dirent', 'xattr', 'poison']) t.same(rows(table), [])
  const now = OPTIONS.now
  const times = [now, 0, now, 0, now, 0, now, 0]
  t.same(rows('inode'), [[1, 0o040755, 7, 8, 2, 0, 0, 0, 0, 1, ...times, null]])
  t.end()
})

t.test('what must not be overwritten is refused, untouched', (t) => {
  const dir = t.testdir({ small: 'text', directory: {} })
  const at = (name: string) => join(dir, name)
  const refused = (args: string[], status: number, sentence: RegExp) => {
    const result = mkfs(...args)
    t.equal(result.status, status, args.join(' '))
    t.match(result.err, sentence)
    t.match(result.err, /^mkfs\.holdfast: [^\n]*\n$|^error: [^\n]*\n$/, 'one line')
    t.equal(result.out, '')
  }
  refused([at('none')], 1, /does not exist: give its size/)
  refused(['--size', '16M', at('none')], 1, /too small, the minimum is 32 MiB/)
  t.notOk(existsSync(at('none')), 'not made to be refused')
  refused([at('small')], 1, /too small, the minimum is 32 MiB/)
  t.equal(readFileSync(at('small'), 'utf8'), 'text')
  refused([at('directory')], 1, /is a directory/)
  refused(['/dev/null'], 1, /not a DAX device/)
  refused(['--size', '32X', at('none')], 2, /not a size/)
  refused(['--size', '32M', '-L', 'x'.repeat(65), at('none')], 2, /65 bytes, at most 64/)
  refused(['--size', '32M', '-L', 'ü'.repeat(33), at('none')], 2, /66 bytes, at most 64/)
  refused(['--frobnicate', at('none')], 2, /unknown option/)
  refused([], 2, /missing required argument/)
  refused(['--size', '32M', join(dir, 'no', 'such', 'place')], 1, /no such/i)
  t.end()
})

t.test('every known filesystem is refused, and destroyed with --force', (t) => {
  const dir = t.testdir()
  const signatures: readonly [name: RegExp, offset: number, bytes: Buffer][] = [
    [/famfs/, 0, Buffer.from('ff82b28700000000', 'hex')],
    [/ext4/, 0x438, Buffer.from('53ef', 'hex')],
    [/XFS/, 0, Buffer.from('XFSB')],
    [/Btrfs/, 0x10040, Buffer.from('_BHRfS_M')],
    [/SquashFS/, 0, Buffer.from('hsqs')],
    [/swap/, 4086, Buffer.from('SWAPSPACE2')],
    [/LUKS/, 0, Buffer.from('LUKS\xba\xbe', 'latin1')],
    [/GUID/, 512, Buffer.from('EFI PART')],
    [/partition table/, 510, Buffer.from('55aa', 'hex')],
    [/holdfast/, 8, Buffer.from('HOLDFAST')],
    [/holdfast/, 32 * MIB - 4096 + 8, Buffer.from('HOLDFAST')],
  ]
  signatures.forEach(([name, offset, bytes], i) => {
    const region = join(dir, `region${i}`)
    writeFileSync(region, '')
    truncateSync(region, 32 * MIB)
    put(region, offset, bytes)
    const result = mkfs(region)
    t.equal(result.status, 1, String(name))
    t.match(result.err, name)
    t.match(result.err, /--force/)
    t.same(bytesAt(region, offset, bytes.length), bytes, 'untouched')
    if (i % 4 === 0) t.equal(mkfs('--force', region).status, 0)
  })
  t.end()
})

t.test('a file grows with --size, and shrinks only with --force', (t) => {
  const region = join(t.testdir({ region: '' }), 'region')
  t.match(mkfs(region), { status: 1, err: /too small/ })
  t.match(mkfs('--size', '64M', region), { status: 0 }, 'an empty file is like none')
  t.match(mkfs('--size', '128M', region), { status: 1, err: /holds a holdfast/ })
  t.equal(statSync(region).size, 64 * MIB)
  t.match(mkfs('--size', '48M', region), { status: 1, err: /will not shrink/ })
  t.match(mkfs('--size', '128M', '--force', region), { status: 0 })
  t.equal(statSync(region).size, 128 * MIB)
  t.same(bytesAt(region, 64 * MIB - 4096, 4096), Buffer.alloc(4096), 'the old backup is gone')
  t.match(mkfs('--size', '33M', '--force', region), { status: 0 })
  const device = openDevice(region, { readOnly: true })
  t.equal(requireSuperblock(readSuperblocks(device.memory)).geometry.size, 32 * MIB, 'whole units')
  device.close()
  t.end()
})

/** A file of 32 MiB that is to stay as it is, and whether it has. */
function keptFile(dir: string, name: string) {
  const path = join(dir, name)
  writeFileSync(path, Buffer.alloc(32 * MIB, name))
  const kept = () => readFileSync(path).equals(Buffer.alloc(32 * MIB, name))
  return { path, kept }
}

t.test('bad memory is refused before --size changes the file', (t) => {
  const { path, kept } = keptFile(t.testdir(), 'region')
  const open = (bad: number) => (opened: string) => {
    const device = openDevice(opened)
    device.badRanges.add(bad, BLOCK_SIZE)
    return device
  }
  for (const size of [32 * MIB, 48 * MIB, 64 * MIB]) {
    const options = { size, force: true, open: open(0) }
    t.throws(() => openTarget(path, options), { message: /^superblock at region offset 0: .*bad/ })
    t.ok(kept(), `${size} bytes`)
  }
  // There was the backup superblock; with the new size it is elsewhere.
  const { device } = openTarget(path, { size: 64 * MIB, force: true, open: open(32 * MIB - 4096) })
  t.equal(device.size, 64 * MIB)
  device.close()
  t.equal(statSync(path).size, 64 * MIB)
  const shrink = { size: 32 * MIB, force: true, open: open(48 * MIB) }
  openTarget(path, shrink).device.close()
  t.equal(statSync(path).size, 32 * MIB, 'what is bad behind its end does not matter')
  t.end()
})

t.test('whatever else is refused: no file is made, none resized', (t) => {
  const dir = t.testdir()
  const [free, taken] = [keptFile(dir, 'free'), keptFile(dir, 'taken')]
  put(taken.path, 8, Buffer.from('HOLDFAST'))
  const before = statSync(taken.path).mtimeMs
  const fresh = join(dir, 'fresh')
  const refused = (args: string[], sentence: RegExp) => {
    t.match(mkfs('--size', '64M', ...args), { status: 1, err: sentence })
    t.ok(free.kept(), args.join(' '))
    t.equal(statSync(taken.path).mtimeMs, before)
    t.notOk(existsSync(fresh))
  }
  refused(['--linear', free.path, fresh, taken.path], /holds a holdfast filesystem/)
  refused(['--striped', '--chunk', '1M', free.path, fresh], /--chunk must be a multiple/)
  refused(['--striped', '--chunk', '64M', free.path, fresh], /too small for a chunk/)
  refused(['--linear', free.path, join(dir, 'no', 'such', 'place')], /no such/i)
  refused(['--linear', fresh, fresh], /is named twice/)
  const region = { size: 64 * MIB, align: 1 << 30, isStatic: false, force: false }
  t.throws(() => createRegion(free.path, region), { message: /needs at least/ })
  t.ok(free.kept(), 'a region')
  t.end()
})

t.test('a file that was resized is claimed', (t) => {
  const { path } = keptFile(t.testdir(), 'region')
  const target = openTarget(path, { size: 64 * MIB, force: true })
  t.match(mkfs('--force', path), { status: 1, err: /in use: .*mkfs/ })
  target.device.close()
  t.match(mkfs('--force', path), { status: 0 })
  t.end()
})

t.test('a region in use is refused, by whatever name, also with --force', (t) => {
  const dir = t.testdir()
  const region = join(dir, 'region')
  t.equal(mkfs('--size', '32M', region).status, 0)
  symlinkSync(region, join(dir, 'link'))
  const before = bytesAt(region, 0, 4096)
  const device = openDevice(region)
  fsDaxGet(device, { purpose: 'mount', mountpoint: '/mnt/somewhere' })
  for (const path of [region, join(dir, 'link')]) {
    const result = mkfs('--force', '--size', '64M', path)
    t.equal(result.status, 1)
    t.match(result.err, /in use.*\/mnt\/somewhere/)
    t.match(result.err, String(process.pid))
  }
  t.same(bytesAt(region, 0, 4096), before)
  t.equal(statSync(region).size, 32 * MIB)
  device.close()
  t.equal(mkfs('--force', region).status, 0, 'and free again')
  t.end()
})

t.test('power fails at every moment: the old filesystem, none, or the new one', (t) => {
  for (const mode of ['cacheline', 'page'] as const) {
    const memory = new SimulatedMemory(32 * MIB, mode)
    const old = format(memory, OPTIONS).uuid
    const seen: string[] = []
    memory.onPersist = (point) => {
      for (const keep of [() => false, () => true, (line: number) => line % 2 === 0]) {
        seen.push(outcome(memory.crash(keep), old, `${mode}, persist point ${point}`))
      }
    }
    const now = format(memory, OPTIONS).uuid
    t.equal(requireWhole(memory), now)
    const order = seen.filter((what, i) => what !== seen[i - 1])
    t.equal(order[0], 'old')
    t.equal(order.at(-1), 'new')
    t.ok(order.indexOf('new') > order.lastIndexOf('old'), order.join(', '))
    t.ok(order.includes('none'))
  }
  t.end()

  function outcome(memory: SimulatedMemory, old: string, when: string): string {
    if (readSuperblocks(memory).best === undefined) return 'none'
    try {
      return requireWhole(memory) === old ? 'old' : 'new'
    } catch (error) {
      t.fail(`${when}: ${(error as Error).message}`)
      return 'half'
    }
  }
})

t.test('a killed mkfs leaves no filesystem and no claim', async (t) => {
  const dir = t.testdir()
  mkdirSync(join(dir, 'regions'))
  for (const step of ['erased', 'journal emptied', 'image written']) {
    const region = join(dir, 'regions', step)
    writeFileSync(region, '')
    truncateSync(region, 32 * MIB)
    const script = `
      import { format } from '${new URL('../mkfs/format.ts', import.meta.url)}'
      import { openTarget } from '${new URL('../mkfs/target.ts', import.meta.url)}'
      const { device } = openTarget(${JSON.stringify(region)}, { size: undefined, force: false })
      const onStep = (step) => { if (step === '${step}') process.kill(process.pid, 'SIGKILL') }
      format(device.memory, { ...${JSON.stringify(OPTIONS)}, onStep })`
    const child = spawn(process.execPath, ['--import=tsx', '--input-type=module', '-e', script])
    const signal = await new Promise((resolve) => child.on('exit', (_code, sig) => resolve(sig)))
    t.equal(signal, 'SIGKILL', step)
    const device = openDevice(region)
    t.equal(readSuperblocks(device.memory).best, undefined)
    device.close()
    t.equal(mkfs(region).status, 0, 'mkfs again needs no force')
  }
})
