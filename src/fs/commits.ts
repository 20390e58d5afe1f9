/**
 * When things become durable. On plain files everything is committed at least every commit interval
 * and at fsync; on memory with durable stores only lazy times are left to write. One timer, armed
 * only while something waits.
 */
import { isNoSpace } from './errors.ts'
import type { CachedInode } from './inode-cache.ts'
import type { Volume } from './volume.ts'

/** Inodes whose times go into one record. */
const TIMES_PER_RECORD = 256

export class Commits {
  readonly #volume: Volume
  readonly #onError: (error: unknown) => void
  #timer: NodeJS.Timeout | undefined

  constructor(volume: Volume, onError: (error: unknown) => void) {
    this.#volume = volume
    this.#onError = onError
  }

  /** Something waits to become durable. */
  arm(): void {
    if (this.#timer !== undefined) return
    const { commitSeconds } = this.#volume.options
    this.#timer = setTimeout(() => this.#fire(), commitSeconds * 1000)
  }

  stop(): void {
    clearTimeout(this.#timer)
    this.#timer = undefined
  }

  #fire(): void {
    this.#timer = undefined
    if (this.#volume.shutdown !== undefined || this.#volume.frozen) return
    this.commit().catch(this.#onError)
  }

  /** Everything done so far is durable when it resolves. */
  async commit(): Promise<void> {
    this.writeTimes()
    await this.#volume.commit()
  }

  /** fsync of one inode, the part before the wait: its times go into a record. */
  prepareInode(inode: CachedInode, dataOnly: boolean): void {
    // While frozen only reads leave times behind: they wait for the thaw.
    if (!inode.timesDirty || dataOnly || this.#volume.frozen) return
    // With the room kept for what frees space, but not the last of it, which is for deleting.
    ifRoom(() => this.#volume.transact((transaction) => transaction.touch(inode), true))
  }

  /** ... and the wait: one msync serves all who wait. After one that failed there is no next. */
  async commitPrepared(): Promise<void> {
    if (this.#volume.allDurable) return
    try {
      await this.#volume.commit()
    } catch (error) {
      this.#onError(error)
      throw error
    }
  }

  /** Writes every lazy time into records, as far as there is room. */
  writeTimes(): void {
    if (this.#volume.options.readOnly || this.#volume.frozen) return
    const dirty = [...this.#volume.inodes.withDirtyTimes()]
    for (let at = 0; at < dirty.length; at += TIMES_PER_RECORD) {
      const some = dirty.slice(at, at + TIMES_PER_RECORD)
      ifRoom(() =>
        this.#volume.transact((transaction) => {
          for (const inode of some) transaction.touch(inode)
        }, true),
      )
    }
  }
}

/** A full journal that no checkpoint can empty: the times wait until there is room again. */
function ifRoom(write: () => void): void {
  try {
    write()
  } catch (error) {
    if (!isNoSpace(error)) throw error
  }
}
