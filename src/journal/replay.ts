/**
 * From a checkpoint to the last transaction: what a mount applies, and where the journal goes on.
 */
import { type Memory, MemoryFailure } from '../dax/memory.ts'
import type { Change } from '../media/change.ts'
import { decodeChanges } from '../media/change-codec.ts'
import {
  paddedLength,
  RECORD_DURABLE_STORES,
  RECORD_HEADER_SIZE,
  RECORD_MARK,
  RECORD_SWITCHED,
  RECORD_TRANSACTION,
  type RecordHeader,
} from '../media/record.ts'
import type { Superblock } from '../media/superblock.ts'
import { Chain, type Link } from './chain.ts'
import { type HalfNumber, Halves, MARK_ROOM, otherHalf } from './halves.ts'
import { findRecords, recordAt } from './record-scan.ts'

export interface ReplayOptions {
  /** This host's boot id. */
  readonly bootId: string
  /** The last transaction that is durable whatever the records say of it. */
  readonly known?: number
  readonly onTransaction: (sequence: number, changes: readonly Change[]) => void
}

export interface ReplayResult {
  /** The last transaction that counts: the checkpoint's when there is none in the journal. */
  readonly lastSequence: number
  /** The highest epoch a record carries; 0 when there is none. */
  readonly lastEpoch: number
  readonly durableSequence: number
  readonly activeHalf: HalfNumber
  /** Where the next record goes, bytes from the start of the active half. */
  readonly position: number
  /** Bytes of the other half that the checkpoint on media still needs; 0: it is free. */
  readonly otherHalfUsed: number
  readonly transactions: number
  /** Valid records were left out: the host crashed before they were known to be durable. */
  readonly stoppedAtMark: boolean
}

/**
 * Finds the records that continue the superblock's checkpoint and passes them on in order. Nothing
 * is passed on when the journal is damaged: MediaError. Writes nothing.
 */
export function scanJournal(
  memory: Memory,
  superblock: Superblock,
  options: ReplayOptions,
): ReplayResult {
  const trusted = trust(memory, superblock, options)
  let result = emptyJournal(superblock, halfToBegin(memory, superblock))
  let switched = false
  for (const link of new Chain(memory, superblock).links()) {
    if (!trusted(link.header)) {
      return { ...result, ...placeOf(result, link, link.position), stoppedAtMark: true }
    }
    const { header, position } = link
    result = {
      ...result,
      ...placeOf(result, link, position + paddedLength(header.length)),
      lastSequence: header.sequence,
      lastEpoch: header.epoch,
      durableSequence: durableBehind(result, header),
    }
    switched = header.kind === RECORD_MARK && (header.flags & RECORD_SWITCHED) !== 0
    if (header.kind !== RECORD_TRANSACTION) continue
    result = { ...result, transactions: result.transactions + 1 }
    options.onTransaction(header.sequence, readChanges(memory, superblock, link))
  }
  return switched ? { ...result, ...crossOver(result) } : result
}

/** A journal in which nothing continues the checkpoint: also what a fresh filesystem has. */
export function emptyJournal(superblock: Superblock, begin: HalfNumber = 0): ReplayResult {
  const { sequence } = superblock.checkpoint
  const activeHalf = new Halves(superblock).usable(begin) ? begin : otherHalf(begin)
  return {
    lastSequence: sequence,
    lastEpoch: 0,
    durableSequence: sequence,
    activeHalf,
    position: 0,
    otherHalfUsed: 0,
    transactions: 0,
    stoppedAtMark: false,
  }
}

/**
 * Where an empty journal goes on, as it would have behind the last checkpoint: not in the half with
 * the transactions that lead up to it. The older image needs those, should the current one be lost.
 */
function halfToBegin(memory: Memory, superblock: Superblock): HalfNumber {
  const one = firstSequence(memory, superblock, 0)
  const other = firstSequence(memory, superblock, 1)
  return one > other ? 1 : 0
}

/** Of the first transaction in a half, if the checkpoint has it; else, or if unreadable, 0. */
function firstSequence(memory: Memory, superblock: Superblock, half: HalfNumber): number {
  const { geometry, journalSeed: seed, checkpoint } = superblock
  const source = { memory, half: geometry.journal[half], seed }
  try {
    // Marks may come before it, but no more than a half has room for behind a transaction.
    for (let position = 0; position <= MARK_ROOM; ) {
      const header = recordAt(source, position)
      if (header === undefined || header.sequence > checkpoint.sequence) break
      if (header.kind === RECORD_TRANSACTION) return header.sequence
      position += paddedLength(header.length)
    }
  } catch (error) {
    if (!(error instanceof MemoryFailure)) throw error
  }
  return 0
}

/**
 * Walks the whole chain once, so that damage is met before anything is applied, and returns which
 * records count. On a plain file the host may have written a record back before the data it refers
 * to; after a host crash only what a later record calls durable can be relied on.
 */
function trust(memory: Memory, superblock: Superblock, { bootId, known = 0 }: ReplayOptions) {
  const chain = new Chain(memory, superblock)
  for (const _ of chain.links());
  const durable = Math.max(chain.durable, known)
  const sameBoot = superblock.bootId === bootId
  return (header: RecordHeader): boolean =>
    header.sequence <= durable || (sameBoot && header.epoch >= superblock.bootEpoch)
}

function placeOf(result: ReplayResult, link: Link, position: number) {
  if (result.transactions === 0 || link.half === result.activeHalf) {
    return { activeHalf: link.half, position }
  }
  return { activeHalf: link.half, position, otherHalfUsed: result.position }
}

/** The journal had gone over to the other half, but nothing had been written there. */
function crossOver({ activeHalf, position, transactions }: ReplayResult) {
  const otherHalfUsed = transactions > 0 ? position : 0
  return { activeHalf: otherHalf(activeHalf), position: 0, otherHalfUsed }
}

function durableBehind(result: ReplayResult, header: RecordHeader): number {
  const byItself = (header.flags & RECORD_DURABLE_STORES) !== 0 ? header.sequence : 0
  return Math.max(result.durableSequence, header.durable, byItself)
}

function readChanges(memory: Memory, superblock: Superblock, link: Link): Change[] {
  const { geometry } = superblock
  const offset = geometry.journal[link.half].offset + link.position + RECORD_HEADER_SIZE
  const payload = Buffer.alloc(link.header.length - RECORD_HEADER_SIZE)
  memory.read(offset, payload, 0, payload.length)
  return decodeChanges(payload, 0, payload.length, offset, geometry.blocks)
}

export interface ListedRecord extends Link {
  /** Decodes the payload; throws MediaError. */
  changes(): Change[]
}

/** Every valid record in both halves, in use or not, as it lies: for dump and fsck. */
export function* listRecords(memory: Memory, superblock: Superblock): Generator<ListedRecord> {
  for (const half of [0, 1] as const) {
    const source = { memory, half: superblock.geometry.journal[half], seed: superblock.journalSeed }
    for (const found of findRecords(source, 0, () => true)) {
      const link = { ...found, half }
      yield { ...link, changes: () => readChanges(memory, superblock, link) }
    }
  }
}
