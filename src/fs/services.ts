/**
 * What works on a volume beside the operations, and how these parts call each other: the freeing of
 * unlinked files, checkpoints, commits, freeze and the failure policy.
 */
import { Checkpoints } from './checkpoints.ts'
import { Commits } from './commits.ts'
import { EIO, ENOSPC, FsError } from './errors.ts'
import { FailurePolicy } from './failure.ts'
import { Freeze } from './freeze.ts'
import { Orphans } from './orphans.ts'
import { Scrub } from './scrub.ts'
import type { Volume } from './volume.ts'

/** Failures that the writes of an unmount may meet, one after the other. */
const LAST_WRITES_ATTEMPTS = 64

export class Services {
  readonly orphans: Orphans
  readonly checkpoints: Checkpoints
  readonly commits: Commits
  readonly freeze: Freeze
  readonly failure: FailurePolicy
  readonly scrub: Scrub
  readonly #volume: Volume
  /** Why nothing can be made durable any more. */
  #undurable: FsError | undefined

  constructor(volume: Volume) {
    this.#volume = volume
    this.orphans = new Orphans(volume)
    this.checkpoints = new Checkpoints(volume)
    this.commits = new Commits(volume, (error) => this.#commitFailed(error as Error))
    this.freeze = new Freeze(volume, this.commits, this.checkpoints)
    this.failure = new FailurePolicy(volume, this.checkpoints)
    this.scrub = new Scrub(volume)
    volume.hooks = {
      dirtied: () => {
        this.commits.arm()
        this.checkpoints.startIfNeeded()
      },
      makeSpace: () => this.#makeSpace(),
      makeJournalRoom: () => this.checkpoints.runNow(),
      reserveImage: (freesSpace) => this.checkpoints.reserveImage(freesSpace),
      imageMayGrow: () => this.checkpoints.imageMayGrow(),
      checkpointFailed: (error) => this.#commitFailed(error),
      damaged: ({ message, offset }) => this.failure.shutdown('corrupt-index', message, offset, []),
    }
    // Nobody waits for a thaw that has nothing to offer.
    volume.subscribe(({ event }) => {
      if (event === 'shutdown') this.freeze.thaw()
    })
  }

  /**
   * Before the last writes: their msync says that all is well when one that is under way has the
   * error. Throws that; nothing is under way when it resolves.
   */
  async settle(): Promise<void> {
    const { journal } = this.#volume
    const known = this.#undurable
    this.checkpoints.close()
    this.commits.stop()
    await this.checkpoints.idle()
    do {
      await journal.idle()
      // In this turn its error has its consequences.
      await new Promise<void>((resolve) => setImmediate(resolve))
    } while (journal.flushing)
    if (this.#undurable !== undefined && this.#undurable !== known) throw this.#undurable
  }

  /**
   * Unmount, when nobody holds an inode any more: frees what has no name and takes the final
   * checkpoint. After a shutdown nothing is written.
   */
  finish(): void {
    const volume = this.#volume
    if (volume.shutdown !== undefined || volume.options.readOnly) return
    volume.frozen = false
    this.#lastWrites()
  }

  /**
   * A failure that only the last writes discover has its consequences, then they go round it; there
   * is no way round a flush that failed.
   */
  #lastWrites(): void {
    const volume = this.#volume
    for (let left = LAST_WRITES_ATTEMPTS; volume.shutdown === undefined; left--) {
      try {
        volume.guard(() => {
          this.orphans.considerAll()
          this.orphans.reap()
          this.commits.writeTimes()
          this.checkpoints.runNow()
        })
        return
      } catch (error) {
        if (this.#undurable !== undefined) throw this.#undurable
        const errno = error instanceof FsError ? error.errno : 0
        // Without room for an image the journal has it all: the next mount replays it.
        if (errno === ENOSPC) volume.commitNow()
        if (errno !== EIO || left === 0) throw error
      }
    }
  }

  /** Space that only waits: unlinked files not freed yet, freed blocks not durable yet. */
  #makeSpace(): boolean {
    const reaped = this.orphans.reap()
    if (this.#volume.allocator.pendingBlocks === 0) return reaped
    this.#volume.commitNow()
    return true
  }

  #commitFailed(error: Error): void {
    // Everybody who waited for the same msync hears of it.
    if (this.#undurable !== undefined) return
    const sentence = `what was written cannot be made durable: ${error.message}`
    this.#undurable = new FsError(EIO, sentence)
    this.failure.shutdown('io-error', sentence, 0, [])
  }
}
