/**
 * The image in the slot that is not current: superseded, but whole until the next checkpoint
 * overwrites it. With both journal halves it leads to the same index.
 */
import { type Memory, MemoryFailure } from '../../dax/memory.ts'
import { Halves, MARK_ROOM, otherHalf } from '../../journal/halves.ts'
import { listRecords } from '../../journal/replay.ts'
import { MediaError } from '../../media/errors.ts'
import { BLOCK_SIZE } from '../../media/geometry.ts'
import { paddedLength, RECORD_SWITCHED, RECORD_TRANSACTION } from '../../media/record.ts'
import type { Superblock, SuperblockPair } from '../../media/superblock.ts'

const SQLITE_MAGIC = 'SQLite format 3\0'
const HEADER_SIZE = 100

/** Superblocks that would have pointed at the older image, the surer first. */
export function olderCheckpoints(
  memory: Memory,
  pair: SuperblockPair,
  current: Superblock,
): Superblock[] {
  const slot = current.checkpoint.slot === 0 ? 1 : 0
  const found: Superblock[] = []
  for (const copy of [pair.primary, pair.backup]) {
    // A copy that was not renewed yet says all there is to know.
    if (copy instanceof Error || copy.checkpoint.slot !== slot) continue
    if (sameSlot(copy, current, slot)) found.push({ ...current, checkpoint: copy.checkpoint })
  }
  // Nothing was done between two checkpoints: it is the same image, and its checksum tells.
  found.push({ ...current, checkpoint: { ...current.checkpoint, slot } })
  const image = readImage(memory, current, slot)
  if (image === undefined) return found
  for (const sequence of possibleSequences(memory, current)) {
    found.push({ ...current, checkpoint: { slot, sequence, ...image } })
  }
  return found
}

function sameSlot(a: Superblock, b: Superblock, slot: 0 | 1): boolean {
  return JSON.stringify(a.slots[slot]) === JSON.stringify(b.slots[slot])
}

/** Length and CRC of what lies in the slot, as its SQLite header gives the length. */
function readImage(
  memory: Memory,
  superblock: Superblock,
  slot: 0 | 1,
): { length: number; crc: number } | undefined {
  const extents = superblock.slots[slot]
  const first = extents[0]
  if (first === undefined) return undefined
  try {
    const header = Buffer.alloc(HEADER_SIZE)
    memory.read(first.block * BLOCK_SIZE, header, 0, HEADER_SIZE)
    if (header.toString('latin1', 0, 16) !== SQLITE_MAGIC) return undefined
    const length = header.readUInt32BE(28) * header.readUInt16BE(16)
    let left = length
    let crc = 0
    for (const { block, blocks } of extents) {
      const piece = Math.min(left, blocks * BLOCK_SIZE)
      if (piece > 0) crc = memory.crc32c(block * BLOCK_SIZE, piece, crc)
      left -= piece
    }
    return left === 0 ? { length, crc } : undefined
  } catch (error) {
    if (error instanceof MemoryFailure || error instanceof MediaError) return undefined
    throw error
  }
}

interface HalfContents {
  /** The sequence of the transaction it begins with; undefined when that cannot be told. */
  first: number | undefined
  /** Where its records end, up to that one. */
  end: number
  /** Something else lies where the first transaction should be. */
  broken: boolean
  /** The journal went over from it to the other half. */
  switched: boolean
}

/**
 * The image does not say which transactions it holds, but the journal was switched to the other
 * half when it was taken: its last one is the one before the first record of a half. The lowest
 * comes first: to redo what an image has changes nothing, to leave out what it has not loses it.
 */
function possibleSequences(memory: Memory, current: Superblock): number[] {
  const { sequence: last } = current.checkpoint
  const contents = readHalves(memory, current)
  const possible: number[] = []
  for (const half of [0, 1] as const) {
    const { first, switched } = contents[half]
    if (first === undefined || first > last) continue
    // Left without a switch: the checkpoint that had begun with this half came to nothing, and the
    // older image needs the records that were in the other half before.
    const other = contents[otherHalf(half)]
    if (switched || (!other.broken && (other.first ?? 0) <= last)) possible.push(first - 1)
  }
  return possible.sort((a, b) => a - b)
}

function readHalves(memory: Memory, current: Superblock): readonly [HalfContents, HalfContents] {
  const halves = new Halves(current)
  const nothing = { first: undefined, end: 0, broken: false, switched: false }
  const contents: [HalfContents, HalfContents] = [{ ...nothing }, { ...nothing }]
  for (const { half, position, header } of listRecords(memory, current)) {
    const { kind, flags, length, sequence } = header
    const found = contents[half]
    if (found.first !== undefined) {
      found.switched ||= (flags & RECORD_SWITCHED) !== 0 && sequence >= found.first
    } else if (!found.broken) {
      const room = paddedLength(length) + (kind === RECORD_TRANSACTION ? MARK_ROOM : 0)
      const place = halves.place(half, found.end, room, halves.extents[half].length)
      found.broken = position !== place
      found.end = position + paddedLength(length)
      if (kind === RECORD_TRANSACTION && !found.broken) found.first = sequence
    }
  }
  return contents
}
