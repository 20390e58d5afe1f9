/**
 * Makes an index true again, row by row. Every step finds its own rows, so a step may rely on what
 * the ones before it left; doing it all twice changes nothing the second time.
 */

import type { RepairContext } from './context.ts'
import { rebuildFree, repairCounts } from './counts.ts'
import { repairExtents } from './extents.ts'
import { repairInodes } from './inodes.ts'
import { freeOrphans, reconnect } from './lost-found.ts'
import { repairNames, repairParents } from './names.ts'
import { repairNumbers } from './numbers.ts'
import { repairOverlaps } from './overlaps.ts'
import { repairTypes } from './types.ts'

export function repairIndex(context: RepairContext): void {
  const { index } = context
  index.begin()
  try {
    repairNumbers(context)
    repairTypes(context)
    repairInodes(context)
    repairNames(context)
    freeOrphans(context)
    reconnect(context)
    repairParents(context)
    repairExtents(context)
    // Overlaps are settled with space that is really free.
    rebuildFree(context)
    repairOverlaps(context)
    repairCounts(context)
    index.commit()
  } catch (error) {
    index.rollback()
    throw error
  }
}
