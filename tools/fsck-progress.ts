/** A progress bar on a terminal; nothing anywhere else. */
import { SingleBar } from 'cli-progress'

export class Progress {
  readonly #stages: readonly string[]
  readonly #bar: SingleBar | undefined

  constructor(stages: readonly string[]) {
    this.#stages = stages
    if (process.stderr.isTTY !== true) return
    this.#bar = new SingleBar({
      format: '[{bar}] {stage}',
      barsize: 20,
      stream: process.stderr,
      clearOnComplete: true,
      hideCursor: true,
    })
    this.#bar.start(stages.length, 0, { stage: '' })
  }

  at(stage: string): void {
    this.#bar?.update(this.#stages.indexOf(stage), { stage })
  }

  stop(): void {
    this.#bar?.stop()
  }
}
