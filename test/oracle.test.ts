/** A mount, and the core, against tmpfs: the same random system calls give the same results. */
import t from 'tap'
import { EINVAL, FsError } from '../src/fs/errors.ts'
import { KINDS, rerunOf } from './oracle/kinds.ts'
import { scratchFilesystem } from './support/core.ts'
import { cannotMount, lacks, notRoot } from './support/mounts.ts'

const skip = cannotMount() || notRoot() || lacks('python3')
const OPERATIONS = 5000

for (const mode of KINDS.tmpfs.modes) {
  t.test(`as tmpfs does (${mode})`, { skip }, async (t) => {
    const seed = Number(process.env.HOLDFAST_SEED ?? 1)
    const difference = await KINDS.tmpfs.run(mode, seed, OPERATIONS)
    t.equal(difference, undefined, rerunOf('tmpfs', mode, seed, OPERATIONS))
  })
}

for (const mode of KINDS.names.modes) {
  t.test(`the core does as tmpfs does (${mode})`, { skip }, async (t) => {
    const seed = Number(process.env.HOLDFAST_SEED ?? 1)
    const difference = await KINDS.names.run(mode, seed, OPERATIONS)
    t.equal(difference, undefined, rerunOf('names', mode, seed, OPERATIONS))
  })
}

// What these runs have found.

const MIB = 2 ** 20
const caller = { uid: 0, gid: 0, pid: 1, umask: 0 }

function scratchFile() {
  const { fs } = scratchFilesystem(32 * MIB, 'page')
  return { fs, file: fs.create(1, Buffer.from('a'), 0o644, 2, caller) }
}

t.test('a file that grows keeps what was allocated behind its end', async (t) => {
  const { fs, file } = scratchFile()
  fs.fallocate(file, 1, 0, MIB)
  fs.setattr(file.ino, { size: 5000 }, caller)
  t.equal(fs.getattr(file.ino).blocks, MIB / 4096)
  fs.setattr(file.ino, { size: 5000 }, caller)
  t.equal(fs.getattr(file.ino).blocks, 2, 'as large as it is: what is behind goes')
  await fs.unmount()
})

t.test('a copy within a file ends with it, and need not meet itself', async (t) => {
  const { fs, file } = scratchFile()
  const options = { cached: false, killPrivileges: false, append: false }
  fs.write(file, 0, Buffer.alloc(10_000, 7), 0, 10_000, options)
  t.equal(fs.copyFileRange(file, 0, file, 12_288, 20_000), 10_000)
  const copied = Buffer.alloc(20_000)
  t.equal(fs.readInto(file, 12_288, copied, 0, 20_000), 10_000)
  t.same(copied.subarray(0, 10_000), Buffer.alloc(10_000, 7))
  t.throws(() => fs.copyFileRange(file, 0, file, 5000, 20_000), new FsError(EINVAL))
  t.equal(fs.copyFileRange(file, 50_000, file, 0, 100), 0, 'behind its end there is nothing')
  await fs.unmount()
})
