/** Where everything lies in a region of a given size. */
import type { ExtentRow } from './change.ts'
import { OWNER_JOURNAL, OWNER_SUPERBLOCK } from './change.ts'
import { MediaError } from './errors.ts'

/** Bytes of a block, the piece in which space is allocated. */
export const BLOCK_SIZE = 4096
/** Bytes of a unit, the piece in which memory goes bad. */
export const UNIT_SIZE = 2 * 1024 * 1024
export const BLOCKS_PER_UNIT = UNIT_SIZE / BLOCK_SIZE
export const MIN_REGION_SIZE = 32 * 1024 * 1024

/**
 * The largest sequence, epoch or generation a region may say: whoever counts on from there never
 * comes to where numbers stop being exact.
 */
export const COUNTER_MAX = 2 ** 48
/** No mount begins with one above this: none lasts long enough to come to COUNTER_MAX. */
export const COUNTER_SPENT = COUNTER_MAX - 2 ** 32

const JOURNAL_FRACTION = 64
const MIN_JOURNAL_SIZE = 1024 * 1024
const MAX_JOURNAL_SIZE = 1024 * 1024 * 1024

/** First block and number of blocks that the bytes [offset, offset + length) touch. */
export function blockSpan(offset: number, length: number): [first: number, blocks: number] {
  const first = Math.floor(offset / BLOCK_SIZE)
  return [first, Math.ceil((offset + length) / BLOCK_SIZE) - first]
}

/** Bytes [offset, offset + length) of the region. */
export interface ByteExtent {
  readonly offset: number
  readonly length: number
}

export interface Geometry {
  /** Bytes the filesystem uses: the region's size rounded down to whole units. */
  readonly size: number
  readonly blocks: number
  /** Region offsets of the two copies of the superblock, bytes. */
  readonly primary: number
  readonly backup: number
  /** INVARIANT: whole units, equal lengths, side by side, right behind the primary's unit. */
  readonly journal: readonly [ByteExtent, ByteExtent]
  /** Files and checkpoint slots live in blocks [dataStartBlock, dataEndBlock). */
  readonly dataStartBlock: number
  readonly dataEndBlock: number
}

/** Bytes of one journal half by default: whole units, at least one. */
export function journalHalfFor(size: number): number {
  const wanted = Math.floor(size / JOURNAL_FRACTION)
  const journal = Math.min(Math.max(wanted, MIN_JOURNAL_SIZE), MAX_JOURNAL_SIZE)
  return Math.max(1, Math.floor(journal / 2 / UNIT_SIZE)) * UNIT_SIZE
}

/** Throws MediaError for a region that cannot hold a filesystem with a journal half that long. */
export function geometryFor(regionSize: number, journalHalf?: number): Geometry {
  if (!Number.isSafeInteger(regionSize) || regionSize < MIN_REGION_SIZE) {
    throw new MediaError('region', 0, `${regionSize} bytes, at least ${MIN_REGION_SIZE} are needed`)
  }
  const size = regionSize - (regionSize % UNIT_SIZE)
  const half = journalHalf ?? journalHalfFor(size)
  const dataStart = UNIT_SIZE + 2 * half
  const dataEnd = size - UNIT_SIZE
  if (half < UNIT_SIZE || half % UNIT_SIZE !== 0 || dataStart >= dataEnd) {
    throw new MediaError('region', UNIT_SIZE, `a journal half of ${half} bytes does not fit`)
  }
  return {
    size,
    blocks: size / BLOCK_SIZE,
    primary: 0,
    backup: size - BLOCK_SIZE,
    journal: [
      { offset: UNIT_SIZE, length: half },
      { offset: UNIT_SIZE + half, length: half },
    ],
    dataStartBlock: dataStart / BLOCK_SIZE,
    dataEndBlock: dataEnd / BLOCK_SIZE,
  }
}

/** The rmap rows of the metadata with a fixed place: both superblock units, both journal halves. */
export function metadataExtents(geometry: Geometry): ExtentRow[] {
  const [first, second] = geometry.journal
  const blocks = first.length / BLOCK_SIZE
  const superblock = { blocks: BLOCKS_PER_UNIT, owner: OWNER_SUPERBLOCK, flags: 0 }
  const journal = { blocks, owner: OWNER_JOURNAL, flags: 0 }
  return [
    { ...superblock, block: 0, fileBlock: 0 },
    { ...journal, block: first.offset / BLOCK_SIZE, fileBlock: 0 },
    { ...journal, block: second.offset / BLOCK_SIZE, fileBlock: blocks },
    { ...superblock, block: geometry.dataEndBlock, fileBlock: BLOCKS_PER_UNIT },
  ]
}

/** Is there an aligned 2 MiB unit in these blocks, which a checkpoint slot could take? */
export function hasWholeUnit({ block, blocks }: { block: number; blocks: number }): boolean {
  const first = Math.ceil(block / BLOCKS_PER_UNIT) * BLOCKS_PER_UNIT
  return block + blocks - first >= BLOCKS_PER_UNIT
}
