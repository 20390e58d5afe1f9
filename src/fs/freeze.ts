/** freeze and thaw: while frozen nothing changes, and what is in the region is durable. */
import type { Checkpoints } from './checkpoints.ts'
import type { Commits } from './commits.ts'
import { EBUSY, FsError } from './errors.ts'
import type { Volume } from './volume.ts'

interface Current {
  /** Resolves when the region is durable and changes no more. */
  settled: Promise<void>
  readonly thawed: Promise<void>
  readonly thaw: () => void
}

export class Freeze {
  readonly #volume: Volume
  readonly #commits: Commits
  readonly #checkpoints: Checkpoints
  /** INVARIANT: set while the volume is frozen, by the first who asked. */
  #current: Current | undefined

  constructor(volume: Volume, commits: Commits, checkpoints: Checkpoints) {
    this.#volume = volume
    this.#commits = commits
    this.#checkpoints = checkpoints
  }

  /** Durable when it resolves; frozen from the first moment, and not at all when it rejects. */
  async freeze(): Promise<void> {
    const volume = this.#volume
    volume.requireWritable()
    if (!volume.frozen) this.#begin()
    await this.#current?.settled
  }

  #begin(): void {
    const volume = this.#volume
    volume.guard(() => this.#commits.writeTimes())
    volume.frozen = true
    let thaw = () => {}
    const thawed = new Promise<void>((resolve) => {
      thaw = resolve
    })
    const current = { settled: thawed, thawed, thaw }
    this.#current = current
    current.settled = this.#settle(current)
  }

  async #settle(current: Current): Promise<void> {
    // It would go on writing its image, then both superblocks.
    await this.#checkpoints.idle()
    this.#requireStill(current)
    // If that fails it is a shutdown, which thaws.
    await this.#commits.commitPrepared()
    this.#requireStill(current)
    this.#volume.emit({ event: 'freeze', time: this.#volume.timestamp() })
  }

  #requireStill(current: Current): void {
    this.#volume.requireAlive()
    if (this.#volume.frozen && this.#current === current) return
    throw new FsError(EBUSY, 'thawed before everything was durable: freeze it again')
  }

  thaw(): void {
    if (!this.#volume.frozen) return
    this.#volume.frozen = false
    this.#current?.thaw()
    this.#current = undefined
    this.#volume.emit({ event: 'thaw', time: this.#volume.timestamp() })
    this.#volume.hooks.dirtied()
  }

  /** Resolves at once when the filesystem is not frozen. */
  thawed(): Promise<void> {
    return this.#current?.thawed ?? Promise.resolve()
  }
}
