/**
 * The image in the slot that is not current: superseded, but whole until the next checkpoint
 * overwrites it. With both journal halves it leads to the same index.
 */
import { type Memory, MemoryFailure } from '../../dax/memory.ts'
import { listRecords } from '../../journal/replay.ts'
import { MediaError } from '../../media/errors.ts'
import { BLOCK_SIZE } from '../../media/geometry.ts'
import { RECORD_TRANSACTION } from '../../media/record.ts'
import type { Superblock, SuperblockPair } from '../../media/superblock.ts'

const SQLITE_MAGIC = 'SQLite format 3\0'
const HEADER_SIZE = 100

/** Superblocks that would have pointed at the older image, the likelier first. */
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

/**
 * The image does not say which transactions it holds, but the journal was switched to the other
 * half when it was taken: its last one is the one before the first record of a half.
 */
function possibleSequences(memory: Memory, current: Superblock): number[] {
  const first = new Map<number, number>()
  for (const { half, header } of listRecords(memory, current)) {
    if (header.kind !== RECORD_TRANSACTION || first.has(half)) continue
    first.set(half, header.sequence)
  }
  return [...first.values()]
    .map((sequence) => sequence - 1)
    .filter((sequence) => sequence < current.checkpoint.sequence)
    .sort((a, b) => b - a)
}
