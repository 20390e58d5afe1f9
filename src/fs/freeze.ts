/** freeze and thaw: while frozen nothing changes, and what is in the region is durable. */
import type { Commits } from './commits.ts'
import type { Volume } from './volume.ts'

export class Freeze {
  readonly #volume: Volume
  readonly #commits: Commits
  #thawed: { promise: Promise<void>; resolve: () => void } | undefined

  constructor(volume: Volume, commits: Commits) {
    this.#volume = volume
    this.#commits = commits
  }

  /** Durable when it resolves; frozen from the first moment. */
  async freeze(): Promise<void> {
    const volume = this.#volume
    volume.requireWritable()
    if (volume.frozen) return
    volume.guard(() => this.#commits.writeTimes())
    volume.frozen = true
    let resolve = () => {}
    const promise = new Promise<void>((done) => {
      resolve = done
    })
    this.#thawed = { promise, resolve }
    await volume.commit()
    volume.emit({ event: 'freeze', time: volume.timestamp() })
  }

  thaw(): void {
    if (!this.#volume.frozen) return
    this.#volume.frozen = false
    this.#thawed?.resolve()
    this.#thawed = undefined
    this.#volume.emit({ event: 'thaw', time: this.#volume.timestamp() })
    this.#volume.hooks.dirtied()
  }

  /** Resolves at once when the filesystem is not frozen. */
  thawed(): Promise<void> {
    return this.#thawed?.promise ?? Promise.resolve()
  }
}
