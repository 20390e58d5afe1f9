/** One file against a plain buffer: random writes, truncates, allocations and remounts agree. */
import fc from 'fast-check'
import t from 'tap'
import { checkIndex } from '../src/fs/check/check.ts'
import type { Filesystem } from '../src/fs/filesystem.ts'
import type { Handle } from '../src/fs/handles.ts'
import { remount, scratchFilesystem } from './support/core.ts'

const MIB = 1024 * 1024
const SIZE_MAX = 3 * MIB
const caller = { uid: 0, gid: 0, pid: 1, umask: 0 }
const plain = { cached: false, killPrivileges: false, append: false }
const NAME = Buffer.from('file')

type Step =
  | { do: 'write'; offset: number; length: number; seed: number }
  | { do: 'truncate'; size: number }
  | { do: 'fallocate' | 'keep' | 'punch' | 'zero'; offset: number; length: number }
  | { do: 'copy'; from: number; to: number; length: number }
  | { do: 'remount' | 'checkpoint' | 'neighbour' }

const offset = fc.oneof(
  fc.integer({ min: 0, max: SIZE_MAX - MIB }),
  fc.integer({ min: 0, max: (SIZE_MAX - MIB) / 4096 }).map((block) => block * 4096),
)
const length = fc.oneof(
  fc.integer({ min: 1, max: 300_000 }),
  fc.integer({ min: 1, max: 8 }).map((blocks) => blocks * 4096),
)
const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({ do: fc.constant('write' as const), offset, length, seed: fc.nat(255) }),
  },
  { weight: 2, arbitrary: fc.record({ do: fc.constant('truncate' as const), size: offset }) },
  {
    weight: 4,
    arbitrary: fc.record({
      do: fc.constantFrom('fallocate' as const, 'keep' as const, 'punch' as const, 'zero' as const),
      offset,
      length,
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({ do: fc.constant('copy' as const), from: offset, to: offset, length }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      do: fc.constantFrom('remount' as const, 'checkpoint' as const, 'neighbour' as const),
    }),
  },
)

const MODES = { fallocate: 0, keep: 1, punch: 3, zero: 0x10 }

/** The model: bytes, and a size. */
class Model {
  bytes = Buffer.alloc(SIZE_MAX * 2)
  size = 0

  resize(size: number): void {
    this.bytes.fill(0, Math.min(size, this.size))
    this.size = size
  }
}

function apply(fs: Filesystem, file: Handle, model: Model, action: Step): void {
  switch (action.do) {
    case 'write': {
      const bytes = Buffer.alloc(action.length, action.seed || 1)
      fs.write(file, action.offset, bytes, 0, bytes.length, plain)
      bytes.copy(model.bytes, action.offset)
      model.size = Math.max(model.size, action.offset + action.length)
      break
    }
    case 'truncate':
      fs.setattr(file.ino, { size: action.size }, caller)
      model.resize(action.size)
      break
    case 'copy': {
      const { from, to, length: wanted } = action
      if (from < to + wanted && to < from + wanted) break
      const count = fs.copyFileRange(file, from, file, to, wanted)
      model.bytes.copy(model.bytes, to, from, from + count)
      if (count > 0) model.size = Math.max(model.size, to + count)
      break
    }
    case 'fallocate':
    case 'keep':
    case 'punch':
    case 'zero': {
      const end = action.offset + action.length
      fs.fallocate(file, MODES[action.do], action.offset, action.length)
      const clears = action.do === 'punch' || action.do === 'zero'
      if (clears) model.bytes.fill(0, action.offset, end)
      if (action.do === 'fallocate' || action.do === 'zero') model.size = Math.max(model.size, end)
      break
    }
    default: {
      const other = fs.create(1, Buffer.from('other'), 0o600, 2, caller)
      fs.write(other, 0, Buffer.alloc(50_000, 0xee), 0, 50_000, plain)
      fs.release(other)
      fs.unlink(1, Buffer.from('other'))
      fs.forget(other.ino, 1)
    }
  }
}

function contents(fs: Filesystem, file: Handle): Buffer {
  const bytes = Buffer.alloc(SIZE_MAX * 2)
  return bytes.subarray(0, fs.readInto(file, 0, bytes, 0, bytes.length))
}

async function agrees(steps: readonly Step[], mode: 'cacheline' | 'page'): Promise<void> {
  const scratch = scratchFilesystem(32 * MIB, mode)
  let { fs, memory } = scratch
  let file = fs.create(1, NAME, 0o600, 2, caller)
  const model = new Model()
  for (const action of steps) {
    if (action.do === 'checkpoint') await fs.administration.checkpoint()
    else if (action.do === 'remount') {
      await fs.fsync(file.ino, false)
      memory = memory.crash()
      fs = remount(memory)
      file = fs.open(fs.lookup(1, NAME).ino, 2, false)
    } else apply(fs, file, model, action)
    if (fs.getattr(file.ino).size !== model.size) throw new Error(`size after ${action.do}`)
    const expected = model.bytes.subarray(0, model.size)
    if (!contents(fs, file).equals(expected)) throw new Error(`bytes after ${action.do}`)
  }
  const { index, geometry, superblock } = fs.volume
  const problems = checkIndex(index.database, geometry, superblock)
  if (problems.length > 0) throw new Error(problems.map((problem) => problem.message).join('; '))
  await fs.unmount()
}

for (const mode of ['cacheline', 'page'] as const) {
  t.test(`a file agrees with its model over ${mode} memory`, async (t) => {
    const numRuns = Number(process.env.HOLDFAST_RUNS ?? 40)
    const property = fc.asyncProperty(fc.array(step, { minLength: 1, maxLength: 25 }), (steps) =>
      agrees(steps, mode),
    )
    await fc.assert(property, { numRuns })
    t.pass(`${numRuns} sequences`)
  })
}
