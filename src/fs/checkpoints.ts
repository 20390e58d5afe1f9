/**
 * When a checkpoint is taken. The writing itself is journal/checkpoint.ts, the room for it
 * image-slots.ts. A checkpoint runs in slices between operations; whoever cannot wait finishes it
 * synchronously.
 */

import { MemoryFailure } from '../dax/memory.ts'
import { isIndexFull } from '../index/damage.ts'
import { Checkpointer } from '../journal/checkpoint.ts'
import { MediaError } from '../media/errors.ts'
import {
  type BlockRange,
  type ShutdownReason,
  type Superblock,
  writeSuperblocks,
} from '../media/superblock.ts'
import { MAX_POISON_RANGES } from '../media/superblock-layout.ts'
import { EBUSY, EIO, ENOSPC, FsError, isNoSpace } from './errors.ts'
import { IMAGE_MARGIN, ImageSlots } from './image-slots.ts'
import type { Volume } from './volume.ts'

/** A checkpoint starts when this part of the active journal half is used. */
const JOURNAL_USED_MAX = 0.6
/** Journal bytes between two looks: an index grows by less than four times its records. */
const LOOK_EVERY = IMAGE_MARGIN / 8

/** Larger than any `used`: look before the next record. */
const LOOK_NOW = Number.MAX_SAFE_INTEGER

const NO_ROOM = 'no room for a checkpoint image: remove files until 2 MiB in one piece are free'

export interface CheckpointResult {
  sequence: number
  bytes: number
  milliseconds: number
}

interface Running extends CheckpointResult {
  readonly checkpointer: Checkpointer
  readonly started: number
  /** The superblocks point at it. */
  completed: boolean
  /** Resolves when it is complete, or was given up. */
  done: Promise<unknown>
}

export class Checkpoints {
  readonly #volume: Volume
  readonly #slots: ImageSlots
  #running: Running | undefined
  #lookedAt = LOOK_NOW
  /** Journal bytes in use when there was no room for an image; undefined: there was. */
  #noRoomAt: number | undefined
  /** Between the end of the mount and the unmount, which takes the last one. */
  #accepting = false

  constructor(volume: Volume) {
    this.#volume = volume
    this.#slots = new ImageSlots(volume)
  }

  /** Every failure from before the mount has had its consequences: no image can meet it. */
  open(): void {
    this.#accepting = true
  }

  /** The unmount: whoever waits for a checkpoint of his own gets none. */
  close(): void {
    this.#accepting = false
  }

  /** Starts one when the journal is full enough; called after every record. */
  startIfNeeded(): void {
    const { journal, shutdown, frozen } = this.#volume
    // The thaw looks again.
    if (shutdown !== undefined || frozen || !this.#accepting) return
    if (this.#running !== undefined || this.#slots.changing) return
    if (journal.used < journal.size * JOURNAL_USED_MAX) return
    if (this.#noRoomAt !== undefined && journal.used - this.#noRoomAt < LOOK_EVERY) return
    this.run().catch((error: Error) => this.#failedBesides(error))
  }

  /**
   * Without room for an image operations go on while the journal has room for records. Whatever
   * else is an FsError has been dealt with: a shutdown, or the unmount.
   */
  #failedBesides(error: Error): void {
    const { hooks, journal, options } = this.#volume
    if (!(error instanceof FsError)) hooks.checkpointFailed(error)
    if (!isNoSpace(error)) return
    if (this.#noRoomAt === undefined) options.logger.warn(NO_ROOM)
    this.#noRoomAt = journal.used
  }

  /** Resolves when no checkpoint is being written. */
  async idle(): Promise<void> {
    await this.#running?.done.catch(() => undefined)
  }

  /**
   * Takes a checkpoint of everything up to now: it is on media when this resolves. A frozen
   * filesystem takes it after the thaw, for it changes the region.
   */
  async run(): Promise<CheckpointResult> {
    for (;;) {
      this.#requireAccepting()
      if (this.#volume.frozen) await this.#thawed()
      // Whoever waited longest begins the next one; the others go on waiting.
      else if (this.#running !== undefined) await this.#running.done
      else {
        const running = this.#tryBegin()
        if (running === undefined) continue
        running.done = this.#finishInSlices(running).catch((error) => this.#gaveUp(running, error))
        await running.done
        if (running.completed) return running
        // Memory in its slot failed: the next one goes round it.
        this.#requireAccepting()
        if (!this.#volume.frozen) this.reserveImage(true)
      }
    }
  }

  #requireAccepting(): void {
    this.#volume.requireAlive()
    if (!this.#accepting) throw new FsError(EBUSY, 'the unmount takes the last checkpoint')
  }

  /** The unmount ends the wait, too. */
  #thawed(): Promise<void> {
    return new Promise((resolve) => {
      const stop = this.#volume.subscribe(({ event }) => {
        if (event !== 'thaw' && event !== 'unmount') return
        stop()
        resolve()
      })
    })
  }

  #tryBegin(): Running | undefined {
    try {
      return this.#begin()
    } catch (error) {
      if (!(error instanceof MemoryFailure) || error.known) throw error
      this.#volume.memoryFailed(error.offset, error.length)
      return undefined
    }
  }

  /** Unknown bad memory is told to the device; after anything else nobody can go on. */
  #gaveUp(running: Running, error: unknown): void {
    if (this.#running === running) this.abandon()
    if (!(error instanceof MemoryFailure) || error.known) throw this.#volume.undurable(error)
    this.#volume.memoryFailed(error.offset, error.length)
  }

  /** The same before it returns: at unmount, or because the journal is full. */
  runNow(): void {
    if (this.#running !== undefined) this.#finishNow(this.#running)
    this.#finishNow(this.#begin())
  }

  #begin(): Running {
    const volume = this.#volume
    const started = performance.now()
    this.#compactIndex()
    this.#slots.trim()
    if (!this.#slots.makeRoom() && !this.#fitsCompacted()) {
      volume.hooks.makeSpace()
      if (!this.#slots.makeRoom()) throw new FsError(ENOSPC, NO_ROOM)
    }
    const { standby } = this.#slots
    const sequence = volume.journal.lastSequence
    const image = volume.index.serialize()
    volume.journal.switchHalves()
    const checkpointer = new Checkpointer(volume.memory)
    checkpointer.begin(image, sequence, standby, volume.superblock.slots[standby])
    const result = { sequence, bytes: image.length, milliseconds: 0 }
    const done = Promise.resolve()
    this.#running = { ...result, checkpointer, started, completed: false, done }
    return this.#running
  }

  /** An index that was large once is no reason to write as much for ever. */
  #compactIndex(always = false): void {
    const { index } = this.#volume
    try {
      if (always || index.isSparse()) index.compact()
    } catch (error) {
      if (!isIndexFull(error)) throw error
    }
  }

  /** A page that is partly empty takes the same room as a full one. */
  #fitsCompacted(): boolean {
    if (!this.#volume.index.hasFreePages()) return false
    this.#compactIndex(true)
    return this.#slots.makeRoom()
  }

  async #finishInSlices(running: Running): Promise<void> {
    while (this.#running === running && this.#step(running)) {
      await new Promise<void>((resolve) => setImmediate(resolve))
    }
    // Data first: a superblock that names extents must not be durable before their bytes are.
    await this.#volume.journal.alone(async () => {
      if (this.#running === running) await running.checkpointer.flush()
    })
    if (this.#running === running) this.#complete(running)
  }

  #finishNow(running: Running): void {
    try {
      while (this.#step(running)) {}
      running.checkpointer.flushNow()
      this.#complete(running)
    } catch (error) {
      // Nobody goes on with it, so nobody may wait for it.
      if (this.#running === running) this.abandon()
      throw this.#volume.undurable(error)
    }
  }

  /** A slot with memory on record as bad: somebody made this index; it was told free and bad. */
  #step({ checkpointer }: Running): boolean {
    try {
      return checkpointer.step()
    } catch (error) {
      if (!(error instanceof MemoryFailure) || !error.known) throw error
      const sentence = 'a slot for images lies on memory that is on record as bad'
      this.#volume.hooks.damaged(new MediaError('checkpoint', error.offset, sentence))
      throw new FsError(EIO)
    }
  }

  #complete(running: Running): void {
    const volume = this.#volume
    const { checkpointer } = running
    volume.superblock = checkpointer.finish(volume.superblock)
    volume.journal.releaseOldHalf()
    this.#running = undefined
    this.#noRoomAt = undefined
    running.completed = true
    running.milliseconds = Math.round(performance.now() - running.started)
    const { sequence, bytes, milliseconds } = running
    volume.emit({ event: 'checkpoint', time: volume.timestamp(), sequence, bytes, milliseconds })
    for (const { offset, length } of checkpointer.failures) volume.memoryFailed(offset, length)
  }

  /** Forgets a checkpoint that can no longer be completed. */
  abandon(): void {
    this.#running = undefined
  }

  /**
   * The last writes after a metadata failure: the index in memory is whole, so its image goes into
   * the standby slot, and state, reason and poison into every healthy superblock.
   */
  emergency(reason: ShutdownReason, offset: number, poison: readonly BlockRange[]): void {
    const volume = this.#volume
    this.abandon()
    let superblock: Superblock = volume.superblock
    try {
      // An index that contradicts itself is not saved over the image that may still be good.
      if (reason !== 'corrupt-index') superblock = this.#saveImage(superblock)
    } catch (error) {
      volume.options.logger.error(`the emergency checkpoint failed: ${(error as Error).message}`)
    }
    volume.superblock = writeSuperblocks(volume.memory, {
      ...superblock,
      state: 'shutdown',
      shutdownReason: reason,
      shutdownOffset: offset,
      poison: [...superblock.poison, ...poison].slice(0, MAX_POISON_RANGES),
    }).superblock
  }

  #saveImage(superblock: Superblock): Superblock {
    const volume = this.#volume
    const standby = superblock.checkpoint.slot === 0 ? 1 : 0
    const checkpointer = new Checkpointer(volume.memory)
    const image = volume.index.serialize()
    checkpointer.begin(image, volume.journal.lastSequence, standby, superblock.slots[standby])
    while (checkpointer.step()) {}
    checkpointer.flushNow()
    return checkpointer.finish(superblock)
  }

  /**
   * Keeps both slots large enough for the next image, so that a full filesystem can still delete.
   * Operations that free space go on without; others get ENOSPC.
   */
  reserveImage(freesSpace: boolean): void {
    const { journal, hooks } = this.#volume
    const { used } = journal
    if (this.#slots.changing || (used >= this.#lookedAt && used - this.#lookedAt < LOOK_EVERY))
      return
    this.#lookedAt = used
    if (this.#reserveBoth()) return
    this.#lookedAt = LOOK_NOW
    if (freesSpace) return
    hooks.makeSpace()
    this.#moveSlots()
    if (!this.#reserveBoth()) throw new FsError(ENOSPC)
    this.#lookedAt = journal.used
  }

  /** Half of the margin is theirs: the other half is for what the next look does not see yet. */
  imageMayGrow(): boolean {
    if (this.#lookedAt !== LOOK_NOW || this.#slots.changing) return true
    return this.#slots.hasRoom(IMAGE_MARGIN / 2)
  }

  #reserveBoth(): boolean {
    const [one, other] = [this.#slots.reserve(0), this.#slots.reserve(1)]
    return one && other
  }

  /** A slot in too many pieces moves into one; the one in use after it was superseded. */
  #moveSlots(): void {
    const slots = this.#slots
    if (!slots.couldMove(0) && !slots.couldMove(1)) return
    if (this.#running !== undefined) this.#finishNow(this.#running)
    slots.move(slots.standby)
    if (!slots.couldMove(this.#volume.superblock.checkpoint.slot)) return
    this.runNow()
    slots.move(slots.standby)
  }

  /** The older superblock, where the newer one is lost, may list what was taken out since. */
  dropKnown(): void {
    const { superblock, index } = this.#volume
    const failed = superblock.slots[this.#slots.standby].flatMap(({ block, blocks }) =>
      index.poison.overlapping(block, blocks),
    )
    if (failed.length > 0) this.dropUnits(failed)
  }

  /**
   * Takes failed units out of the standby slot. `record` puts the failure on record: it may start
   * the next checkpoint, or need one, so it comes when no image goes to these units any more.
   */
  dropUnits(failed: readonly BlockRange[], record = () => {}): void {
    this.abandon()
    // Before the records: the next checkpoint needs the slot.
    this.#lookedAt = LOOK_NOW
    this.#slots.drop(failed, record)
  }
}
