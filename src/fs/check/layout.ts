/** Which blocks the metadata owns, as the geometry and the superblock say. */
import {
  type ExtentRow,
  OWNER_CHECKPOINT,
  OWNER_JOURNAL,
  OWNER_SUPERBLOCK,
} from '../../media/change.ts'
import {
  BLOCK_SIZE,
  BLOCKS_PER_UNIT,
  type Geometry,
  metadataExtents,
} from '../../media/geometry.ts'
import type { BlockRange, Superblock } from '../../media/superblock.ts'

export type { BlockRange }
export { BLOCK_SIZE }

export const OWNER_NAMES: ReadonlyMap<number, 'superblock' | 'journal' | 'checkpoint'> = new Map([
  [OWNER_SUPERBLOCK, 'superblock'],
  [OWNER_JOURNAL, 'journal'],
  [OWNER_CHECKPOINT, 'checkpoint'],
])

/** The rmap rows of all metadata: the fixed places and the checkpoint slots. */
export function metadataRows(geometry: Geometry, slots: readonly BlockRange[]): ExtentRow[] {
  const rows = metadataExtents(geometry)
  for (const { block, blocks } of slots) {
    for (let at = block; at < block + blocks; at += BLOCKS_PER_UNIT) rows.push(slotRow(at))
  }
  return rows
}

/** One row per unit: a failure takes one unit out of a slot, not the slot. */
export function slotRow(block: number): ExtentRow {
  return { block, blocks: BLOCKS_PER_UNIT, owner: OWNER_CHECKPOINT, fileBlock: 0, flags: 0 }
}

/** The metadata that a byte of the region is part of; undefined for one of the data area. */
export function metadataAt(
  { geometry, slots }: Pick<Superblock, 'geometry' | 'slots'>,
  offset: number,
): 'superblock' | 'journal' | 'checkpoint' | undefined {
  const at = Math.floor(offset / BLOCK_SIZE)
  const rows = metadataRows(geometry, slots.flat())
  const row = rows.find(({ block, blocks }) => block <= at && at < block + blocks)
  return row && OWNER_NAMES.get(row.owner)
}

/** Sorted, with neighbours joined: two descriptions of the same blocks become equal. */
export function joined(ranges: readonly BlockRange[]): BlockRange[] {
  const sorted = [...ranges].sort((a, b) => a.block - b.block)
  const result: BlockRange[] = []
  for (const { block, blocks } of sorted) {
    const last = result.at(-1)
    if (last === undefined || last.block + last.blocks < block) result.push({ block, blocks })
    else {
      const end = Math.max(last.block + last.blocks, block + blocks)
      result[result.length - 1] = { block: last.block, blocks: end - last.block }
    }
  }
  return result
}
