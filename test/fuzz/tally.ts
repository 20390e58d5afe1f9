/** What came of the images so far. */
import { counted } from '../support/long-run.ts'
import type { Answer } from './worker.ts'

export class Tally {
  images = 0
  clean = 0
  mounted = 0
  shutdown = 0
  repaired = 0
  /** What shows the images again that did what none may. */
  failures: string[] = []

  add({ outcome }: Answer): void {
    this.images++
    if (outcome?.clean) this.clean++
    if (outcome?.mounted) this.mounted++
    if (outcome?.shutdown) this.shutdown++
    if (outcome?.repaired) this.repaired++
  }

  /** `before`: images of earlier runs. */
  line(before = 0): string {
    const { images, mounted, clean, shutdown, repaired } = this
    return (
      `${counted(images, before, 'mutated regions')}, ${mounted} mounted (${shutdown} shut down ` +
      `in use), ${clean} clean, ${repaired} repaired`
    )
  }
}
