/**
 * The chain of records that continue a checkpoint. It is followed without applying anything:
 * whether the journal is damaged must be known first.
 */
import { type Memory, MemoryFailure } from '../dax/memory.ts'
import { MediaError } from '../media/errors.ts'
import { BLOCK_SIZE } from '../media/geometry.ts'
import {
  paddedLength,
  RECORD_DURABLE_STORES,
  RECORD_SWITCHED,
  RECORD_TRANSACTION,
  type RecordHeader,
} from '../media/record.ts'
import type { Superblock } from '../media/superblock.ts'
import { type HalfNumber, otherHalf } from './halves.ts'
import { type FoundRecord, findRecords, type RecordSource, recordAt } from './record-scan.ts'

const HALVES = [0, 1] as const

export interface Link extends FoundRecord {
  readonly half: HalfNumber
}

/** What lies where a record may be: a link, or a page that cannot be read, or nothing. */
interface Look {
  readonly link?: Link | undefined
  readonly failure?: MemoryFailure
}

type Wanted = (header: RecordHeader) => boolean

export class Chain {
  readonly #superblock: Superblock
  readonly #sources: readonly [RecordSource, RecordSource]
  /** What lies at the start of each half, looked up once. */
  readonly #starts: readonly [Look, Look]
  /** The record the chain has got to. */
  #last: Link | undefined
  #sequence: number
  #epoch = 0
  #durable: number
  /** The half the chain has left: it does not come back. */
  #left: HalfNumber | undefined
  /** Why a place where the next record belongs could not be read. */
  #unreadable: MemoryFailure | undefined

  constructor(memory: Memory, superblock: Superblock) {
    const [first, second] = superblock.geometry.journal
    const common = { memory, seed: superblock.journalSeed }
    this.#superblock = superblock
    this.#sources = [
      { ...common, half: first },
      { ...common, half: second },
    ]
    this.#starts = [this.#look(0, 0), this.#look(1, 0)]
    this.#sequence = superblock.checkpoint.sequence
    this.#durable = this.#sequence
  }

  /**
   * The last sequence that any record, in the chain or behind its end, says is durable; complete
   * when links() is.
   * INVARIANT: a mount replays as far, so no sequence up to it is ever used again: a mark left over
   * by a host crash can never bear witness against records written later.
   */
  get durable(): number {
    return this.#durable
  }

  /**
   * The records in order. Throws MediaError at the end when records that were durable are missing.
   */
  *links(): Generator<Link> {
    for (;;) {
      const link = this.#last ? this.#next(this.#last) : this.#first()
      if (!link) break
      this.#follow(link)
      yield link
    }
    if (this.#unreadable) this.#judge(this.#unreadable)
  }

  /** Is this the record behind the last? A mark repeats the sequence it comes behind. */
  readonly #continues: Wanted = (header) => {
    if (header.epoch < this.#epoch) return false
    return header.sequence === this.#sequence + (header.kind === RECORD_TRANSACTION ? 1 : 0)
  }

  /**
   * The record behind the checkpoint. As a rule it is at the start of a half; it is further on
   * when a checkpoint had to be taken without a switch, or when the start of the half was bad.
   */
  #first(): Link | undefined {
    const [one, other] = this.#starts
    const found = newer(only(one, this.#continues), only(other, this.#continues))
    if (found) return found
    this.#unreadable = one.failure ?? other.failure
    if (this.#superblock.state === 'clean') return undefined
    const isFirst: Wanted = (header) =>
      header.kind === RECORD_TRANSACTION && this.#continues(header)
    return this.#search(HALVES, () => 0, isFirst)
  }

  #next(last: Link): Link | undefined {
    const { half } = last
    const position = last.position + paddedLength(last.header.length)
    const here = this.#look(half, position, this.#continues)
    this.#unreadable = here.failure
    if (this.#left !== undefined) {
      return here.link ?? this.#search([half], () => position, this.#continues)
    }
    const other = otherHalf(half)
    const start = this.#starts[other]
    // Both: what lies here was left unreplayed once, and then the journal went on over there.
    const found = newer(here.link, only(start, this.#continues))
    if (found) return found
    const switched = (last.header.flags & RECORD_SWITCHED) !== 0
    if (switched) this.#unreadable ??= start.failure
    const startOf = (which: HalfNumber) => (which === half ? position : 0)
    return this.#search([half, other], startOf, this.#continues)
  }

  #follow(link: Link): void {
    if (this.#last && this.#last.half !== link.half) this.#left = this.#last.half
    this.#last = link
    this.#unreadable = undefined
    this.#sequence = link.header.sequence
    this.#epoch = link.header.epoch
    this.#witness(link.header)
  }

  #witness({ flags, sequence, durable }: RecordHeader): void {
    const byItself = (flags & RECORD_DURABLE_STORES) !== 0 ? sequence : 0
    this.#durable = Math.max(this.#durable, durable, byItself)
  }

  #look(half: HalfNumber, position: number, wanted?: Wanted): Look {
    try {
      const header = recordAt(this.#sources[half], position, wanted)
      return header ? { link: { half, position, header } } : {}
    } catch (error) {
      if (error instanceof MemoryFailure) return { failure: error }
      throw error
    }
  }

  /**
   * The wanted record wherever it is: the journal goes round memory it knows to be bad, so the
   * chain may have gaps. Where it is not, a later record that proves it was durable means damage.
   */
  #search(
    halves: readonly HalfNumber[],
    startOf: (half: HalfNumber) => number,
    wanted: Wanted,
  ): Link | undefined {
    const last = this.#sequence
    const isLater: Wanted = ({ sequence, durable }) => sequence > last && durable > last
    let best: Link | undefined
    let proof: Link | undefined
    for (const half of halves) {
      const source = this.#sources[half]
      const telling: Wanted = (header) =>
        wanted(header) || isLater(header) || header.durable > this.#durable
      for (const found of findRecords(source, startOf(half), telling)) {
        this.#witness(found.header)
        const link = { half, ...found }
        if (wanted(found.header)) {
          best = newer(best, link)
          break
        }
        if (isLater(found.header)) proof ??= link
      }
    }
    if (!best && proof) this.#damaged(startOf(halves[0]!), halves[0]!, proof)
    return best
  }

  #damaged(position: number, half: HalfNumber, proof: Link): never {
    const offset = this.#sources[half].half.offset + position
    const place = this.#sources[proof.half].half.offset + proof.position
    const sentence =
      `transaction ${this.#sequence + 1} is missing, though the record at ${place} says that it ` +
      `was durable: the journal is damaged, run fsck.holdfast --repair`
    throw new MediaError('journal', offset, sentence)
  }

  /** The next record may, or may not, have been where the memory failed. */
  #judge(failure: MemoryFailure): void {
    const { state, poison, checkpoint } = this.#superblock
    // A clean filesystem needs no journal.
    if (state === 'clean' && this.#sequence === checkpoint.sequence) return
    const failed = (range: { block: number; blocks: number }) =>
      range.block * BLOCK_SIZE <= failure.offset &&
      failure.offset < (range.block + range.blocks) * BLOCK_SIZE
    // What was known to be bad at mount was not written to; what a shutdown wrote down may have
    // been.
    if (state === 'dirty' && poison.some(failed)) return
    const sentence = 'the memory failed where the journal goes on: run fsck.holdfast --repair'
    throw new MediaError('journal', failure.offset, sentence)
  }
}

function only({ link }: Look, wanted: Wanted): Link | undefined {
  return link && wanted(link.header) ? link : undefined
}

/** The link of the later epoch; the first of equals. */
function newer(one: Link | undefined, other: Link | undefined): Link | undefined {
  if (!one || !other) return one ?? other
  return other.header.epoch > one.header.epoch ? other : one
}
