/**
 * Checkpoints: the image of the index in one of two slots. The image is written beside the current
 * one and counts from the moment the superblocks point at it.
 */
import { constants } from 'node:buffer'
import type { Memory, MemoryFailure } from '../dax/memory.ts'
import { crc32c } from '../media/checksum.ts'
import { MediaError } from '../media/errors.ts'
import { BLOCK_SIZE, UNIT_SIZE } from '../media/geometry.ts'
import {
  type BlockRange,
  imageOffset,
  type Slots,
  type Superblock,
  writeSuperblocks,
} from '../media/superblock.ts'
import { totalBlocks } from '../media/superblock-check.ts'

/** Bytes of image written per turn of the event loop. */
const SLICE = 1024 * 1024

/** A checkpoint being written. */
interface Work {
  readonly image: Uint8Array
  readonly sequence: number
  readonly slot: 0 | 1
  readonly extents: readonly BlockRange[]
  /** INVARIANT: the first `written` bytes of the image are in the slot, and `crc` is theirs. */
  written: number
  crc: number
  flushed: boolean
}

export class Checkpointer {
  readonly #memory: Memory
  /** Superblocks that could not be written, while the other copy could. */
  failures: readonly MemoryFailure[] = []
  #work: Work | undefined

  constructor(memory: Memory) {
    this.#memory = memory
  }

  /**
   * `image` holds every transaction up to `sequence`; `slot` is the one that is not current, and
   * `extents` are its blocks, in the order the image fills them. A checkpoint begun before is given
   * up: nothing pointed at it.
   */
  begin(image: Uint8Array, sequence: number, slot: 0 | 1, extents: readonly BlockRange[]): void {
    const capacity = totalBlocks(extents) * BLOCK_SIZE
    if (image.length > capacity) {
      throw new RangeError(`an image of ${image.length} bytes for a slot of ${capacity}`)
    }
    this.#work = { image, sequence, slot, extents, written: 0, crc: 0, flushed: false }
  }

  /** Writes the next `bytes` bytes; true while there is more to write. */
  step(bytes = SLICE): boolean {
    const work = this.#current()
    const length = Math.min(bytes, work.image.length - work.written)
    if (length > 0) {
      for (const piece of piecesOf(work.extents, work.written, length)) {
        this.#memory.write(piece.offset, work.image, piece.at, piece.length)
      }
      work.crc = crc32c(work.image, work.written, length, work.crc)
      work.written += length
      work.flushed = false
    }
    return work.written < work.image.length
  }

  /**
   * Makes the image durable, and with it the data of the transactions it holds: on a plain file the
   * whole region, for a host crash after finish() must not find an image whose data is missing.
   */
  async flush(): Promise<void> {
    const work = this.#current()
    const { written } = work
    if (!this.#memory.durableStores) await this.#memory.flushAsync(0, this.#memory.size)
    work.flushed = work.written === written
  }

  /** The same before it returns. */
  flushNow(): void {
    const work = this.#current()
    if (!this.#memory.durableStores) this.#memory.flush(0, this.#memory.size)
    work.flushed = true
  }

  /**
   * Writes what is left, and both superblocks, pointing at the new image. Then the old image and
   * the old journal half may be reused. Returns the superblock as it is on media now.
   */
  finish(superblock: Superblock): Superblock {
    const work = this.#current()
    if (superblock.checkpoint.slot === work.slot) {
      throw new RangeError(`checkpoint slot ${work.slot} is the current one`)
    }
    while (this.step()) {}
    if (!work.flushed) this.flushNow()
    const { sequence, slot, crc } = work
    const slots = slotsWith(superblock, work)
    const checkpoint = { slot, sequence, length: work.image.length, crc }
    const { superblock: written, failures } = writeSuperblocks(this.#memory, {
      ...superblock,
      slots,
      checkpoint,
    })
    this.#work = undefined
    this.failures = failures
    return written
  }

  #current(): Work {
    if (!this.#work) throw new RangeError('no checkpoint was begun')
    return this.#work
  }
}

/**
 * The slot may have grown while the image was written; where the image lies must not have changed.
 */
function slotsWith(superblock: Superblock, { image, slot, extents }: Work): Slots {
  const [one, other] = superblock.slots
  if (sameStart(superblock.slots[slot], extents, image.length)) return superblock.slots
  return slot === 0 ? [extents, other] : [one, extents]
}

/** Do both lists put the first `length` bytes of an image at the same place? */
function sameStart(
  one: readonly BlockRange[],
  other: readonly BlockRange[],
  length: number,
): boolean {
  for (let at = 0; at < length; at += UNIT_SIZE) {
    const [left] = piecesOf(one, at, 1)
    const [right] = piecesOf(other, at, 1)
    if (left?.offset !== right?.offset) return false
  }
  return true
}

/** Bytes [at, at + length) of an image, and where they lie in the region. */
interface Piece {
  readonly at: number
  readonly length: number
  readonly offset: number
}

function* piecesOf(extents: readonly BlockRange[], at: number, length: number): Generator<Piece> {
  const end = at + length
  let start = 0
  for (const { block, blocks } of extents) {
    const from = Math.max(at, start)
    const to = Math.min(end, start + blocks * BLOCK_SIZE)
    if (from < to) {
      yield { at: from, length: to - from, offset: block * BLOCK_SIZE + from - start }
    }
    start += blocks * BLOCK_SIZE
  }
}

/** The current image, verified. Throws MediaError, and MemoryFailure where it cannot be read. */
export function loadImage(memory: Memory, superblock: Superblock): Buffer {
  const { slot, length, crc } = superblock.checkpoint
  const extents = superblock.slots[slot]
  const fail = (sentence: string): never => {
    throw new MediaError(`checkpoint slot ${slot}`, imageOffset(superblock), sentence)
  }
  if (length > constants.MAX_LENGTH) fail(`an image of ${length} bytes is larger than any`)
  // The checksum first: a length that was made up takes no memory.
  let found = 0
  for (const piece of piecesOf(extents, 0, length)) {
    found = memory.crc32c(piece.offset, piece.length, found)
  }
  if (found !== crc) fail('the image fails its checksum')
  const image = Buffer.alloc(length)
  for (const piece of piecesOf(extents, 0, length)) {
    memory.read(piece.offset, image, piece.at, piece.length)
  }
  return image
}
