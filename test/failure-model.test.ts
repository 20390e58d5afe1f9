/**
 * Random operations while memory fails do what the model of failures says, on a mount and on the
 * core: slices of `npm run test:model`. And what those runs have found.
 */
import t from 'tap'
import { checkIndex } from '../src/fs/check/check.ts'
import { FsError } from '../src/fs/errors.ts'
import type { Filesystem } from '../src/fs/filesystem.ts'
import type { Handle } from '../src/fs/handles.ts'
import { CoreSubject } from './oracle/core-subject.ts'
import { compareWithModel } from './oracle/failures.ts'
import { KINDS, rerunOf } from './oracle/kinds.ts'
import type { Step } from './oracle/steps.ts'
import { scratchFilesystem } from './support/core.ts'
import { cannotMount, lacks } from './support/mounts.ts'

const BLOCK = 4096
const OPERATIONS = { failures: 1000, core: 2000 }
const CORE_SEEDS = [5, 22]

const skip = cannotMount() || lacks('python3')
for (const mode of KINDS.failures.modes) {
  t.test(`a mount whose memory fails does as the model (${mode})`, { skip }, async (t) => {
    const seed = Number(process.env.HOLDFAST_SEED ?? 1)
    const wrong = await KINDS.failures.run(mode, seed, OPERATIONS.failures)
    t.equal(wrong, undefined, rerunOf('failures', mode, seed, OPERATIONS.failures))
  })
}

for (const mode of KINDS.core.modes) {
  t.test(`the core, whose memory fails, does as the model (${mode})`, async (t) => {
    for (const seed of CORE_SEEDS) {
      const wrong = await KINDS.core.run(mode, seed, OPERATIONS.core)
      t.equal(wrong, undefined, rerunOf('core', mode, seed, OPERATIONS.core))
    }
  })
}

type Instead = (step: Step, perform: (step: Step) => Promise<string>) => Promise<string>

/** A core that does some steps otherwise. */
class FaultySubject extends CoreSubject {
  readonly #instead: Instead

  constructor(instead: Instead) {
    super('cacheline')
    this.#instead = instead
  }

  override perform(step: Step): Promise<string> {
    return this.#instead(step, (real) => super.perform(real))
  }
}

const FAULTS: Record<string, Instead> = {
  'a failure that nobody is told of': async (step, perform) =>
    step.do === 'fail' ? `data ${step.ino}` : perform(step),
  'a failure that kills the wrong file': async (step, perform) =>
    perform(step.do === 'fail' ? { ...step, ino: Math.max(2, step.ino - 1) } : step),
  'poison that a punched hole does not heal': async (step, perform) =>
    perform(step.do === 'punch' ? { ...step, length: 1 } : step),
  'clear-poison that clears nothing': async (step, perform) =>
    step.do === 'heal-all' || step.do === 'heal' ? 'ok 4096' : perform(step),
}

for (const [name, instead] of Object.entries(FAULTS)) {
  t.test(`the model finds out ${name}`, async (t) => {
    const wrong = await compareWithModel(new FaultySubject(instead), 1, OPERATIONS.core)
    t.match(wrong, /operation \d+: /)
  })
}

const caller = { uid: 0, gid: 0, pid: 1, umask: 0 }
const plain = { cached: false, killPrivileges: false, append: false }

function make(fs: Filesystem, name: string): Handle {
  return fs.create(1, Buffer.from(name), 0o600, 2, caller)
}

function put(fs: Filesystem, file: Handle, offset: number, bytes: Buffer): number {
  return fs.write(file, offset, bytes, 0, bytes.length, plain)
}

function get(fs: Filesystem, file: Handle, offset: number, length: number): Buffer {
  const bytes = Buffer.alloc(length)
  return bytes.subarray(0, fs.readInto(file, offset, bytes, 0, length))
}

/** Memory of a block of the file fails; returns a living handle. */
function failBlock(fs: Filesystem, file: Handle, block: number): Handle {
  const target = { kind: 'file', inode: file.ino, fileOffset: block * BLOCK } as const
  fs.administration.inject({ target, length: BLOCK, method: 'soft' })
  return fs.open(file.ino, 2, false)
}

function problemsOf({ volume }: Filesystem): string[] {
  const { index, geometry, superblock } = volume
  return checkIndex(index.database, geometry, superblock).map(({ message }) => message)
}

t.test('a copy is short where it meets failed memory, and within one file', async (t) => {
  const { fs } = scratchFilesystem(32 * 2 ** 20, 'cacheline')
  const dead = make(fs, 'source')
  put(fs, dead, 0, Buffer.alloc(3 * BLOCK, 'a'))
  const source = failBlock(fs, dead, 1)
  const target = make(fs, 'target')
  t.equal(fs.copyFileRange(source, 0, target, 0, 3 * BLOCK), BLOCK)
  t.same(get(fs, target, 0, 3 * BLOCK), Buffer.alloc(BLOCK, 'a'))
  t.throws(() => fs.copyFileRange(source, BLOCK, target, 0, BLOCK), FsError)
  t.equal(fs.copyFileRange(target, 0, target, 3 * BLOCK, 3 * BLOCK), BLOCK, 'not what it appends')
  await fs.unmount()
})

t.test('a write that fails half way leaves the index as it was', async (t) => {
  const { fs } = scratchFilesystem(32 * 2 ** 20, 'cacheline')
  const dead = make(fs, 'file')
  put(fs, dead, BLOCK, Buffer.alloc(BLOCK, 'a'))
  fs.fallocate(dead, 0, 0, BLOCK)
  const file = failBlock(fs, dead, 1)
  // The unwritten block in front becomes data, then the failed one refuses its part.
  t.throws(() => put(fs, file, 0, Buffer.alloc(BLOCK + 100, 'b')), FsError)
  t.same(get(fs, file, 0, BLOCK), Buffer.alloc(BLOCK))
  fs.fallocate(file, 3, 0, 2 * BLOCK)
  t.same(problemsOf(fs), [])
  await fs.unmount()
})

t.test('fsync of a living handle does not mind a dead one beside it', async (t) => {
  const { fs } = scratchFilesystem(32 * 2 ** 20, 'page')
  const dead = make(fs, 'file')
  put(fs, dead, 0, Buffer.alloc(2 * BLOCK, 'a'))
  const file = failBlock(fs, dead, 0)
  put(fs, file, BLOCK, Buffer.alloc(BLOCK, 'b'))
  await t.resolves(fs.fsync(file.ino, false))
  await fs.unmount()
})
