/**
 * Reads every allocated block while the filesystem is mounted, so that memory that has gone bad is
 * known before a user meets it. What it finds takes the way of every other failure. It works in
 * slices between operations, at a rate, and goes on where it was stopped, also after a remount.
 */
import { MemoryFailure } from '../dax/memory.ts'
import type { ExtentRow } from '../media/change.ts'
import { BLOCK_SIZE } from '../media/geometry.ts'
import type { ScrubRequest, ScrubStatus } from './administration.ts'
import { loadBookmark, removeBookmark, saveBookmark } from './scrub-bookmark.ts'
import type { Volume } from './volume.ts'

/** Bytes read between two looks at the clock. */
const PIECE = 64 * 1024
/** A slice ends after this time: nobody waits for it much longer. */
const SLICE_MS = 0.5
/** Bytes a second when nobody says otherwise: a fraction of what memory gives. */
const RATE = 256 * 1024 * 1024
/** Time between two events, and between two bookmarks. */
const EVENT_MS = 250
const BOOKMARK_MS = 5000

export class Scrub {
  readonly #volume: Volume
  #state: ScrubStatus['state'] = 'idle'
  /** Everything allocated below it has been read. Region offset. */
  #position = 0
  #checked = 0
  #found = 0
  #rate = RATE
  /** Bytes read since `#since`, for the rate. */
  #read = 0
  #since = 0
  #toldAt = 0
  #savedAt = 0
  #timer: NodeJS.Timeout | undefined

  constructor(volume: Volume) {
    this.#volume = volume
    volume.subscribe(({ event }) => {
      if (event === 'unmount' || event === 'shutdown') this.stop()
    })
  }

  status(): ScrubStatus {
    const { geometry, allocator } = this.#volume
    return {
      state: this.#state,
      position: this.#position,
      checked: this.#checked,
      total: (geometry.blocks - allocator.freeBlocks) * BLOCK_SIZE,
      found: this.#found,
    }
  }

  /** Starts or goes on; one that runs already gets the new rate. */
  start({ rate, restart }: ScrubRequest): ScrubStatus {
    this.#volume.requireAlive()
    this.#rate = rate ?? RATE
    this.#read = 0
    this.#since = performance.now()
    if (this.#state === 'running') return this.status()
    const { device, superblock } = this.#volume
    const bookmark = restart === true ? undefined : loadBookmark(device.key, superblock.uuid)
    this.#position = bookmark?.position ?? 0
    this.#checked = bookmark?.checked ?? 0
    this.#found = bookmark?.found ?? 0
    this.#savedAt = this.#since
    this.#become('running')
    this.#later(0)
    return this.status()
  }

  stop(): ScrubStatus {
    if (this.#state === 'running') {
      clearTimeout(this.#timer)
      this.#save()
      this.#become('stopped')
    }
    return this.status()
  }

  #become(state: ScrubStatus['state']): void {
    this.#state = state
    this.#tell()
  }

  #tell(): void {
    this.#toldAt = performance.now()
    this.#volume.emit({ event: 'scrub', time: this.#volume.timestamp(), ...this.status() })
  }

  #save(): void {
    this.#savedAt = performance.now()
    const { device, superblock } = this.#volume
    const { uuid } = superblock
    saveBookmark(device.key, {
      uuid,
      position: this.#position,
      checked: this.#checked,
      found: this.#found,
    })
  }

  #later(milliseconds: number): void {
    // Also without a delay by a timer: operations that wait come first.
    this.#timer = setTimeout(() => this.#run(), milliseconds)
    this.#timer.unref()
  }

  #run(): void {
    if (this.#state !== 'running') return
    const end = performance.now() + SLICE_MS
    let more = true
    try {
      while (more && this.#state === 'running' && performance.now() < end) {
        more = this.#volume.guard(() => this.#step())
      }
    } catch (error) {
      this.#volume.options.logger.warn(`the scrub stopped: ${(error as Error).message}`)
      this.stop()
    }
    if (this.#state !== 'running') return
    const now = performance.now()
    if (!more) {
      removeBookmark(this.#volume.device.key)
      this.#become('done')
      return
    }
    if (now - this.#toldAt > EVENT_MS) this.#tell()
    if (now - this.#savedAt > BOOKMARK_MS) this.#save()
    this.#later(Math.max(0, this.#since + (1000 * this.#read) / this.#rate - now))
  }

  /** Reads the next piece that somebody owns; false at the end of the region. */
  #step(): boolean {
    const row = this.#next()
    if (row === undefined) {
      this.#position = this.#volume.geometry.size
      return false
    }
    const start = Math.max(this.#position, row.block * BLOCK_SIZE)
    const length = Math.min(PIECE, (row.block + row.blocks) * BLOCK_SIZE - start)
    this.#readPiece(start, length)
    return true
  }

  /** The query is over when this returns: a failure changes the table. */
  #next(): ExtentRow | undefined {
    const { index, geometry } = this.#volume
    const first = Math.floor(this.#position / BLOCK_SIZE)
    for (const row of index.rmap.walk(first, geometry.blocks - first)) return row
    return undefined
  }

  /** Stops behind the first page of a piece that cannot be read: the rest is the next piece. */
  #readPiece(offset: number, length: number): void {
    const volume = this.#volume
    let bytes = length
    try {
      // Every byte: one bad cache line is enough.
      volume.memory.crc32c(offset, length, 0)
    } catch (error) {
      if (!(error instanceof MemoryFailure)) throw error
      bytes = error.offset + BLOCK_SIZE - offset
      if (!error.known) {
        this.#found += BLOCK_SIZE
        volume.memoryFailed(error.offset, error.length)
      }
    }
    this.#position = offset + bytes
    this.#checked += bytes
    this.#read += bytes
  }
}
