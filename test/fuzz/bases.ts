/** The valid regions that mutations start from: the same bytes in every process. */
import { format } from '../../mkfs/format.ts'
import type { SimulatedMemory } from '../../src/dax/simulated-memory.ts'
import { SimulatedMemory as Simulated } from '../../src/dax/simulated-memory.ts'
import type { Filesystem } from '../../src/fs/filesystem.ts'
import { readSuperblocks, requireSuperblock, writeSuperblocks } from '../../src/media/superblock.ts'
import { abandon, mountMemory } from '../crash/mounting.ts'

export const REGION_SIZE = 32 * 1024 * 1024

export const BASES = ['clean', 'crashed', 'paged', 'poisoned', 'shutdown', 'fresh'] as const
export type BaseName = (typeof BASES)[number]

const CALLER = { uid: 0, gid: 0, pid: 1, umask: 0 }
const WRITE = { cached: false, killPrivileges: false, append: false }

const made = new Map<string, SimulatedMemory>()

/** A copy of the base, to be mutated. */
export async function copyOfBase(name: string): Promise<SimulatedMemory> {
  let base = made.get(name)
  if (base === undefined) {
    base = await makeBase(name as BaseName)
    made.set(name, base)
  }
  return copyOf(base, 'mutated')
}

const copies = new Map<string, SimulatedMemory>()

/**
 * A copy in memory that is used again: what `role` named before is gone. Fresh memory for every
 * image would keep the garbage collector busier than the filesystem.
 */
export function copyOf(memory: SimulatedMemory, role: string): SimulatedMemory {
  const key = `${role} ${memory.mode}`
  const copy = memory.crash(() => true, undefined, copies.get(key))
  copies.set(key, copy)
  return copy
}

async function makeBase(name: BaseName): Promise<SimulatedMemory> {
  const clock = Date.now
  Date.now = () => 1_700_000_000_500
  try {
    return await populate(name)
  } finally {
    Date.now = clock
  }
}

async function populate(name: BaseName): Promise<SimulatedMemory> {
  const memory = new Simulated(REGION_SIZE, name === 'paged' ? 'page' : 'cacheline')
  const uuid = '5eed0000-0000-4000-8000-000000000000'
  format(memory, { label: 'fuzz', uid: 0, gid: 0, now: 1_700_000_000, uuid })
  const superblock = requireSuperblock(readSuperblocks(memory))
  writeSuperblocks(memory, { ...superblock, journalSeed: 0x5eed5eed })
  if (name === 'fresh') return memory
  const fs = mountMemory(memory)
  fill(fs, 'a')
  await fs.administration.checkpoint()
  fill(fs, 'b')
  if (name === 'poisoned') poison(fs)
  if (name === 'shutdown') fs.administration.shutdown('for the fuzzer')
  if (name === 'clean' || name === 'shutdown') await fs.unmount()
  else {
    await fs.fsync(1, false)
    abandon(fs)
  }
  return memory
}

/** Everything an index can hold: directories, links, symlinks, special files, holes, orphans. */
function fill(fs: Filesystem, tag: string): void {
  const name = (text: string) => Buffer.from(`${tag}-${text}`)
  const dir = fs.mkdir(1, name('directory'), 0o755, CALLER).ino
  const below = fs.mkdir(dir, name('below'), 0o700, CALLER).ino
  for (let at = 0; at < 12; at++) {
    const handle = fs.create(at % 2 ? dir : below, name(`file${at}`), 0o644, 2, CALLER)
    const bytes = Buffer.alloc(3000 * (at + 1), 65 + at)
    fs.write(handle, at % 3 === 0 ? 20_000 : 0, bytes, 0, bytes.length, WRITE)
    if (at % 4 === 1)
      fs.setxattr(handle.ino, Buffer.from('user.tag'), Buffer.alloc(at * 20), 0, false)
    if (at === 5) fs.link(handle.ino, 1, name('hard link'))
    if (at === 6) fs.fallocate(handle, 0, 100_000, 50_000)
    fs.release(handle)
  }
  fs.symlink(dir, name('symlink'), Buffer.from('../elsewhere'), CALLER)
  fs.mknod(dir, name('fifo'), 0o010600, 0, CALLER)
  fs.mknod(dir, name('device'), 0o020600, 0x103, CALLER)
  const unlinked = fs.create(1, name('unlinked'), 0o600, 2, CALLER)
  fs.write(unlinked, 0, Buffer.alloc(9000, 1), 0, 9000, WRITE)
  fs.unlink(1, name('unlinked'))
  const gone = fs.create(1, name('gone'), 0o600, 2, CALLER)
  fs.release(gone)
  fs.unlink(1, name('gone'))
}

function poison(fs: Filesystem): void {
  const { ino } = fs.lookup(1, Buffer.from('b-hard link'))
  const request = { length: 4096, method: 'soft' } as const
  fs.administration.inject({ ...request, target: { kind: 'file', inode: ino, fileOffset: 0 } })
  fs.administration.inject({ ...request, target: { kind: 'free' } })
}
