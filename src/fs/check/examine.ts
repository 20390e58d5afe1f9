/**
 * All that can be said of a region without writing to it: superblocks, checkpoint image, journal,
 * and the index they lead to.
 */
import type { ByteRange } from '../../dax/bad-ranges.ts'
import type { Memory } from '../../dax/memory.ts'
import { indexDamage } from '../../index/damage.ts'
import {
  imageOffset,
  readSuperblocks,
  type Superblock,
  type SuperblockPair,
} from '../../media/superblock.ts'
import type { CheckpointPointer } from '../../media/superblock-layout.ts'
import { type BadFile, findBadFiles } from './bad-files.ts'
import { checkBadMetadata } from './bad-metadata.ts'
import { checkPasses } from './check.ts'
import { findIndex, settleSlots } from './find-index.ts'
import { findOrphans } from './inodes.ts'
import type { Problem } from './problem.ts'
import { isDamage, type Salvaged } from './salvage.ts'
import { checkCounters, checkSuperblocks } from './superblocks.ts'

export interface ExamineOptions {
  readonly bootId: string
  /** Somebody is writing to the region: the journal is left alone, the image is what it was. */
  readonly mounted?: boolean
  /** Memory that is known to be bad; what went bad since the last mount is on record nowhere. */
  readonly bad?: readonly ByteRange[]
}

export interface Examination {
  readonly pair: SuperblockPair
  /** Undefined when there is none to go by; then nothing else was looked at. */
  readonly superblock: Superblock | undefined
  readonly problems: Problem[]
  /** Worth saying, but no damage. */
  readonly notices: string[]
  readonly salvaged: Salvaged | undefined
  /** The image that the index came from: the superblock's, or the older one. */
  readonly checkpoint: CheckpointPointer | undefined
  /** Unlinked while open: the next mount frees them. */
  readonly orphans: number
  /** Parts of files that lie on bad memory. */
  readonly badFiles: readonly BadFile[]
}

export const STAGES = [
  'superblocks',
  'checkpoint image',
  'journal',
  'inodes',
  'names',
  'links',
  'extents',
  'space',
] as const

/** Yields the name of the next stage. The caller closes the index, if there is one. */
export function* examine(memory: Memory, options: ExamineOptions): Generator<string, Examination> {
  yield 'superblocks'
  const pair = readSuperblocks(memory)
  const { problems, notices } = checkSuperblocks(pair)
  const superblock = pair.best
  const none = {
    pair,
    superblock,
    problems,
    notices,
    salvaged: undefined,
    checkpoint: undefined,
    orphans: 0,
    badFiles: [],
  } as const
  if (superblock === undefined) return none
  noticePoison(superblock, notices)
  yield 'checkpoint image'
  const loaded = findIndex(memory, pair, superblock, options, { problems, notices })
  if (loaded === undefined) {
    judgeShutdown(problems)
    return none
  }
  const { salvaged, checkpoint } = loaded
  const { index, sequence } = salvaged
  const offset = imageOffset(superblock, checkpoint.slot)
  let whole = false
  try {
    yield 'journal'
    noticeJournal(superblock, salvaged, problems, notices)
    problems.push(...checkCounters(superblock, salvaged))
    if (superblock.state !== 'clean') settleSlots(index, superblock)
    const found = yield* checkPasses(index.database, superblock.geometry, superblock, { sequence })
    const steady = options.mounted ? found.filter(isSteady) : found
    // Rows have no place of their own: they are where their image is.
    for (const problem of steady) problems.push({ offset, ...problem })
    if (!options.mounted) problems.push(...checkBadMetadata(memory, superblock, index))
    const orphans = findOrphans(index.database).length
    if (orphans > 0) notices.push(`${orphans} removed files wait to be freed; a mount does it`)
    const badFiles = findBadFiles(index, options.bad ?? [])
    whole = true
    judgeShutdown(problems)
    return { pair, superblock, problems, notices, salvaged, checkpoint, orphans, badFiles }
  } catch (error) {
    const damage = indexDamage(error, offset)
    if (damage === undefined) throw error
    const problem = { structure: 'checkpoint', code: 'checkpoint-damaged', offset } as const
    problems.push({ ...problem, message: damage.message, fixable: false })
    judgeShutdown(problems)
    return none
  } finally {
    // The caller stopped in the middle, or something failed.
    if (!whole) index.close()
  }
}

/** Nobody should mount what stays wrong after a repair. */
function judgeShutdown(problems: Problem[]): void {
  const hopeless = problems.some(({ structure, fixable }) => structure !== 'superblock' && !fixable)
  const shutdown = problems.find((problem) => problem.code === 'shutdown')
  if (hopeless && shutdown !== undefined) shutdown.fixable = false
}

/** A slot may have grown since the image was taken. */
function isSteady(problem: Problem): boolean {
  return problem.code !== 'metadata-extents'
}

function noticePoison(superblock: Superblock, notices: string[]): void {
  for (const { block, blocks } of superblock.poison) {
    notices.push(`${blocks} blocks of metadata at block ${block} are recorded as bad memory`)
  }
}

function noticeJournal(
  superblock: Superblock,
  { damage, lost, transactions, sequence, stoppedAtMark }: Salvaged,
  problems: Problem[],
  notices: string[],
): void {
  if (transactions > 0) notices.push(`${transactions} operations are in the journal only`)
  if (stoppedAtMark) {
    notices.push('the host crashed: the last operations were never confirmed, and do not count')
  }
  if (damage === undefined) return
  const offset = isDamage(damage) ? damage.offset : superblock.geometry.journal[0].offset
  const loss = lost === 0 ? 'nothing behind it is known' : `up to ${lost} operations are lost`
  problems.push({
    structure: 'journal',
    code: 'journal-damaged',
    offset,
    message: `${damage.message}; whole up to sequence ${sequence}, ${loss}`,
    fixable: true,
  })
}
