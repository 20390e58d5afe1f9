/** Memory of a real region, mapped by the addon. Every touch goes through its guard. */
import { constants } from 'node:os'
import { GUARD_OK, MAP_DEVICE_DAX, MAP_FILE, type Mapping, native } from '../native/binding.ts'
import { DaxError } from './errors.ts'
import { type Memory, MemoryFailure, PAGE_SIZE } from './memory.ts'

const { EROFS } = constants.errno

/** Bytes [offset, offset + length) of an open file. */
export interface FilePiece {
  readonly fd: number
  readonly offset: number
  readonly length: number
}

export interface MappedMemoryOptions {
  /** Only used while mapping; the caller keeps and closes it. */
  readonly fd: number
  /** For messages. */
  readonly path: string
  readonly size: number
  readonly kind: 'file' | 'device-dax'
  readonly readOnly: boolean
  /** What the memory is made of, end to end; undefined: the first `size` bytes of `fd`. */
  readonly pieces?: readonly FilePiece[]
}

export class MappedMemory implements Memory {
  readonly size: number
  readonly durableStores: boolean
  /** -1 once closed: the addon gives the number to the next mapping. */
  mapId: number
  readonly readOnly: boolean
  /** Calls of msync under way off this thread: the mapping must outlive them. */
  #flushing = 0

  constructor(options: MappedMemoryOptions) {
    const mapping = mapRegion(options)
    this.size = options.size
    this.durableStores = mapping.sync
    this.mapId = mapping.id
    this.readOnly = options.readOnly
  }

  read(offset: number, target: Uint8Array, targetOffset: number, length: number): void {
    check(native.copyOut(this.mapId, offset, target, targetOffset, length))
  }

  write(offset: number, source: Uint8Array, sourceOffset: number, length: number): void {
    if (this.readOnly) refuseStore()
    check(native.copyIn(this.mapId, offset, source, sourceOffset, length, true))
  }

  zero(offset: number, length: number): void {
    if (this.readOnly) refuseStore()
    check(native.zero(this.mapId, offset, length, true))
  }

  move(from: number, to: number, length: number): void {
    if (this.readOnly) refuseStore()
    check(native.move(this.mapId, from, to, length, true))
  }

  isZero(offset: number, length: number): boolean {
    const answer = native.isZero(this.mapId, offset, length)
    if (answer >= 0) throw new MemoryFailure(answer)
    return answer === GUARD_OK
  }

  crc32c(offset: number, length: number, seed: number): number {
    const answer = native.crc32c(this.mapId, offset, length, seed)
    if (answer < 0) throw new MemoryFailure(-1 - answer)
    return answer
  }

  probe(offset: number, length: number): void {
    check(native.probe(this.mapId, offset, length))
  }

  /** A write-back error of the host below a plain file is an Error with code 'EIO'. */
  flush(offset: number, length: number): void {
    if (length === 0 || this.readOnly) return
    if (this.durableStores) {
      check(native.writeBack(this.mapId, offset, length))
      return
    }
    // msync wants a page boundary at the start.
    const lead = offset % PAGE_SIZE
    native.msync(this.mapId, offset - lead, length + lead)
  }

  async flushAsync(offset: number, length: number): Promise<void> {
    if (length === 0 || this.readOnly) return
    if (this.durableStores) {
      check(native.writeBack(this.mapId, offset, length))
      return
    }
    const lead = offset % PAGE_SIZE
    const id = this.mapId
    this.#flushing++
    try {
      await native.msyncAsync(id, offset - lead, length + lead)
    } finally {
      this.#flushing--
      if (this.#flushing === 0 && this.mapId === -1) native.unmap(id)
    }
  }

  close(): void {
    const id = this.mapId
    this.mapId = -1
    if (id !== -1 && this.#flushing === 0) native.unmap(id)
  }
}

function mapRegion({ fd, path, size, kind, readOnly, pieces }: MappedMemoryOptions): Mapping {
  const how = kind === 'device-dax' ? MAP_DEVICE_DAX : MAP_FILE
  try {
    if (pieces === undefined) return native.map(fd, 0, size, how, readOnly)
    const triples = pieces.flatMap(({ fd, offset, length }) => [fd, offset, length])
    return native.mapPieces(Float64Array.from(triples), how, readOnly)
  } catch (error) {
    const cause = error as NodeJS.ErrnoException
    if (cause.errno === undefined) throw error
    throw new DaxError(cause.errno, `cannot map ${path}: ${cause.message}`, { cause })
  }
}

function check(answer: number): void {
  if (answer !== GUARD_OK) throw new MemoryFailure(answer)
}

/** A store into a read-only mapping would be a segmentation fault, which no guard catches. */
function refuseStore(): never {
  throw new DaxError(EROFS, 'the region was opened read-only')
}
