/**
 * The state of a mounted filesystem, and the one way to change it: transact().
 * The other files of this folder are operations on a Volume.
 */
import { touchFailed } from '../dax/bus-errors.ts'
import type { DaxDevice } from '../dax/device.ts'
import { type Memory, MemoryFailure } from '../dax/memory.ts'
import { indexDamage, isIndexFull } from '../index/damage.ts'
import type { Index } from '../index/index.ts'
import { type Journal, JournalFullError } from '../journal/journal.ts'
import { MediaError } from '../media/errors.ts'
import { BLOCK_SIZE, BLOCKS_PER_UNIT, blockSpan, type Geometry } from '../media/geometry.ts'
import { imageOffset, type Superblock } from '../media/superblock.ts'
import type { FilesystemEvent } from './administration.ts'
import { Allocator } from './allocator.ts'
import { EIO, ENOSPC, EROFS, FrozenError, FsError, isNoSpace } from './errors.ts'
import { HandleTable } from './handles.ts'
import { type CachedInode, InodeCache, mustFind } from './inode-cache.ts'
import { Lookups } from './lookups.ts'
import type { Revocations } from './revocations.ts'
import { Transaction } from './transaction.ts'

/** Attempts of one transaction that may each find other memory bad. */
const ROUNDS_MAX = 64
/** So many blocks in one piece have a whole unit among them, which a slot can take. */
const ROOM_FOR_A_UNIT = 2 * BLOCKS_PER_UNIT

export interface Logger {
  info(sentence: string): void
  warn(sentence: string): void
  error(sentence: string): void
}

export interface VolumeOptions {
  readonly readOnly: boolean
  /** Everything is durable at most this long after it was done. */
  readonly commitSeconds: number
  readonly indexDirectory?: string | undefined
  readonly onFailure: 'handles' | 'sigbus'
  /** Reads do not change access times. */
  readonly noatime?: boolean
  readonly logger: Logger
}

export interface VolumeParts {
  readonly device: DaxDevice
  readonly geometry: Geometry
  readonly superblock: Superblock
  readonly index: Index
  readonly journal: Journal
}

/** What happens around transactions; set by the parts that care (checkpoints, commit timer). */
export interface VolumeHooks {
  /** A record was appended or data written in place: something waits to become durable. */
  dirtied(): void
  /**
   * Frees what waits to be freed (unlinked files, blocks held back); false when there was nothing.
   */
  makeSpace(): boolean
  /** The journal cannot take the record: make room, synchronously. */
  makeJournalRoom(): void
  /** A checkpoint could not be completed, or a commit: what was written is not durable. */
  checkpointFailed(error: Error): void
  /** The index contradicts itself, or SQLite says so: metadata damage. */
  damaged(damage: MediaError): void
  /** Before a transaction: is there room for the next checkpoint image? Throws ENOSPC. */
  reserveImage(freesSpace: boolean): void
  /** May an operation that frees space make the index larger? */
  imageMayGrow(): boolean
}

export class Volume {
  readonly device: DaxDevice
  readonly memory: Memory
  readonly geometry: Geometry
  readonly options: VolumeOptions
  readonly index: Index
  readonly journal: Journal
  readonly allocator: Allocator
  readonly handles = new HandleTable()
  readonly inodes: InodeCache
  readonly lookups = new Lookups()
  superblock: Superblock
  /** What the kernel caches of this volume; there is none without a transport. */
  cache: Revocations | undefined
  hooks: VolumeHooks = {
    dirtied() {},
    makeSpace: () => false,
    makeJournalRoom() {},
    checkpointFailed() {},
    damaged() {},
    reserveImage() {},
    imageMayGrow: () => true,
  }
  inodeCount: number
  /** Set once, never cleared: every operation is EIO. */
  shutdown: { reason: string; offset: number } | undefined
  frozen = false
  /** What a mount replayed could not be committed: a checkpoint must be taken before all else. */
  needsCheckpoint = false
  /** Stores into file blocks since the last commit began that has not failed (plain files). */
  dataDirty = false
  /** Commits that are under way: what they cover is not durable yet. */
  #committing = 0
  readonly #transaction: Transaction
  readonly #listeners = new Set<(event: FilesystemEvent) => void>()

  constructor(parts: VolumeParts, options: VolumeOptions) {
    this.device = parts.device
    this.memory = parts.device.memory
    this.geometry = parts.geometry
    this.superblock = parts.superblock
    this.index = parts.index
    this.journal = parts.journal
    this.options = options
    this.allocator = new Allocator(parts.index.freeSpace, parts.geometry, this.device.badRanges)
    this.inodes = new InodeCache(parts.index, parts.geometry, (ino) => this.handles.isOpen(ino))
    this.inodeCount = parts.index.inodes.count()
    this.#transaction = new Transaction(parts.index)
    this.journal.onDurable((sequence) => this.allocator.becameDurable(sequence))
  }

  /** The inode of a request: ESTALE-free, for the kernel only names inodes it has looked up. */
  inode(ino: number): CachedInode {
    this.requireAlive()
    return mustFind(this.inodes, ino)
  }

  requireAlive(): void {
    if (this.shutdown !== undefined) throw new FsError(EIO)
  }

  requireWritable(): void {
    this.requireAlive()
    if (this.options.readOnly) throw new FsError(EROFS)
  }

  requireThawed(): void {
    this.requireAlive()
    if (this.frozen) throw new FrozenError()
  }

  /**
   * Runs `body` as one atomic operation: all of its changes, or none. Data that the changes make
   * visible must be in the region before `body` returns.
   */
  transact<T>(body: (transaction: Transaction) => T, freesSpace = false): T {
    for (let left = ROUNDS_MAX; ; left--) {
      this.requireWritable()
      try {
        this.hooks.reserveImage(freesSpace)
        return this.#attemptWithRoom(body, freesSpace)
      } catch (error) {
        if (left === 0 || !(error instanceof MemoryFailure) || !this.#canGoRound(error)) throw error
      }
    }
  }

  #attemptWithRoom<T>(body: (transaction: Transaction) => T, freesSpace: boolean): T {
    try {
      return this.#attempt(body, freesSpace)
    } catch (error) {
      if (!(error instanceof JournalFullError)) throw error
      this.hooks.makeJournalRoom()
      return this.#attempt(body, freesSpace)
    }
  }

  /** Memory that no file has is out of use once it was told: another attempt takes other memory. */
  #canGoRound({ offset, length, known }: MemoryFailure): boolean {
    if (known) return false
    this.memoryFailed(offset, length)
    if (this.shutdown !== undefined) return false
    const [first, blocks] = blockSpan(offset, length)
    return this.index.rmap.overlapping(first, blocks).every((row) => row.owner < 0)
  }

  #attempt<T>(body: (transaction: Transaction) => T, freesSpace: boolean): T {
    const transaction = this.#transaction
    transaction.reset(this.journal.nextSequence)
    this.index.begin()
    let result: T
    try {
      result = body(transaction)
      transaction.finish()
      if (freesSpace) this.#requireRoomInImage(transaction)
      const claim = freesSpace ? transaction.claim : 'ordinary'
      if (transaction.changes.length > 0) this.journal.append(transaction.changes, claim)
    } catch (error) {
      this.#undo(transaction)
      throw error
    }
    this.#commitIndex(transaction)
    this.#afterCommit(transaction)
    return result
  }

  /**
   * Taking extents apart makes the index larger, whatever it frees. Where its image has no room to
   * grow, that is ENOSPC, but for what frees room for the image as well.
   */
  #requireRoomInImage({ rowsAdded, blocksTaken, essential }: Transaction): void {
    if (essential) return
    const splits = rowsAdded > 0 && blocksTaken < 0 && blocksTaken > -ROOM_FOR_A_UNIT
    if (splits && !this.hooks.imageMayGrow()) throw new FsError(ENOSPC)
  }

  /** The record cannot be taken back any more: an index that cannot follow it ends the mount. */
  #commitIndex(transaction: Transaction): void {
    try {
      this.index.commit()
    } catch (error) {
      this.#undo(transaction)
      const sentence = `the index cannot follow the journal: ${(error as Error).message}`
      this.hooks.damaged(new MediaError('index', this.imageOffset, sentence))
      throw new FsError(EIO, sentence)
    }
  }

  #afterCommit(transaction: Transaction): void {
    if (transaction.changes.length === 0) return
    this.allocator.freeBlocks -= transaction.blocksTaken
    if (transaction.freed.length > 0 && this.journal.durableSequence < transaction.sequence) {
      this.allocator.holdBack(transaction.sequence, transaction.freed)
    }
    this.hooks.dirtied()
  }

  #undo(transaction: Transaction): void {
    this.index.rollback()
    for (const inode of transaction.touched) this.inodes.reload(inode)
    this.allocator.releaseAllWindows()
  }

  /** Runs an operation again after ENOSPC when space that only waits to be freed could be made. */
  withSpace<T>(operation: () => T): T {
    try {
      return operation()
    } catch (error) {
      if (!isNoSpace(error)) throw error
      if (!this.hooks.makeSpace()) throw error
      return operation()
    }
  }

  /** Every record so far is durable when it returns; frees blocks that waited for that. */
  commitNow(): void {
    for (;;) {
      try {
        this.journal.commitNow()
        this.dataDirty = false
        return
      } catch (error) {
        this.#markElsewhere(error)
      }
    }
  }

  /** The same off this thread: durable when it resolves. */
  async commit(): Promise<void> {
    this.dataDirty = false
    this.#committing++
    try {
      await this.#commitAround()
    } catch (error) {
      this.dataDirty = true
      throw error
    } finally {
      this.#committing--
    }
  }

  async #commitAround(): Promise<void> {
    for (;;) {
      try {
        await this.journal.commit()
        return
      } catch (error) {
        this.#markElsewhere(error)
      }
    }
  }

  /** True when a commit would find nothing to do. */
  get allDurable(): boolean {
    const { durableSequence, lastSequence, flushing } = this.journal
    if (flushing || this.#committing > 0) return false
    return !this.dataDirty && durableSequence >= lastSequence
  }

  /** A commit mark met bad memory: once that is told, the journal goes round it. */
  #markElsewhere(error: unknown): void {
    if (!(error instanceof MemoryFailure) || error.known) throw this.undurable(error)
    this.memoryFailed(error.offset, error.length)
    this.requireAlive()
  }

  /**
   * What to throw after a flush that failed. The kernel may call the pages clean that it could not
   * write, and the next msync would succeed: so there is no next, whoever met the error.
   */
  undurable(error: unknown): unknown {
    if (error instanceof MemoryFailure || error instanceof FsError) return error
    // The flush was well: a commit mark had no room.
    if (error instanceof JournalFullError) return error
    this.hooks.checkpointFailed(error as Error)
    return new FsError(EIO, this.shutdown?.reason)
  }

  /** Records new times of an inode without a record of its own; see DESIGN, "Time-only changes". */
  dirtyTimes(inode: CachedInode): void {
    inode.timesDirty = true
    this.hooks.dirtied()
  }

  /**
   * Runs an operation and keeps MemoryFailure inside: a failure nobody knew of goes to the device
   * (which tells this filesystem as its holder), and the operation is EIO.
   */
  guard<T>(operation: () => T): T {
    try {
      return operation()
    } catch (error) {
      if (error instanceof MemoryFailure) {
        this.memoryFailed(error.offset, error.length)
        throw new FsError(EIO)
      }
      throw this.#judged(error)
    }
  }

  /** Damage that an operation met shuts the filesystem down; a full index is a full filesystem. */
  #judged(error: unknown): unknown {
    if (isIndexFull(error)) return new FsError(ENOSPC)
    const damage = indexDamage(error, this.imageOffset)
    if (damage === undefined) return error
    this.hooks.damaged(damage)
    return new FsError(EIO)
  }

  /** Region offset of the index's image, for messages. */
  get imageOffset(): number {
    return imageOffset(this.superblock)
  }

  /** An operation that changes something: none does while the filesystem is frozen. */
  change<T>(operation: () => T): T {
    this.requireThawed()
    return this.guard(operation)
  }

  /** For work nobody waits for: what goes wrong is logged. */
  guardQuietly(operation: () => void): void {
    try {
      this.guard(operation)
    } catch (error) {
      this.options.logger.warn(`background work failed: ${(error as Error).message}`)
    }
  }

  /** From wherever in its page it was met: a page fails as a whole, and alone. */
  memoryFailed(offset: number, length: number): void {
    const start = offset - (offset % BLOCK_SIZE)
    if (this.device.badRanges.overlaps(start, length)) return
    touchFailed(this.device, start, length)
  }

  subscribe(listener: (event: FilesystemEvent) => void): () => void {
    this.#listeners.add(listener)
    return () => this.#listeners.delete(listener)
  }

  emit(event: FilesystemEvent): void {
    for (const listener of this.#listeners) listener(event)
  }

  /** ISO time with milliseconds, for events and reports. */
  timestamp(): string {
    return new Date().toISOString()
  }
}
