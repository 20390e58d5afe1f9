/**
 * Repairs a region: the index is put right in memory, written as a new checkpoint beside the image
 * it came from, and then the superblocks point at it. Until the first of them is written the region
 * is what it was.
 */
import { randomBytes } from 'node:crypto'
import type { Memory } from '../../dax/memory.ts'
import { rangesOverlap } from '../../index/free-space.ts'
import { Checkpointer } from '../../journal/checkpoint.ts'
import { MediaError } from '../../media/errors.ts'
import { BLOCK_SIZE } from '../../media/geometry.ts'
import { type BlockRange, type Superblock, writeSuperblocks } from '../../media/superblock.ts'
import { hasJournal } from '../check/bad-metadata.ts'
import type { Examination } from '../check/examine.ts'
import { mountReaches } from '../check/find-index.ts'
import { stillBad } from '../check/probe.ts'
import { copiesAgree } from '../check/superblocks.ts'
import { type Action, Actions } from './actions.ts'
import type { OverlapChoice, RepairContext } from './context.ts'
import { rebuildFree } from './counts.ts'
import { repairIndex } from './repair-index.ts'
import { arrangeSlots } from './slots.ts'

/** Is there anything to write at all? A second repair finds that there is not. */
export function needsRepair(memory: Memory, examination: Examination): boolean {
  const { pair, superblock, salvaged, problems, orphans } = examination
  if (superblock === undefined || salvaged === undefined) return false
  if (problems.some((problem) => problem.fixable)) return true
  if (superblock.state === 'dirty' || orphans > 0) return true
  const stale = !(
    pair.primary instanceof Error ||
    pair.backup instanceof Error ||
    copiesAgree(pair)
  )
  return stale || poisonLeft(memory, superblock).length < superblock.poison.length
}

/** The ranges on record that still cannot be read. */
function poisonLeft(memory: Memory, superblock: Superblock): BlockRange[] {
  return superblock.poison.filter((range) => stillBad(memory, [range]).length > 0)
}

export interface RepairOptions {
  /** Seconds since 1970. */
  readonly now: number
  readonly overlap?: OverlapChoice
}

/** What a repair would do, sentence by sentence, and the doing. */
export interface Plan {
  readonly actions: Action[]
  write(): void
}

/**
 * Puts the examined index right in memory; nothing is written before write(). Throws MediaError
 * when the result cannot be written.
 */
export function planRepair(memory: Memory, examination: Examination, options: RepairOptions): Plan {
  const { superblock, salvaged, checkpoint } = examination
  if (superblock === undefined || salvaged === undefined || checkpoint === undefined) {
    return { actions: [], write() {} }
  }
  const actions = new Actions()
  const context: RepairContext = {
    index: salvaged.index,
    geometry: superblock.geometry,
    slots: superblock.slots,
    actions,
    now: options.now,
    overlap: options.overlap ?? 'quarantine',
    zeroed: [],
    // What was lost had numbers, and numbers are never given out twice.
    sequence: salvaged.sequence + salvaged.lost,
  }
  tellLosses(examination, actions)
  repairIndex(context)
  // Removed files the mount frees itself.
  const corrected = actions.list().some(({ kind }) => kind !== 'orphan')
  const poison = forgetPoison(context, memory, superblock)
  requireJournal(superblock, [...poison, ...context.index.poison.all()])
  const target = checkpoint.slot === 0 ? 1 : 0
  const { slots, roomy } = arrangeSlots(context, memory, target)
  if (!roomy) {
    const kept = { ...superblock, poison, checkpoint }
    const enough = !corrected && mountReaches(memory, kept, salvaged.sequence)
    if (!enough) throw noRoom(superblock, target)
    return superblocksAlone(memory, examination, kept)
  }
  tellWritten(examination, actions)
  const repaired: Superblock = {
    ...superblock,
    slots,
    poison,
    ...stateAfter(examination, superblock),
    // Every record in the journal was made with the old one: none of them is read again.
    journalSeed: otherSeed(superblock.journalSeed),
    ...countersAfter(examination, actions),
    checkpoint,
  }
  return {
    actions: actions.list(),
    write() {
      for (const { block, blocks } of context.zeroed) {
        memory.zero(block * BLOCK_SIZE, blocks * BLOCK_SIZE)
        memory.flush(block * BLOCK_SIZE, blocks * BLOCK_SIZE)
      }
      writeCheckpoint(memory, context, target, repaired)
    },
  }
}

function noRoom({ geometry, slots }: Superblock, target: 0 | 1): MediaError {
  const sentence = 'there are no free units for a new image: nothing was written'
  const { block } = slots[target][0] ?? { block: geometry.dataStartBlock }
  return new MediaError('checkpoint', block * BLOCK_SIZE, sentence)
}

/**
 * On a full filesystem that lost a slot there is no place for another image. The one that is left,
 * be it the older one, is good as it is, with the journal: the mount replays it, and lives without
 * a second slot until files are removed.
 */
function superblocksAlone(memory: Memory, examination: Examination, superblock: Superblock): Plan {
  const actions = new Actions()
  tellSuperblocks(examination, actions)
  actions.add('kept', 'kept the image and the journal: another has no room until files are removed')
  const repaired = { ...superblock, ...stateAfter(examination, superblock) }
  // What the journal has is not in an image: the mount must replay it.
  const state = repaired.state === 'clean' ? 'dirty' : repaired.state
  return {
    actions: actions.list(),
    write() {
      writeSuperblocks(memory, { ...repaired, state })
    },
  }
}

/** Plans, and does it. */
export function repairRegion(
  memory: Memory,
  examination: Examination,
  options: RepairOptions,
): Action[] {
  const plan = planRepair(memory, examination, options)
  plan.write()
  return plan.actions
}

/** A filesystem that was shut down stays so while something is wrong that nobody could correct. */
function stateAfter({ problems }: Examination, superblock: Superblock): Partial<Superblock> {
  const stays = problems.some(({ code, fixable }) => code === 'shutdown' && !fixable)
  if (stays && superblock.state === 'shutdown') return {}
  return { state: 'clean', shutdownReason: 'none', shutdownOffset: 0 }
}

/** They only compare copies and records with each other, and there will be none of the old. */
function countersAfter({ problems }: Examination, actions: Actions): Partial<Superblock> {
  if (problems.every(({ code }) => code !== 'superblock-counter')) return {}
  actions.add('superblock-counter', 'the generation and the epoch begin anew')
  return { generation: 0, epoch: 0, bootEpoch: 0 }
}

function tellLosses({ salvaged }: Examination, actions: Actions): void {
  if (salvaged?.damage === undefined) return
  const { sequence, lost } = salvaged
  const loss = lost === 0 ? 'no later one is known' : `up to ${lost} later ones are lost`
  actions.add('journal', `kept the operations up to sequence ${sequence}; ${loss}`)
}

/** Metadata whose memory works again is used again; the rest stays on record. */
function forgetPoison(
  context: RepairContext,
  memory: Memory,
  superblock: Superblock,
): readonly BlockRange[] {
  const { index, actions } = context
  const left = poisonLeft(memory, superblock)
  for (const range of superblock.poison) {
    if (left.includes(range)) continue
    const where = `${range.blocks} blocks of metadata at block ${range.block}`
    actions.add('poison', `${where} can be read again and are used again`)
  }
  for (const range of index.poison.all()) {
    for (const row of index.rmap.overlapping(range.block, range.blocks)) {
      // Poison of files and of free space stays until somebody clears it.
      if (row.owner < 0) forgetReadable(context, memory, superblock, intersection(range, row))
    }
  }
  rebuildFree(context)
  return left
}

function forgetReadable(
  { index, actions }: RepairContext,
  memory: Memory,
  { poison }: Superblock,
  range: BlockRange,
): void {
  const bad = stillBad(memory, [range])
  index.poison.remove(range.block, range.blocks)
  for (const { block, blocks } of bad) index.poison.put(block, blocks)
  const good = range.blocks - bad.reduce((sum, { blocks }) => sum + blocks, 0)
  if (good === 0 || poison.some((told) => rangesOverlap(told, range))) return
  const where = `${good} blocks of metadata from block ${range.block} on`
  actions.add('poison', `${where} were on record as bad, can be read and are used`)
}

function intersection(a: BlockRange, b: BlockRange): BlockRange {
  const block = Math.max(a.block, b.block)
  return { block, blocks: Math.min(a.block + a.blocks, b.block + b.blocks) - block }
}

/** The journal goes round bad blocks; what it cannot do is move. */
function requireJournal(superblock: Superblock, poison: readonly BlockRange[]): void {
  if (hasJournal(superblock, poison)) return
  const { offset } = superblock.geometry.journal[0]
  const sentence = 'its memory is bad in both halves, and it cannot move: copy what can be read'
  throw new MediaError('journal', offset, sentence)
}

function otherSeed(seed: number): number {
  for (;;) {
    const other = randomBytes(4).readUInt32LE(0)
    if (other !== seed) return other
  }
}

/** `superblock.checkpoint.slot` is the slot the index came from: it stays whole to the end. */
function writeCheckpoint(
  memory: Memory,
  { index, sequence }: RepairContext,
  target: 0 | 1,
  superblock: Superblock,
): void {
  const checkpointer = new Checkpointer(memory)
  checkpointer.begin(index.serialize(), sequence, target, superblock.slots[target])
  checkpointer.finish(superblock)
}

function tellWritten(examination: Examination, actions: Actions): void {
  tellSuperblocks(examination, actions)
  actions.add('checkpoint', 'wrote a new checkpoint and emptied the journal')
}

function tellSuperblocks({ superblock, pair }: Examination, actions: Actions): void {
  if (superblock?.state === 'shutdown')
    actions.add('shutdown', 'the filesystem can be mounted again')
  for (const [name, copy] of [
    ['primary', pair.primary],
    ['backup', pair.backup],
  ] as const) {
    if (copy instanceof MediaError) actions.add('superblock', `wrote the ${name} superblock anew`)
  }
}
