/** What docs/SECURITY.md says of regions from strangers, besides mounting and checking them. */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { openSimulated } from '../src/dax/device.ts'
import { MemoryFailure } from '../src/dax/memory.ts'
import type { SimulatedMemory } from '../src/dax/simulated-memory.ts'
import { FsError } from '../src/fs/errors.ts'
import type { Filesystem } from '../src/fs/filesystem.ts'
import { inspect } from '../src/fs/inspection.ts'
import { MediaError } from '../src/media/errors.ts'
import { BLOCK_SIZE } from '../src/media/geometry.ts'
import { readSuperblocks, requireSuperblock } from '../src/media/superblock.ts'
import { type DumpOptions, dump } from '../tools/dump.ts'
import { mountMemory } from './crash/mounting.ts'
import { mixSeeds } from './crash/random.ts'
import { applyMutations } from './fuzz/apply.ts'
import { copyOfBase } from './fuzz/bases.ts'
import { generate } from './fuzz/generate.ts'
import type { Mutation } from './fuzz/mutation.ts'
import { scratch } from './support/mounts.ts'

const SEED = 33
const IMAGES = 30
/** Of a processor; the machine may be busy. */
const HANGS_MS = 2000
const CALLER = { uid: 0, gid: 0, pid: 1, umask: 0 }

/** What it prints; the test's own output goes the same way. */
function dumped(region: string, options: DumpOptions): string {
  const { stdout, stderr } = process
  const before = [stdout.write, stderr.write] as const
  let text = ''
  stdout.write = ((chunk: string | Uint8Array) => {
    text += chunk.toString()
    return true
  }) as typeof stdout.write
  stderr.write = () => true
  try {
    dump(region, options)
  } finally {
    ;[stdout.write, stderr.write] = before
  }
  return text
}

/** A sentence of ours; whatever else is thrown was not foreseen. */
function isSentence(error: unknown): boolean {
  if (!(error instanceof Error) || error.message.includes('\n')) return false
  const ours = error instanceof MediaError || error instanceof MemoryFailure
  return ours || error.message.startsWith('there is no index to be had: ')
}

t.test('dump of regions that were tampered with: shown, or refused with a sentence', async (t) => {
  const directory = scratch('memory')
  const region = join(directory, 'region')
  const counts = { shown: 0, refused: 0 }
  for (let image = 0; image < IMAGES; image++) {
    const { base, mutations } = generate(mixSeeds(SEED, image))
    const memory = await copyOfBase(base)
    memory.unpoison(0, memory.size)
    // The memory of a file cannot be bad.
    const possible = mutations.filter(({ kind }) => kind !== 'poison')
    applyMutations(memory, possible)
    writeFileSync(region, bytesOf(memory, 0, memory.size))
    const what = `image ${image}: ${base} ${JSON.stringify(possible)}`
    const before = process.cpuUsage()
    for (const options of [
      { journal: true },
      { journal: true, json: true },
      { index: join(directory, `index${image}`), json: true },
    ]) {
      try {
        const text = dumped(region, options)
        if (options.json) JSON.parse(text)
        else t.ok(text.startsWith('primary superblock at 0\n'), what)
        counts.shown++
      } catch (error) {
        if (!isSentence(error)) t.fail(`${what}: ${(error as Error).stack}`)
        counts.refused++
      }
    }
    const { user, system } = process.cpuUsage(before)
    if (user + system > HANGS_MS * 1000) t.fail(`${what}: ${(user + system) / 1000} ms`)
  }
  t.ok(counts.shown > IMAGES && counts.refused > 0, JSON.stringify(counts))
})

function bytesOf(memory: SimulatedMemory, offset: number, length: number): Buffer {
  const bytes = Buffer.alloc(length)
  memory.read(offset, bytes, 0, length)
  return bytes
}

/** Both checkpoint slots, whole, and what the superblock says of the current one. */
function imagesOf(memory: SimulatedMemory, { volume }: Filesystem) {
  const { slots, checkpoint } = volume.superblock
  const ranges = slots.flat()
  const parts = ranges.map(({ block, blocks }) =>
    bytesOf(memory, block * BLOCK_SIZE, blocks * BLOCK_SIZE),
  )
  return { bytes: Buffer.concat(parts), where: JSON.stringify({ slots, checkpoint }) }
}

t.test('an index that turns out to be damaged is not saved over a good image', async (t) => {
  for (const damage of [
    'UPDATE inode SET mode = 7 WHERE ino > 1',
    'UPDATE rmap SET block = 8000, blocks = 900 WHERE owner > 0',
  ]) {
    const memory = await copyOfBase('clean')
    applyMutations(memory, [{ kind: 'sql', sql: damage }])
    const fs = mountMemory(memory)
    // Something that a checkpoint would have to save.
    fs.mkdir(1, Buffer.from('new'), 0o755, CALLER)
    const before = imagesOf(memory, fs)
    const use = () => {
      const { ino } = fs.lookup(1, Buffer.from('a-hard link'))
      fs.readInto(fs.open(ino, 0, false), 0, Buffer.alloc(4096), 0, 4096)
    }
    t.throws(use, FsError, damage)
    t.equal(fs.administration.status().state, 'shutdown', damage)
    await t.rejects(fs.administration.checkpoint(), FsError)
    await fs.unmount()
    const after = imagesOf(memory, fs)
    t.ok(after.bytes.equals(before.bytes), `${damage}: neither slot was written`)
    t.equal(after.where, before.where)
  }
})

/** What is wrong, and where. A row that only a look meets lies where its image does. */
const DAMAGE: readonly (readonly [Mutation, RegExp])[] = [
  [{ kind: 'sql', sql: 'UPDATE free SET blocks = -1' }, /^index at .* -1 blocks; /],
  [{ kind: 'sql', sql: 'DROP TABLE poison', loose: true }, /^checkpoint image at .* its tables /],
  [
    { kind: 'sql', sql: "UPDATE rmap SET file_block = 'x' WHERE owner > 0", loose: true },
    /^index at .* an extent of owner \d+ has /,
  ],
  [
    { kind: 'blind', structure: 'image', at: 0, hex: '0011' },
    /^checkpoint slot 0 at .* checksum; /,
  ],
  [{ kind: 'poison', structure: 'image', at: 0, pages: 1 }, /^failed memory at .* be read: /],
]

t.test('status and rmap of a damaged region: what is wrong, where, and what helps', async (t) => {
  for (const [damage, message] of DAMAGE) {
    const memory = await copyOfBase('clean')
    const { slots, checkpoint } = requireSuperblock(readSuperblocks(memory))
    const where = ` at region offset ${slots[checkpoint.slot][0]!.block * BLOCK_SIZE}: `
    applyMutations(memory, [damage])
    const said = sentenceOfLook(memory)
    t.match(said, message)
    t.ok(said?.includes(where), `${said}`)
    t.match(said, /\brun fsck\.holdfast --repair simulated$/)
  }
})

/** What `holdfast status` and `holdfast rmap` come upon. */
function sentenceOfLook(memory: SimulatedMemory): string | undefined {
  try {
    const inspection = inspect(openSimulated(memory))
    try {
      inspection.status()
      inspection.rmap(0, memory.size, Number.MAX_SAFE_INTEGER)
      return undefined
    } finally {
      inspection.close()
    }
  } catch (error) {
    return (error as Error).message
  }
}
