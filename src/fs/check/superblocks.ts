/** The two copies of the superblock, and what they say of the region as a whole. */
import { type Memory, MemoryFailure } from '../../dax/memory.ts'
import { MediaError } from '../../media/errors.ts'
import { BLOCK_SIZE } from '../../media/geometry.ts'
import type { Superblock, SuperblockCopy, SuperblockPair } from '../../media/superblock.ts'
import { spentCounter } from '../../media/superblock-check.ts'
import { superblockCodec } from '../../media/superblock-codec.ts'
import { SUPERBLOCK_MAGIC } from '../../media/superblock-layout.ts'
import type { Problem } from './problem.ts'
import type { Salvaged } from './salvage.ts'

export interface SuperblockFindings {
  problems: Problem[]
  notices: string[]
}

export function checkSuperblocks(pair: SuperblockPair): SuperblockFindings {
  const { best, primary, backup } = pair
  const problems = [
    ...checkCopy('primary', primary, best !== undefined),
    ...checkCopy('backup', backup, best !== undefined),
  ]
  if (best === undefined && problems.length === 0) {
    problems.push({
      structure: 'superblock',
      code: 'superblock-strange',
      offset: 0,
      message: 'the two superblocks belong to different filesystems',
      fixable: false,
    })
  }
  const notices: string[] = []
  if (best === undefined) return { problems, notices }
  if (isStale(primary, best)) notices.push('the primary superblock is older than the backup')
  if (isStale(backup, best)) notices.push('the backup superblock is older than the primary')
  if (best.state === 'shutdown') {
    const { shutdownReason: reason, shutdownOffset: offset } = best
    const message = `the filesystem was shut down (${reason}, region offset ${offset})`
    problems.push({ structure: 'superblock', code: 'shutdown', offset, message, fixable: true })
  }
  return { problems, notices }
}

/** A mount refuses to begin near the end of its numbers. */
export function checkCounters(superblock: Superblock, salvaged: Salvaged): Problem[] {
  const message = spentCounter(superblock, salvaged)
  if (message === undefined) return []
  const code = 'superblock-counter'
  return [{ structure: 'superblock', code, offset: 0, message, fixable: true }]
}

function checkCopy(name: string, copy: SuperblockCopy, other: boolean): Problem[] {
  if (!(copy instanceof Error)) return []
  const { offset, message } = copy
  // Memory that cannot be read now cannot be mended by us, only by whoever replaces it.
  const [code, fixable] =
    copy instanceof MemoryFailure ? ['superblock-unreadable', false] : ['superblock-damaged', other]
  return [{ structure: 'superblock', code, offset, message: `${name}: ${message}`, fixable }]
}

function isStale(copy: SuperblockCopy, best: { generation: number }): boolean {
  return !(copy instanceof Error) && copy.generation < best.generation
}

/** True when both copies are there and say the same. */
export function copiesAgree({ primary, backup }: SuperblockPair): boolean {
  if (primary instanceof Error || backup instanceof Error) return false
  return primary.generation === backup.generation
}

/** Nothing in either place even looks like a superblock of ours: this is something else. */
export function isForeign(memory: Memory, pair: SuperblockPair): boolean {
  const places = [pair.primary, pair.backup].map((copy) =>
    copy instanceof Error ? copy.offset - (copy.offset % BLOCK_SIZE) : -1,
  )
  return places.every((place) => place >= 0 && !hasMagic(memory, place))
}

function hasMagic(memory: Memory, place: number): boolean {
  const bytes = Buffer.alloc(SUPERBLOCK_MAGIC.length)
  try {
    memory.read(place + superblockCodec.offsets.magic!, bytes, 0, bytes.length)
    return bytes.toString('latin1') === SUPERBLOCK_MAGIC
  } catch (error) {
    // What cannot be read may well be one.
    if (error instanceof MemoryFailure || error instanceof MediaError) return true
    throw error
  }
}
