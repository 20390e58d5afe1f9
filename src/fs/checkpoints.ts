/**
 * When a checkpoint is taken, and where its image goes. The writing itself is
 * journal/checkpoint.ts. A checkpoint runs in slices between operations; whoever cannot wait
 * finishes it synchronously.
 */

import { MemoryFailure } from '../dax/memory.ts'
import { rangesOverlap } from '../index/free-space.ts'
import { Checkpointer } from '../journal/checkpoint.ts'
import { OWNER_CHECKPOINT } from '../media/change.ts'
import { BLOCK_SIZE, BLOCKS_PER_UNIT, UNIT_SIZE } from '../media/geometry.ts'
import {
  type BlockRange,
  type ShutdownReason,
  type Superblock,
  writeSuperblocks,
} from '../media/superblock.ts'
import { MAX_POISON_RANGES, MAX_SLOT_EXTENTS } from '../media/superblock-layout.ts'
import { ENOSPC, FsError } from './errors.ts'
import type { Transaction } from './transaction.ts'
import type { Volume } from './volume.ts'

/** A checkpoint starts when this part of the active journal half is used. */
const JOURNAL_USED_MAX = 0.6
/** Image growth that may happen between two looks at its size, bytes. */
const IMAGE_MARGIN = 1024 * 1024
/** Journal bytes between two looks: an index grows by less than four times its records. */
const LOOK_EVERY = IMAGE_MARGIN / 8

/** Larger than any `used`: look before the next record. */
const LOOK_NOW = Number.MAX_SAFE_INTEGER

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
  #running: Running | undefined
  #lookedAt = LOOK_NOW
  #growing = false

  constructor(volume: Volume) {
    this.#volume = volume
  }

  /** Starts one when the journal is full enough; called after every record. */
  startIfNeeded(): void {
    const { journal, shutdown } = this.#volume
    if (shutdown !== undefined || this.#running !== undefined || this.#growing) return
    if (journal.used < journal.size * JOURNAL_USED_MAX) return
    this.run().catch((error: Error) => this.#volume.hooks.checkpointFailed(error))
  }

  /** Resolves when no checkpoint is being written. */
  async idle(): Promise<void> {
    await this.#running?.done.catch(() => undefined)
  }

  /** Takes a checkpoint of everything up to now: it is on media when this resolves. */
  async run(): Promise<CheckpointResult> {
    for (;;) {
      // Whoever waited longest begins the next one; the others go on waiting.
      while (this.#running !== undefined) await this.#running.done
      this.#volume.requireAlive()
      const running = this.#tryBegin()
      if (running === undefined) continue
      running.done = this.#finishInSlices(running).catch((error) => this.#gaveUp(running, error))
      await running.done
      if (running.completed) return running
      // Memory in its slot failed: the next one goes round it.
      this.#volume.requireAlive()
      this.reserveImage(true)
    }
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
    if (!(error instanceof MemoryFailure) || error.known) throw error
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
    const standby = volume.superblock.checkpoint.slot === 0 ? 1 : 0
    this.#requireRoom(standby)
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

  async #finishInSlices(running: Running): Promise<void> {
    while (this.#running === running && running.checkpointer.step()) {
      await new Promise<void>((resolve) => setImmediate(resolve))
    }
    // Data first: a superblock that names extents must not be durable before their bytes are.
    if (this.#running === running) await running.checkpointer.flush()
    if (this.#running === running) this.#complete(running)
  }

  #finishNow(running: Running): void {
    while (running.checkpointer.step()) {}
    running.checkpointer.flushNow()
    this.#complete(running)
  }

  #complete(running: Running): void {
    const volume = this.#volume
    const { checkpointer } = running
    volume.superblock = checkpointer.finish(volume.superblock)
    volume.journal.releaseOldHalf()
    this.#running = undefined
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
    const { used } = this.#volume.journal
    if (this.#growing || (used >= this.#lookedAt && used - this.#lookedAt < LOOK_EVERY)) return
    this.#lookedAt = used
    const needed = this.#volume.index.imageSize() + IMAGE_MARGIN
    for (const slot of [0, 1] as const) {
      if (this.#capacity(slot) >= needed || this.#grow(slot, needed)) continue
      this.#lookedAt = LOOK_NOW
      if (!freesSpace) throw new FsError(ENOSPC)
    }
  }

  /** A crash may have left the slot short: memory in it failed, and nothing replaced it yet. */
  #requireRoom(slot: 0 | 1): void {
    const needed = this.#volume.index.imageSize()
    if (this.#capacity(slot) >= needed) return
    if (this.#growing || !this.#grow(slot, needed + IMAGE_MARGIN)) throw new FsError(ENOSPC)
  }

  #capacity(slot: 0 | 1): number {
    const slots = this.#volume.superblock.slots[slot]
    return slots.reduce((sum, range) => sum + range.blocks, 0) * BLOCK_SIZE
  }

  #grow(slot: 0 | 1, needed: number): boolean {
    this.#growing = true
    try {
      while (this.#capacity(slot) < needed) {
        // By a half at a time: the superblock lists 64 extents at most.
        const missing = Math.max(needed - this.#capacity(slot), this.#capacity(slot) / 2)
        if (!this.#addUnits(slot, Math.ceil(missing / UNIT_SIZE))) return false
      }
      return true
    } finally {
      this.#growing = false
    }
  }

  #addUnits(slot: 0 | 1, units: number): boolean {
    const volume = this.#volume
    const range = volume.allocator.chooseUnits(units)
    if (range === undefined) return false
    const longer = joinRanges([...volume.superblock.slots[slot], range])
    // A list in too many pieces is full; fsck.holdfast --repair makes fewer of them.
    if (longer.length > MAX_SLOT_EXTENTS) return false
    for (let at = 0; at < range.blocks; at += BLOCKS_PER_UNIT) this.#takeUnit(range.block + at)
    // The superblock must not list a unit that, after a host crash, the index calls free.
    volume.commitNow()
    const slots = [...volume.superblock.slots] as [readonly BlockRange[], readonly BlockRange[]]
    slots[slot] = longer
    volume.superblock = writeSuperblocks(volume.memory, { ...volume.superblock, slots }).superblock
    return true
  }

  /** A crash may have come between the record of poison in the standby slot and its consequence. */
  dropKnown(): void {
    const { superblock, index } = this.#volume
    const standby = superblock.checkpoint.slot === 0 ? 1 : 0
    const failed = superblock.slots[standby].flatMap(({ block, blocks }) =>
      index.poison.overlapping(block, blocks),
    )
    if (failed.length > 0) this.dropUnits(failed)
  }

  /**
   * Takes poisoned units out of the standby slot. Their rows go, their bad blocks stay quarantined.
   */
  dropUnits(failed: readonly BlockRange[]): void {
    const volume = this.#volume
    this.abandon()
    const standby = volume.superblock.checkpoint.slot === 0 ? 1 : 0
    const units = volume.superblock.slots[standby].flatMap(unitsOf)
    const bad = units.filter((unit) => failed.some((range) => rangesOverlap(unit, range)))
    const slots = [...volume.superblock.slots] as [readonly BlockRange[], readonly BlockRange[]]
    const kept = joinRanges(units.filter((unit) => !bad.includes(unit)))
    slots[standby] = kept.slice(0, MAX_SLOT_EXTENTS)
    const gone = [...bad, ...kept.slice(MAX_SLOT_EXTENTS).flatMap(unitsOf)]
    volume.superblock = writeSuperblocks(volume.memory, { ...volume.superblock, slots }).superblock
    // Before the record: it may start the next checkpoint, which needs the slot.
    this.#lookedAt = LOOK_NOW
    volume.transact((transaction) => {
      for (const unit of gone) this.#giveUnitBack(transaction, unit)
    }, true)
  }

  #giveUnitBack(transaction: Transaction, unit: BlockRange): void {
    for (const row of this.#volume.index.rmap.overlapping(unit.block, unit.blocks)) {
      if (row.owner !== OWNER_CHECKPOINT) continue
      const { block, owner, fileBlock } = row
      transaction.apply({ type: 'removeExtent', block, owner, fileBlock })
      for (const rest of unitsOf(row).filter((other) => other.block !== unit.block)) {
        const at = fileBlock + rest.block - block
        transaction.apply({
          type: 'putExtent',
          extent: { ...rest, owner, fileBlock: at, flags: 0 },
        })
      }
    }
    transaction.free(unit.block, unit.blocks)
  }

  /** One row per unit: a failure takes one unit out of a slot, not the slot. */
  #takeUnit(block: number): void {
    const unit = { block, blocks: BLOCKS_PER_UNIT }
    this.#volume.transact((transaction) => {
      transaction.allocate(unit)
      const extent = { ...unit, owner: OWNER_CHECKPOINT, fileBlock: 0, flags: 0 }
      transaction.apply({ type: 'putExtent', extent })
    })
  }
}

/** Appends in order; the image is laid out along the list, so only a direct continuation joins. */
function joinRanges(ranges: readonly BlockRange[]): BlockRange[] {
  const joined: BlockRange[] = []
  for (const range of ranges) {
    const last = joined[joined.length - 1]
    if (last !== undefined && last.block + last.blocks === range.block) {
      joined[joined.length - 1] = { block: last.block, blocks: last.blocks + range.blocks }
    } else joined.push(range)
  }
  return joined
}

function unitsOf(range: BlockRange): BlockRange[] {
  const units: BlockRange[] = []
  for (let at = 0; at < range.blocks; at += BLOCKS_PER_UNIT) {
    units.push({ block: range.block + at, blocks: BLOCKS_PER_UNIT })
  }
  return units
}
