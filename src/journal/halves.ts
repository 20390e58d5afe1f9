/** Room in the two halves of the journal: where a record may go, past memory known to be bad. */
import { BadRanges } from '../dax/bad-ranges.ts'
import { BLOCK_SIZE, type ByteExtent } from '../media/geometry.ts'
import { paddedLength, RECORD_HEADER_SIZE } from '../media/record.ts'
import type { BlockRange, Superblock } from '../media/superblock.ts'

export type HalfNumber = 0 | 1

/**
 * Room behind every transaction for the marks that may follow it: of the commit under way, of the
 * next one, and of a switch to the other half. So a mark never finds the half full.
 */
export const MARK_ROOM = 3 * paddedLength(RECORD_HEADER_SIZE)

/** Bytes of the longest record a half takes. */
export function maxRecordLength(half: ByteExtent): number {
  return half.length / 4
}

export function otherHalf(half: HalfNumber): HalfNumber {
  return half === 0 ? 1 : 0
}

export class Halves {
  readonly extents: readonly [ByteExtent, ByteExtent]
  readonly #bad = new BadRanges()

  constructor(superblock: Superblock) {
    this.extents = superblock.geometry.journal
    for (const range of superblock.poison) this.avoidBlocks(range)
  }

  avoidBlocks({ block, blocks }: BlockRange): void {
    this.avoid(block * BLOCK_SIZE, blocks * BLOCK_SIZE)
  }

  /** From now on no record is placed on [offset, offset + length), widened to whole blocks. */
  avoid(offset: number, length: number): void {
    const start = offset - (offset % BLOCK_SIZE)
    const end = Math.ceil((offset + length) / BLOCK_SIZE) * BLOCK_SIZE
    this.#bad.add(start, end - start)
  }

  /**
   * The first position >= `position` with `length` good bytes that end at or before `limit`, or -1.
   * Positions are bytes from the start of the half.
   */
  place(half: HalfNumber, position: number, length: number, limit: number): number {
    const { offset } = this.extents[half]
    let at = position
    while (at + length <= limit) {
      if (!this.#bad.overlaps(offset + at, length)) return at
      const [bad] = this.#bad.within(offset + at, limit - at)
      if (!bad) return -1
      at = bad.offset + bad.length - offset
    }
    return -1
  }

  /** Can the half take the longest record from its start? */
  usable(half: HalfNumber): boolean {
    const extent = this.extents[half]
    const length = maxRecordLength(extent) + MARK_ROOM
    return this.place(half, 0, length, appendLimit(extent, 'ordinary')) >= 0
  }
}

/**
 * What a record may take of a half. An eighth is kept for what frees space, and the last part of
 * that for what makes the index smaller: without it a full filesystem could end where nothing can
 * be deleted, because nothing can be recorded.
 */
export type Claim = 'ordinary' | 'freeing' | 'shrinking'

const KEPT: Record<Claim, number> = { ordinary: 1 / 8, freeing: 1 / 64, shrinking: 0 }

/** Where records of this claim must end, bytes from the start of the half. */
export function appendLimit(half: ByteExtent, claim: Claim): number {
  return half.length - half.length * KEPT[claim]
}
