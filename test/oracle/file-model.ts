/**
 * What one file must be: its bytes, which of its blocks have memory, and which of that memory has
 * failed. What docs/FAILURE.md promises, said once more and independently of src/fs.
 */
import { createHash } from 'node:crypto'

export const BLOCK = 4096
export const BLOCKS_MAX = 48
export const FILE_MAX = BLOCKS_MAX * BLOCK

/** What a block of a file has. */
export const HOLE = 0
export const UNWRITTEN = 1
export const DATA = 2

/** Bytes [offset, end) of which the model is not sure: a write that failed may have got so far. */
export interface Doubt {
  readonly file: FileModel
  readonly offset: number
  readonly end: number
  /** What else the bytes from `offset` on may be; behind these, anything. */
  readonly other: Buffer
}

/** The bytes of write number `number`: never those of another one, and not periodic in blocks. */
export function payload(number: number, length: number): Buffer {
  const unit = Buffer.concat([createHash('md5').update(String(number)).digest(), Buffer.from('|')])
  return Buffer.alloc(length, unit)
}

export class FileModel {
  readonly ino: number
  /** INVARIANT: zeros from `size` on. */
  readonly bytes = Buffer.alloc(FILE_MAX)
  size = 0
  /** By block: HOLE, UNWRITTEN or DATA. */
  readonly blocks = new Uint8Array(BLOCKS_MAX)
  /**
   * By block, where memory failed: the bytes of the file that the block held then. INVARIANT: only
   * blocks that are no HOLE are in here.
   */
  readonly bad = new Map<number, Buffer>()

  constructor(ino: number) {
    this.ino = ino
  }

  /** The first block of [offset, end) that cannot be read; unwritten ones need no memory. */
  unreadable(offset: number, end: number): number | undefined {
    if (offset >= end) return undefined
    for (let block = Math.floor(offset / BLOCK); block * BLOCK < end; block++) {
      if (this.bad.has(block) && this.blocks[block] === DATA) return block
    }
    return undefined
  }

  /**
   * Whole failed blocks are replaced; a write that would need the old bytes of one fails there.
   * Undefined when it succeeds, else the block. `byPages`: the kernel reads what is missing of a
   * page before it writes to it, and sends whole pages.
   */
  unwritable(offset: number, end: number, byPages: boolean): number | undefined {
    for (let block = Math.floor(offset / BLOCK); block * BLOCK < end; block++) {
      if (!this.bad.has(block)) continue
      const start = block * BLOCK
      const covered = offset <= start && end >= start + BLOCK
      const missing = byPages
        ? !covered && start < this.size && this.blocks[block] === DATA
        : !covered && (offset > start || end < this.size)
      if (missing) return block
    }
    return undefined
  }

  /** All of the write, when nothing is unwritable. */
  write(offset: number, data: Buffer): void {
    const end = offset + data.length
    data.copy(this.bytes, offset)
    this.size = Math.max(this.size, end)
    for (let block = Math.floor(offset / BLOCK); block * BLOCK < end; block++) {
      this.blocks[block] = DATA
      this.bad.delete(block)
    }
  }

  resize(size: number): void {
    this.bytes.fill(0, Math.min(size, this.size))
    // What was allocated behind the end stays when a file grows.
    if (size <= this.size) this.#free(Math.ceil(size / BLOCK), BLOCKS_MAX)
    this.size = size
  }

  /** Gives memory to the holes of [offset, offset + length). */
  allocate(offset: number, length: number, keepSize: boolean): void {
    const end = offset + length
    if (!keepSize) this.size = Math.max(this.size, end)
    for (let block = Math.floor(offset / BLOCK); block * BLOCK < end; block++) {
      if (this.blocks[block] === HOLE) this.blocks[block] = UNWRITTEN
    }
  }

  punch(offset: number, length: number): void {
    const end = offset + length
    const last = end >= this.size ? Math.ceil(end / BLOCK) : Math.floor(end / BLOCK)
    this.bytes.fill(0, offset, Math.min(end, FILE_MAX))
    this.#free(Math.ceil(offset / BLOCK), last)
  }

  /** Memory of [first, first + count) fails. Returns the blocks that were healthy before. */
  fail(first: number, count: number): number[] {
    const fresh: number[] = []
    for (let block = first; block < Math.min(first + count, BLOCKS_MAX); block++) {
      if (this.blocks[block] === HOLE || this.bad.has(block)) continue
      const start = block * BLOCK
      const end = Math.max(start, Math.min(start + BLOCK, this.size))
      this.bad.set(block, Buffer.from(this.bytes.subarray(start, end)))
      fresh.push(block)
    }
    return fresh
  }

  /**
   * The memory works again. What was zeroed in the meantime, part of a block only, could not be
   * stored: it may be what it was, and behind the end of the file that could be anything.
   */
  heal(): Doubt[] {
    const doubts = [...this.bad]
      .filter(([block]) => this.blocks[block] === DATA)
      .map(([block, other]) => {
        return { file: this, offset: block * BLOCK, end: (block + 1) * BLOCK, other }
      })
    this.bad.clear()
    return doubts
  }

  #free(first: number, end: number): void {
    for (let block = first; block < Math.min(end, BLOCKS_MAX); block++) {
      this.blocks[block] = HOLE
      this.bad.delete(block)
    }
  }
}
