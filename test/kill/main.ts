/** `npm run test:kill`: kills daemons and programs under load, and looks for what is lost. */
import { spawn } from 'node:child_process'
import { parseArgs } from 'node:util'
import {
  counted,
  LONG_HELP,
  LONG_OPTIONS,
  type LongRun,
  longOptions,
  longRun,
  oneOf,
  wholeNumber,
} from '../support/long-run.ts'
import { notRoot } from '../support/mounts.ts'
import { Campaign } from './campaign.ts'
import { inNamespace } from './namespace.ts'
import { describePlan, MOMENTS, type Moment, planRound } from './plan.ts'

const HELP = `usage: npm run test:kill -- [OPTION…]
${LONG_HELP}  --rounds N         at most so many rounds
  --round N          this round only, as a failure names it
  --moment NAME      what is killed: ${MOMENTS.join(', ')} (default: all in turn)
`

/** Set in the process that runs in a mount namespace of its own. */
const INSIDE = 'HOLDFAST_KILL_INSIDE'

interface State {
  failures: string[]
  rounds: number
  kills: number
  operations: number
  promised: number
  bytes: number
}

export async function main(args: readonly string[]): Promise<number> {
  const { values } = parseArgs({
    args: [...args],
    options: {
      ...LONG_OPTIONS,
      rounds: { type: 'string' },
      round: { type: 'string' },
      moment: { type: 'string' },
    },
  })
  if (values.help) {
    process.stdout.write(HELP)
    return 0
  }
  const options = longOptions(values)
  const most = values.rounds && wholeNumber('--rounds', values.rounds)
  const only = values.round && wholeNumber('--round', values.round)
  const moment = values.moment === undefined ? undefined : oneOf('--moment', values.moment, MOMENTS)
  if (notRoot() === false && process.env[INSIDE] === undefined) return startInside()
  const which = { seed: options.seed, moment }
  if (typeof only === 'number') return one(which, only)
  return longRun<State>(
    {
      name: 'kill',
      key: moment === undefined ? [] : [moment],
      options,
      fresh: { failures: [], rounds: 0, kills: 0, operations: 0, promised: 0, bytes: 0 },
      progress: ({ rounds, kills, operations }) =>
        `${rounds} rounds, ${kills} kills, ${operations.toLocaleString('en')} operations`,
      figure,
    },
    (run) => rounds(run, which, typeof most === 'number' ? most : Number.POSITIVE_INFINITY),
  )
}

interface Which {
  readonly seed: number
  readonly moment: Moment | undefined
}

function figure({ state, before }: LongRun<State>): string {
  const { kills, operations, promised, bytes, failures } = state
  const verified = `${Math.round(bytes / 1e6).toLocaleString('en')} MB verified`
  return (
    `${counted(state.rounds, before.rounds, 'kill rounds')}, ${kills} kills, ` +
    `${operations.toLocaleString('en')} operations, ${promised.toLocaleString('en')} of them ` +
    `promised, ${verified}, lost ${failures.length}`
  )
}

async function rounds(run: LongRun<State>, which: Which, most: number): Promise<void> {
  const { state } = run
  let campaign: Campaign | undefined
  for (let done = 0; done < most && run.goOn(); done++) {
    campaign ??= await begin((line) => run.say(line))
    const plan = planRound(which.seed, state.rounds, limits(campaign, which))
    const { kills, operations, promised, bytes, problems } = await campaign.run(plan)
    state.rounds++
    state.kills += kills
    state.operations += operations
    state.promised += promised
    state.bytes += bytes
    if (problems.length === 0) continue
    run.fail(`${describePlan(plan)}\n  ${problems.join('\n  ')}`, rerun(which, plan.number))
    // What goes on from a damaged region says nothing.
    await campaign.end()
    campaign = undefined
  }
  await campaign?.end()
}

const limits = ({ host }: Campaign, { moment }: Which) => ({ ends: host.ends, moment })

async function begin(say: (line: string) => void): Promise<Campaign> {
  const campaign = await Campaign.begin()
  for (const sentence of campaign.host.lacking) say(`kill: ${sentence}`)
  return campaign
}

/** Timing is not repeated: what is, is the work of the clients, and what is done to them. */
function rerun({ seed, moment }: Which, number: number): string {
  const also = moment === undefined ? '' : ` --moment ${moment}`
  return `npm run test:kill -- --seed ${seed}${also} --round ${number}`
}

async function one(which: Which, number: number): Promise<number> {
  const campaign = await begin((line) => process.stdout.write(`${line}\n`))
  const plan = planRound(which.seed, number, limits(campaign, which))
  const { operations, problems } = await campaign.run(plan)
  for (const problem of problems) process.stdout.write(`${problem}\n`)
  process.stdout.write(`${describePlan(plan)}: ${operations} operations, lost ${problems.length}\n`)
  return problems.length === 0 ? 0 : 1
}

/** The same program again, in a mount namespace of its own; resolves to its exit code. */
function startInside(): Promise<number> {
  const [program, ...args] = inNamespace([process.execPath, ...process.execArgv]) as [string]
  const child = spawn(program, [...args, ...process.argv.slice(1)], {
    stdio: 'inherit',
    env: { ...process.env, [INSIDE]: '1' },
  })
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.on(signal, () => child.kill(signal))
  }
  return new Promise((resolve) => {
    child.on('error', () => resolve(1))
    child.on('close', (code) => resolve(code ?? 1))
  })
}
