/** What came of the images so far. */
import type { Answer } from './worker.ts'

export class Tally {
  images = 0
  clean = 0
  mounted = 0
  shutdown = 0
  repaired = 0
  /** Seeds of the images that did what none may. */
  readonly offences: number[] = []

  static from(saved: Partial<Tally>): Tally {
    return Object.assign(new Tally(), saved)
  }

  add(seed: number, { outcome, offence }: Answer): void {
    this.images++
    if (offence !== undefined) this.offences.push(seed)
    if (outcome?.clean) this.clean++
    if (outcome?.mounted) this.mounted++
    if (outcome?.shutdown) this.shutdown++
    if (outcome?.repaired) this.repaired++
  }

  line(): string {
    const { images, mounted, clean, shutdown, repaired, offences } = this
    return (
      `${images} mutated regions: ${mounted} mounted (${shutdown} shut down in use), ` +
      `${clean} clean, ${repaired} repaired, ${offences.length} offences`
    )
  }
}
