/**
 * The two slots of checkpoint images: whole units of data space that grow and shrink with the
 * index, so that there is room for the next image before there is an image to write.
 *
 * INVARIANT: a unit that the superblock lists is never free in the index; after a crash it may be
 * the other way round (mount.ts settles that).
 */
import { rangesOverlap } from '../index/free-space.ts'
import { OWNER_CHECKPOINT } from '../media/change.ts'
import { BLOCK_SIZE, BLOCKS_PER_UNIT, UNIT_SIZE } from '../media/geometry.ts'
import { type BlockRange, type Slots, writeSuperblocks } from '../media/superblock.ts'
import { totalBlocks } from '../media/superblock-check.ts'
import { MAX_SLOT_EXTENTS } from '../media/superblock-layout.ts'
import type { Transaction } from './transaction.ts'
import type { Volume } from './volume.ts'

export type SlotNumber = 0 | 1

/** Image growth that may happen between two looks at its size, bytes. */
export const IMAGE_MARGIN = 1024 * 1024
/** A slot gives units back when it has so many times the room it needs. */
const SPARE_FACTOR = 2

export class ImageSlots {
  readonly #volume: Volume
  #changing = false

  constructor(volume: Volume) {
    this.#volume = volume
  }

  /** The records of a change of the slots are being written. */
  get changing(): boolean {
    return this.#changing
  }

  /** The slot that the next image goes to. */
  get standby(): SlotNumber {
    return this.#volume.superblock.checkpoint.slot === 0 ? 1 : 0
  }

  /** True when the slot has room for the next image and what it may grow by, or got it. */
  reserve(slot: SlotNumber): boolean {
    return this.#capacity(slot) >= this.#needed || this.#grow(slot, this.#needed)
  }

  /** The same for the image as it is now, in the standby slot: a crash may have left it short. */
  makeRoom(): boolean {
    const slot = this.standby
    if (this.#capacity(slot) >= this.#volume.index.imageSize()) return true
    return !this.#changing && (this.#grow(slot, this.#needed) || this.move(slot))
  }

  /** Have both slots room for an image that has grown by `growth` bytes? */
  hasRoom(growth: number): boolean {
    const needed = this.#volume.index.imageSize(growth)
    return this.#capacity(0) >= needed && this.#capacity(1) >= needed
  }

  get #needed(): number {
    return this.#volume.index.imageSize(IMAGE_MARGIN)
  }

  #capacity(slot: SlotNumber): number {
    return totalBlocks(this.#volume.superblock.slots[slot]) * BLOCK_SIZE
  }

  #grow(slot: SlotNumber, needed: number): boolean {
    while (this.#capacity(slot) < needed) {
      // By a half at a time: the superblock lists 64 extents at most.
      const missing = Math.max(needed - this.#capacity(slot), this.#capacity(slot) / 2)
      const range = this.#volume.allocator.chooseUnits(Math.ceil(missing / UNIT_SIZE))
      if (range === undefined) return false
      const longer = joinRanges([...this.#volume.superblock.slots[slot], range])
      if (longer.length > MAX_SLOT_EXTENTS) return false
      this.#take(range)
      this.#list(slot, longer)
    }
    return true
  }

  /** Is the slot's list of extents full, and is there room for all of it in one piece? */
  couldMove(slot: SlotNumber): boolean {
    if (this.#volume.superblock.slots[slot].length < MAX_SLOT_EXTENTS) return false
    return this.#roomElsewhere() !== undefined
  }

  /**
   * Gives a slot whose list is full other units, all in one piece. Nothing in the standby slot is
   * needed, so only that one can move, and only while no image is written to it.
   */
  move(slot: SlotNumber): boolean {
    const range = this.couldMove(slot) ? this.#roomElsewhere() : undefined
    if (range === undefined || slot !== this.standby) return false
    const old = this.#volume.superblock.slots[slot]
    this.#take(range)
    // A full journal may have forced a checkpoint into the old place.
    const moves = slot === this.standby
    if (moves) this.#list(slot, [range])
    this.#change(() => this.#giveBack((moves ? old : [range]).flatMap(unitsOf)))
    return moves
  }

  #roomElsewhere(): BlockRange | undefined {
    const units = Math.ceil(this.#needed / UNIT_SIZE)
    const range = this.#volume.allocator.chooseUnits(units)
    return range?.blocks === units * BLOCKS_PER_UNIT ? range : undefined
  }

  /** Gives back what the standby slot has too much since the index became small. */
  trim(): void {
    const slot = this.standby
    const units = this.#volume.superblock.slots[slot].flatMap(unitsOf)
    const needed = Math.ceil(this.#needed / UNIT_SIZE)
    if (this.#changing || units.length < SPARE_FACTOR * needed) return
    this.#list(slot, joinRanges(units.slice(0, needed)))
    this.#change(() => this.#giveBack(units.slice(needed)))
  }

  /**
   * Takes failed units out of the standby slot. They are given back after `record`, when the index
   * knows what of them is bad: that stays quarantined.
   */
  drop(failed: readonly BlockRange[], record: () => void): void {
    const slot = this.standby
    const units = this.#volume.superblock.slots[slot].flatMap(unitsOf)
    const bad = units.filter((unit) => failed.some((range) => rangesOverlap(unit, range)))
    const kept = joinRanges(units.filter((unit) => !bad.includes(unit)))
    this.#list(slot, kept.slice(0, MAX_SLOT_EXTENTS))
    record()
    this.#giveBack([...bad, ...kept.slice(MAX_SLOT_EXTENTS).flatMap(unitsOf)])
  }

  #list(slot: SlotNumber, extents: readonly BlockRange[]): void {
    const volume = this.#volume
    const slots: [Slots[0], Slots[1]] = [...volume.superblock.slots]
    slots[slot] = extents
    try {
      const next = { ...volume.superblock, slots }
      volume.superblock = writeSuperblocks(volume.memory, next).superblock
    } catch (error) {
      throw volume.undurable(error)
    }
  }

  /** Its records start no checkpoint, and do not look for room themselves. */
  #change(body: () => void): void {
    this.#changing = true
    try {
      body()
    } finally {
      this.#changing = false
    }
  }

  /** One row per unit: a failure takes one unit out of a slot, not the slot. */
  #take(range: BlockRange): void {
    const volume = this.#volume
    this.#change(() => {
      for (const unit of unitsOf(range)) {
        // With the room kept for what frees space: a checkpoint frees the journal.
        volume.transact((transaction) => {
          transaction.essential = true
          transaction.allocate(unit)
          const extent = { ...unit, owner: OWNER_CHECKPOINT, fileBlock: 0, flags: 0 }
          transaction.apply({ type: 'putExtent', extent })
        }, true)
      }
      // The superblock must not list a unit that, after a host crash, the index calls free.
      volume.commitNow()
    })
  }

  #giveBack(units: readonly BlockRange[]): void {
    this.#volume.transact((transaction) => {
      transaction.essential = true
      for (const unit of units) this.#giveUnitBack(transaction, unit)
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
