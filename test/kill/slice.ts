/**
 * A few rounds, told as JSON on the last line: slice.ts MOMENT,END,MODE,MS … It is run by
 * kill.test.ts in a mount namespace of its own.
 */
import { Campaign } from './campaign.ts'
import type { End, Mode, Moment, RoundPlan } from './plan.ts'

const SEED = 1

export interface SliceReport {
  lacking: readonly string[]
  rounds: { plan: RoundPlan; problems: readonly string[]; operations: number; kills: number }[]
}

const campaign = await Campaign.begin()
const { lacking, ends } = campaign.host
const report: SliceReport = { lacking, rounds: [] }
for (const [number, words] of process.argv.slice(2).entries()) {
  const [moment, wanted, mode, ms] = words.split(',') as [Moment, End, Mode, string]
  const end = ends.includes(wanted) ? wanted : 'kill'
  const plan = { number, seed: SEED + number, moment, end, mode, loadMs: Number(ms) }
  const started = Date.now()
  const { problems, operations, kills, bytes } = await campaign.run(plan)
  process.stderr.write(
    `${words} ${Date.now() - started} ms ${operations} operations ${bytes} bytes ${kills} kills ${problems.join('\n')}\n`,
  )
  report.rounds.push({ plan, problems, operations, kills })
}
process.stdout.write(`${JSON.stringify(report)}\n`)
// Programs that were killed may have left children that keep us.
process.exit(0)
