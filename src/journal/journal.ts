/**
 * The redo log: appends transactions to the active half and makes them durable. Positions are bytes
 * from the start of a half. A MemoryFailure goes up to the caller; the memory is avoided from then
 * on.
 */
import { type Memory, MemoryFailure } from '../dax/memory.ts'
import { ByteWriter } from '../media/byte-writer.ts'
import type { Change } from '../media/change.ts'
import { encodeChanges } from '../media/change-codec.ts'
import type { ByteExtent } from '../media/geometry.ts'
import {
  RECORD_ALIGNMENT,
  RECORD_DURABLE_STORES,
  RECORD_HEADER_SIZE,
  RECORD_MARK,
  RECORD_SWITCHED,
  RECORD_TRANSACTION,
  type RecordHeader,
  sealRecord,
} from '../media/record.ts'
import type { Superblock } from '../media/superblock.ts'
import { JournalFullError, RecordTooLargeError } from './errors.ts'
import { GroupCommit } from './group-commit.ts'
import {
  appendLimit,
  type Claim,
  type HalfNumber,
  Halves,
  MARK_ROOM,
  maxRecordLength,
  otherHalf,
} from './halves.ts'
import type { ReplayResult } from './replay.ts'

export { JournalFullError, RecordTooLargeError } from './errors.ts'

export class Journal {
  /** Bytes of a half. */
  readonly size: number
  /** Bytes of the longest record. */
  readonly maxRecord: number
  readonly #memory: Memory
  readonly #halves: Halves
  readonly #seed: number
  readonly #epoch: number
  readonly #regionBlocks: number
  readonly #regionSize: number
  #active: HalfNumber
  /** INVARIANT: a multiple of 64; everything up to it in the active half is in use. */
  #position: number
  /** Bytes of the other half that the checkpoint on media still needs; 0: it is free. */
  #oldUsed: number
  #last: number
  /** INVARIANT: #durable <= #last, and grows. */
  #durable: number
  /** The last sequence when a checkpoint began: what releaseOldHalf() may rely on. */
  #checkpointed: number
  readonly #writer = new ByteWriter()
  /** Used again for every record. */
  readonly #header: RecordHeader
  readonly #commits = new GroupCommit(() => this.#commitGroup())
  readonly #listeners: ((sequence: number) => void)[] = []

  /** Goes on where `replay` ended; writes nothing by itself. */
  constructor(memory: Memory, superblock: Superblock, replay: ReplayResult) {
    this.#memory = memory
    this.#halves = new Halves(superblock)
    this.#seed = superblock.journalSeed
    // A fallback to an older superblock may have brought an epoch that records already carry.
    this.#epoch = Math.max(superblock.epoch, replay.lastEpoch + 1)
    this.#regionBlocks = superblock.geometry.blocks
    this.#regionSize = superblock.geometry.size
    this.#active = replay.activeHalf
    this.#position = replay.position
    this.#oldUsed = replay.otherHalfUsed
    this.#last = replay.lastSequence
    this.#durable = replay.durableSequence
    this.#checkpointed = superblock.checkpoint.sequence
    this.size = this.#half.length
    this.maxRecord = maxRecordLength(this.#half)
    const epoch = this.#epoch
    this.#header = {
      crc: 0,
      magic: 0,
      length: 0,
      kind: 0,
      flags: 0,
      epoch,
      sequence: 0,
      durable: 0,
    }
  }

  get lastSequence(): number {
    return this.#last
  }

  /** The sequence the next transaction will get. */
  get nextSequence(): number {
    return this.#last + 1
  }

  get durableSequence(): number {
    return this.#durable
  }

  /** Bytes of the active half that are in use. */
  get used(): number {
    return this.#position
  }

  get #half(): ByteExtent {
    return this.#halves.extents[this.#active]
  }

  /**
   * Appends one transaction and returns its sequence. Durable on return when the memory has durable
   * stores, else after commit(). Throws JournalFullError, RecordTooLargeError, MemoryFailure; then
   * nothing happened.
   */
  append(changes: readonly Change[], claim: Claim = 'ordinary'): number {
    const writer = this.#writer
    writer.reset()
    writer.take(RECORD_HEADER_SIZE)
    encodeChanges(changes, writer, this.#regionBlocks)
    const { length } = writer
    writer.pad(RECORD_ALIGNMENT)
    if (writer.length > this.maxRecord) throw new RecordTooLargeError(length, this.maxRecord)
    const limit = appendLimit(this.#half, claim)
    const position = this.#place(writer.length + MARK_ROOM, limit)
    const sequence = this.#last + 1
    const header = this.#header
    const durableStores = this.#memory.durableStores && this.#durable === this.#last
    header.kind = RECORD_TRANSACTION
    header.flags = durableStores ? RECORD_DURABLE_STORES : 0
    header.length = length
    header.sequence = sequence
    header.durable = this.#durable
    this.#write(position)
    this.#last = sequence
    if (durableStores) this.#durable = sequence
    return sequence
  }

  /** Resolves when everything appended, and all data written, before the call is durable. */
  commit(): Promise<void> {
    if (this.#nothingToCommit) return Promise.resolve()
    return this.#commits.join()
  }

  /** The same before it returns. */
  commitNow(): void {
    if (this.#nothingToCommit) return
    const sequence = this.#last
    this.#memory.flush(0, this.#regionSize)
    if (sequence === this.#durable) return
    const offset = this.#appendMark(sequence, 0)
    this.#memory.flush(offset, RECORD_HEADER_SIZE)
    this.#becameDurable(sequence)
  }

  /** Runs a checkpoint's flush: none is beside it. */
  alone(flush: () => Promise<void>): Promise<void> {
    return this.#commits.alone(flush)
  }

  /** A flush is under way, or waits for its turn. */
  get flushing(): boolean {
    return this.#commits.busy
  }

  /** Resolves when none is; whoever asked for it hears of its error by himself. */
  idle(): Promise<void> {
    return this.#commits.idle()
  }

  /** Calls back whenever durableSequence grew other than by append(). */
  onDurable(callback: (sequence: number) => void): void {
    this.#listeners.push(callback)
  }

  /**
   * A checkpoint of everything up to lastSequence begins: the next record goes to the start of the
   * other half. When the checkpoint on media still needs that one (after a crash in the middle of a
   * checkpoint, or when one was given up), or it is bad, records go on in this half instead; replay
   * copes with both.
   */
  switchHalves(): void {
    this.#checkpointed = this.#last
    const other = otherHalf(this.#active)
    if (this.#oldUsed > 0 || !this.#halves.usable(other)) return
    // Tells replay that the other half is in use, should its start have become unreadable.
    if (this.#position > 0) this.#tellSwitch()
    this.#oldUsed = this.#position
    this.#begin(other)
  }

  /** One half may have no good memory left for it; replay then looks for itself. */
  #tellSwitch(): void {
    try {
      this.#appendMark(this.#durable, RECORD_SWITCHED)
    } catch (error) {
      if (!(error instanceof JournalFullError)) throw error
    }
  }

  /**
   * Both superblocks point at the checkpoint that began at the last switchHalves(), whose image,
   * and the data it refers to, are durable.
   */
  releaseOldHalf(): void {
    this.#oldUsed = 0
    if (this.#last === this.#checkpointed) this.#restart()
    this.#becameDurable(this.#checkpointed)
  }

  /**
   * Nothing in the journal is needed any more: begin a half anew, unless the active one holds just
   * marks. The other one has what leads from the older image to the new one.
   */
  #restart(): void {
    if (this.#position <= MARK_ROOM) return
    const other = otherHalf(this.#active)
    this.#begin(this.#halves.usable(other) ? other : this.#active)
  }

  #begin(half: HalfNumber): void {
    this.#active = half
    this.#position = 0
  }

  /** Bytes of the region a mount would need, the active half's first. */
  rangesInUse(): ByteExtent[] {
    const active = { offset: this.#half.offset, length: this.#position }
    if (this.#oldUsed === 0) return [active]
    const old = this.#halves.extents[otherHalf(this.#active)]
    return [active, { offset: old.offset, length: this.#oldUsed }]
  }

  /** Unused journal space went bad: no record is written there. */
  avoid(offset: number, length: number): void {
    this.#halves.avoid(offset, length)
  }

  /** Stores into files leave no record, so a commit on a plain file is never nothing. */
  get #nothingToCommit(): boolean {
    return this.#memory.durableStores && this.#durable === this.#last
  }

  async #commitGroup(): Promise<void> {
    const sequence = this.#last
    await this.#memory.flushAsync(0, this.#regionSize)
    if (sequence <= this.#durable) return
    // Records appended meanwhile may lie before the mark and be lost: replay finds it all the same.
    const offset = this.#appendMark(sequence, 0)
    await this.#memory.flushAsync(offset, RECORD_HEADER_SIZE)
    this.#becameDurable(sequence)
  }

  /** Appends a record that says everything up to `durable` is; returns its region offset. */
  #appendMark(durable: number, flags: number): number {
    const writer = this.#writer
    writer.reset()
    writer.take(RECORD_HEADER_SIZE)
    writer.pad(RECORD_ALIGNMENT)
    const header = this.#header
    header.kind = RECORD_MARK
    header.flags = flags
    header.length = RECORD_HEADER_SIZE
    header.sequence = this.#last
    header.durable = durable
    const position = this.#place(writer.length, this.size)
    this.#write(position)
    return this.#half.offset + position
  }

  #place(length: number, limit: number): number {
    const position = this.#halves.place(this.#active, this.#position, length, limit)
    if (position < 0) throw new JournalFullError(length)
    return position
  }

  /** Seals the record in #writer and stores it in one piece: torn, it fails its CRC. */
  #write(position: number): void {
    const { bytes, length } = this.#writer
    sealRecord(this.#header, bytes, this.#seed)
    try {
      this.#memory.write(this.#half.offset + position, bytes, 0, length)
    } catch (error) {
      if (error instanceof MemoryFailure) this.avoid(error.offset, error.length)
      throw error
    }
    this.#position = position + length
  }

  #becameDurable(sequence: number): void {
    if (sequence <= this.#durable) return
    this.#durable = sequence
    for (const listener of this.#listeners) listener(sequence)
  }
}
