/** Writes a new, empty filesystem into a region that is ours. */
import type { ByteRange } from '../src/dax/bad-ranges.ts'
import type { Memory } from '../src/dax/memory.ts'
import { metadataRows } from '../src/fs/check/layout.ts'
import { Index } from '../src/index/index.ts'
import { crc32c } from '../src/media/checksum.ts'
import { BLOCK_SIZE, type Geometry, geometryFor } from '../src/media/geometry.ts'
import {
  createSuperblock,
  eraseSuperblocks,
  readSuperblocks,
  type Slots,
  type Superblock,
  writeSuperblocks,
} from '../src/media/superblock.ts'
import { type BadMemory, requireUsable } from './bad-memory.ts'
import { eraseParts } from './mapped.ts'

const ROOT_INODE = 1
/**
 * The sequence of the transaction that mkfs is. The numbers below are never given out: 1 is the
 * root, and directory cookies 1 and 2 are "." and "..".
 */
const FIRST_SEQUENCE = 16

export interface FormatOptions {
  readonly label: string
  /** Owner of the root directory. */
  readonly uid: number
  readonly gid: number
  /** Seconds since 1970. */
  readonly now: number
  readonly uuid?: string
  /** Memory known to be bad, which is left out. */
  readonly bad?: readonly ByteRange[]
  /** Called when a step is durable; tests stop here. */
  readonly onStep?: (step: 'erased' | 'journal emptied' | 'image written') => void
}

/**
 * The superblocks come last: until they are there the region holds no filesystem at all, whatever
 * stops us. The image they point at is whole by then.
 */
export function format(memory: Memory, options: FormatOptions): Superblock {
  const bad = requireUsable(memory.size, options.bad ?? [])
  const geometry = geometryFor(memory.size)
  const created = createSuperblock({
    geometry,
    label: options.label,
    slots: bad.slots(),
    created: options.now,
    ...(options.uuid === undefined ? {} : { uuid: options.uuid }),
  })
  const superblock = { ...created, poison: bad.inJournal() }
  eraseParts(memory)
  eraseOldSuperblocks(memory, geometry)
  options.onStep?.('erased')
  emptyJournal(memory, geometry, bad)
  options.onStep?.('journal emptied')
  const checkpoint = writeImage(
    memory,
    superblock,
    makeIndex(geometry, superblock.slots, bad, options),
  )
  options.onStep?.('image written')
  const { superblock: written, failures } = writeSuperblocks(memory, { ...superblock, checkpoint })
  if (failures.length > 0) throw failures[0]!
  return written
}

/**
 * A region that grew or shrank since has its old backup somewhere else than the new one will be.
 */
function eraseOldSuperblocks(memory: Memory, geometry: Geometry): void {
  const { primary, backup } = readSuperblocks(memory)
  for (const copy of [primary, backup]) {
    if (!(copy instanceof Error)) eraseSuperblocks(memory, copy.geometry)
  }
  eraseSuperblocks(memory, geometry)
}

/**
 * A record's CRC starts from the journal seed of its filesystem, so no old record can pass for one
 * of ours, wherever it lies; the first block of each half is only emptied so that looking for
 * records ends at once.
 */
function emptyJournal(memory: Memory, geometry: Geometry, bad: BadMemory): void {
  for (const half of geometry.journal) {
    const end = (half.offset + half.length) / BLOCK_SIZE
    let first = half.offset / BLOCK_SIZE
    // Looking for records goes round bad memory as well.
    while (first < end && bad.within(first, 1).length > 0) first++
    if (first === end) continue
    memory.zero(first * BLOCK_SIZE, BLOCK_SIZE)
    memory.flush(first * BLOCK_SIZE, BLOCK_SIZE)
  }
}

function makeIndex(
  geometry: Geometry,
  slots: Slots,
  bad: BadMemory,
  options: FormatOptions,
): Buffer {
  const index = Index.create()
  try {
    index.begin()
    index.inodes.put(rootInode(options))
    for (const row of metadataRows(geometry, slots.flat())) index.rmap.put(row)
    const start = geometry.dataStartBlock
    const blocks = geometry.dataEndBlock - start
    index.freeSpace.free(start, blocks)
    for (const taken of [...slots.flat(), ...bad.within(start, blocks)]) {
      index.freeSpace.allocate(taken.block, taken.blocks)
    }
    for (const range of bad.blocks) index.poison.put(range.block, range.blocks)
    index.commit()
    return index.serialize()
  } finally {
    index.close()
  }
}

function rootInode({ uid, gid, now }: FormatOptions) {
  const links = {
    nlink: 2,
    parent: ROOT_INODE,
    size: 0,
    blocks: 0,
    rdev: 0,
    flags: 0,
    target: null,
  }
  const times = { atime: now, mtime: now, ctime: now, btime: now }
  const nanoseconds = { atimeNs: 0, mtimeNs: 0, ctimeNs: 0, btimeNs: 0 }
  return { ino: ROOT_INODE, mode: 0o040755, uid, gid, ...links, ...times, ...nanoseconds }
}

/** Into both slots: should the one in use be lost, the other one and the journal make up for it. */
function writeImage(memory: Memory, superblock: Superblock, image: Buffer) {
  for (const [first] of superblock.slots) {
    const offset = first!.block * BLOCK_SIZE
    memory.write(offset, image, 0, image.length)
    memory.flush(offset, image.length)
  }
  const crc = crc32c(image, 0, image.length)
  return { slot: 0, sequence: FIRST_SEQUENCE, length: image.length, crc } as const
}
