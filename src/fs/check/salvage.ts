/**
 * From a region to an index whatever it takes: the current image and the whole journal; if the
 * journal is damaged, its valid beginning; if the image is, the older one. Writes nothing.
 */
import { type Memory, MemoryFailure } from '../../dax/memory.ts'
import { Index } from '../../index/index.ts'
import { Chain } from '../../journal/chain.ts'
import { loadImage } from '../../journal/checkpoint.ts'
import { type ListedRecord, listRecords, scanJournal } from '../../journal/replay.ts'
import type { Change } from '../../media/change.ts'
import { MediaError } from '../../media/errors.ts'
import { RECORD_DURABLE_STORES, RECORD_TRANSACTION, type RecordHeader } from '../../media/record.ts'
import type { Superblock } from '../../media/superblock.ts'

export interface Salvaged {
  readonly index: Index
  /** The last transaction in the index. */
  readonly sequence: number
  /** The highest epoch of a record, if the whole journal was read; or 0. */
  readonly epoch: number
  readonly transactions: number
  /** What was in the way, if the journal was damaged. */
  readonly damage?: Error
  /** At most that many transactions after `sequence` are gone. */
  readonly lost: number
  /** Transactions that a host crash left unconfirmed, and that a mount would drop as well. */
  readonly stoppedAtMark: boolean
}

/** Errors that say something of the region; everything else is a bug of ours. */
export function isDamage(error: unknown): error is MediaError | MemoryFailure {
  return error instanceof MediaError || error instanceof MemoryFailure
}

/** Throws MediaError or MemoryFailure when the image itself cannot be used. */
export function openImage(memory: Memory, superblock: Superblock): Index {
  return Index.open(loadImage(memory, superblock))
}

/** Replays onto `index`; closes it when it throws. */
export function replay(
  memory: Memory,
  superblock: Superblock,
  index: Index,
  boot: string,
  known = 0,
): Salvaged {
  try {
    index.begin()
    const result = scanJournal(memory, superblock, {
      bootId: boot,
      known,
      onTransaction: (_sequence, changes) => applyAll(superblock, index, changes),
    })
    index.commit()
    const { lastSequence: sequence, lastEpoch: epoch, transactions, stoppedAtMark } = result
    return { index, sequence, epoch, transactions, lost: 0, stoppedAtMark }
  } catch (error) {
    index.rollback()
    if (isDamage(error)) return replayPrefix(memory, superblock, index, boot, error)
    index.close()
    throw error
  }
}

function applyAll(superblock: Superblock, index: Index, changes: readonly Change[]): void {
  try {
    for (const change of changes) index.apply(change)
  } catch (error) {
    if (error instanceof MediaError) throw error
    const { offset } = superblock.geometry.journal[0]
    throw new MediaError('journal', offset, `a record does not fit (${(error as Error).message})`)
  }
}

/** Every transaction up to the first that is missing or does not fit. */
function replayPrefix(
  memory: Memory,
  superblock: Superblock,
  index: Index,
  boot: string,
  damage: Error,
): Salvaged {
  const records = recordsAfter(memory, superblock)
  const trusted = trust(superblock, records, boot)
  let { sequence } = superblock.checkpoint
  let transactions = 0
  for (const record of validChain(memory, superblock, records)) {
    if (!trusted(record.header)) break
    try {
      index.begin()
      applyAll(superblock, index, record.changes())
      index.commit()
    } catch (error) {
      index.rollback()
      if (!isDamage(error)) throw error
      break
    }
    sequence = record.header.sequence
    transactions++
  }
  const highest = records.reduce((most, { header }) => {
    return trusted(header) ? Math.max(most, header.sequence, header.durable) : most
  }, sequence)
  const lost = highest - sequence
  return { index, sequence, epoch: 0, transactions, damage, lost, stoppedAtMark: false }
}

function recordsAfter(memory: Memory, superblock: Superblock): ListedRecord[] {
  const { sequence } = superblock.checkpoint
  return [...listRecords(memory, superblock)].filter(({ header }) => header.sequence > sequence)
}

/** The transactions of the chain, as far as it goes. */
function* validChain(
  memory: Memory,
  superblock: Superblock,
  records: readonly ListedRecord[],
): Generator<ListedRecord> {
  const byPlace = new Map(records.map((record) => [`${record.half}:${record.position}`, record]))
  try {
    for (const { half, position, header } of new Chain(memory, superblock).links()) {
      const record = byPlace.get(`${half}:${position}`)
      if (header.kind === RECORD_TRANSACTION && record !== undefined) yield record
    }
  } catch (error) {
    if (!isDamage(error)) throw error
  }
}

/** The rule of the mount, with all records as witnesses: also those behind the gap. */
function trust(superblock: Superblock, records: readonly ListedRecord[], boot: string) {
  let durable = superblock.checkpoint.sequence
  for (const { header } of records) {
    durable = Math.max(durable, header.durable)
    if ((header.flags & RECORD_DURABLE_STORES) !== 0) durable = Math.max(durable, header.sequence)
  }
  const sameBoot = superblock.bootId === boot
  return (header: RecordHeader): boolean =>
    header.sequence <= durable || (sameBoot && header.epoch >= superblock.bootEpoch)
}
