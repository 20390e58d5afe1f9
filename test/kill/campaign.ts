/** Rounds one after the other, on regions that go from round to round. */

import { Host } from './host.ts'
import { FormatRounds } from './mkfs.ts'
import { describePlan, type RoundPlan } from './plan.ts'
import { killRepairs } from './repair.ts'
import { type RoundResult, Rounds } from './round.ts'

export class Campaign {
  readonly host: Host
  readonly #rounds: Rounds
  readonly #formats: FormatRounds

  private constructor(host: Host) {
    this.host = host
    this.#rounds = new Rounds(host)
    this.#formats = new FormatRounds(host)
  }

  static async begin(): Promise<Campaign> {
    const host = await Host.make()
    const made = await host.format(host.region)
    if (made.status !== 0) throw new Error(`mkfs: ${made.stderr}`)
    return new Campaign(host)
  }

  /** What goes wrong is among the problems; after that the region is not fit for more rounds. */
  async run(plan: RoundPlan): Promise<RoundResult> {
    try {
      if (plan.moment === 'mkfs') return await this.#formats.run(plan)
      if (plan.moment === 'repair') return await killRepairs(this.#rounds, plan)
      return await this.#rounds.run(plan)
    } catch (error) {
      const problems = [`${describePlan(plan)}: ${(error as Error).stack}`]
      return { operations: 0, promised: 0, bytes: 0, kills: 0, problems }
    }
  }

  end(): Promise<void> {
    return this.host.close()
  }
}
