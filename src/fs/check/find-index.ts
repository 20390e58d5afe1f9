/** The index a region leads to: from the current image, or else from the older one. */
import type { Memory, MemoryFailure } from '../../dax/memory.ts'
import type { Index } from '../../index/index.ts'
import { OWNER_CHECKPOINT } from '../../media/change.ts'
import { MediaError } from '../../media/errors.ts'
import { BLOCKS_PER_UNIT } from '../../media/geometry.ts'
import { imageOffset, type Superblock, type SuperblockPair } from '../../media/superblock.ts'
import type { CheckpointPointer } from '../../media/superblock-layout.ts'
import { checkIndex } from './check.ts'
import type { ExamineOptions } from './examine.ts'
import { checkImage } from './image.ts'
import { olderCheckpoints } from './older-image.ts'
import type { Problem } from './problem.ts'
import { isDamage, openImage, replay, type Salvaged } from './salvage.ts'

export interface FoundIndex {
  readonly salvaged: Salvaged
  /** The image it came from: that of the superblock, or the older one. */
  readonly checkpoint: CheckpointPointer
}

export interface Findings {
  readonly problems: Problem[]
  readonly notices: string[]
}

export function findIndex(
  memory: Memory,
  pair: SuperblockPair,
  superblock: Superblock,
  options: ExamineOptions,
  { problems, notices }: Findings,
): FoundIndex | undefined {
  const { checkpoint } = superblock
  const offset = imageOffset(superblock)
  const problem = { structure: 'checkpoint', code: 'checkpoint-damaged', offset } as const
  const current = attempt(memory, superblock, options)
  if (!isDamage(current)) {
    for (const message of current.mended) problems.push({ ...problem, message, fixable: true })
    return { salvaged: current.salvaged, checkpoint }
  }
  const older = options.mounted ? undefined : findOlder(memory, pair, superblock, options)
  problems.push({ ...problem, message: current.message, fixable: older !== undefined })
  if (older === undefined) {
    notices.push('the older image and the journal do not reach as far as this one did')
    return undefined
  }
  notices.push('the older image and the journal make up for the damaged one')
  return older
}

interface Attempt {
  readonly salvaged: Salvaged
  /** What SQLite said of the image before its indexes were made anew. */
  readonly mended: readonly string[]
}

function attempt(
  memory: Memory,
  superblock: Superblock,
  options: ExamineOptions,
  known = 0,
): Attempt | MediaError | MemoryFailure {
  try {
    const index = openImage(memory, superblock)
    const mended = requireSound(index, superblock)
    const { sequence } = superblock.checkpoint
    const salvaged = options.mounted
      ? { index, sequence, epoch: 0, transactions: 0, lost: 0, stoppedAtMark: false }
      : replay(memory, superblock, index, options.bootId, known)
    return { salvaged, mended }
  } catch (error) {
    if (isDamage(error)) return error
    throw error
  }
}

/** Indexes can be made anew from their tables; damaged tables cannot. Closes what it refuses. */
function requireSound(index: Index, superblock: Superblock): string[] {
  const messages = checkImage(index.database)
  if (messages.length === 0) return messages
  try {
    index.database.exec('REINDEX')
    if (checkImage(index.database).length === 0) return messages
  } catch {
    // What it says is what checkImage said.
  }
  index.close()
  const { slot } = superblock.checkpoint
  throw new MediaError(`checkpoint slot ${slot}`, imageOffset(superblock), messages[0]!)
}

function findOlder(
  memory: Memory,
  pair: SuperblockPair,
  superblock: Superblock,
  options: ExamineOptions,
): FoundIndex | undefined {
  for (const older of olderCheckpoints(memory, pair, superblock)) {
    // The lost image had them all, so they were durable before a superblock spoke of it.
    const found = attempt(memory, older, options, superblock.checkpoint.sequence)
    if (isDamage(found)) continue
    const { salvaged } = found
    if (isComplete(salvaged, superblock)) return { salvaged, checkpoint: older.checkpoint }
    salvaged.index.close()
  }
  return undefined
}

/** Would a mount, after another boot of the host, come to that transaction without any help? */
export function mountReaches(memory: Memory, superblock: Superblock, sequence: number): boolean {
  const found = attempt(memory, superblock, { bootId: '', bad: [] })
  if (isDamage(found)) return false
  const { salvaged, mended } = found
  salvaged.index.close()
  return mended.length === 0 && salvaged.damage === undefined && salvaged.sequence === sequence
}

/**
 * Which transactions the older image holds was partly a guess. A wrong guess either does not fit,
 * or leaves a gap, and a gap shows in the invariants.
 */
function isComplete({ index, sequence, damage }: Salvaged, superblock: Superblock): boolean {
  if (damage !== undefined || sequence < superblock.checkpoint.sequence) return false
  settleSlots(index, superblock)
  const { geometry } = superblock
  return checkIndex(index.database, geometry, superblock, { sequence, limit: 1 }).length === 0
}

/**
 * A crash may have come between the record of a slot's change and the superblock that lists it. A
 * mount gives such units back, but for blocks that failed, so they are no damage.
 */
export function settleSlots(index: Index, superblock: Superblock): void {
  const slots = superblock.slots.flat()
  const rows = index.database
    .prepare<[], { block: number; fileBlock: number }>(
      `SELECT block, file_block AS fileBlock FROM rmap
       WHERE owner = ${OWNER_CHECKPOINT} AND blocks = ${BLOCKS_PER_UNIT}`,
    )
    .all()
  const { dataStartBlock, dataEndBlock } = superblock.geometry
  for (const { block, fileBlock } of rows) {
    const listed = slots.some((slot) => slot.block <= block && block < slot.block + slot.blocks)
    const inside = block >= dataStartBlock && block + BLOCKS_PER_UNIT <= dataEndBlock
    if (listed || !inside || index.freeSpace.overlapping(block, BLOCKS_PER_UNIT).length > 0)
      continue
    index.rmap.remove(block, OWNER_CHECKPOINT, fileBlock)
    giveBack(index, block, block + BLOCKS_PER_UNIT)
  }
}

function giveBack(index: Index, block: number, end: number): void {
  let at = block
  for (const bad of index.poison.overlapping(block, end - block)) {
    if (bad.block > at) index.freeSpace.free(at, bad.block - at)
    at = Math.max(at, bad.block + bad.blocks)
  }
  if (at < end) index.freeSpace.free(at, end - at)
}
