/** `npm run test:soak`: one daemon under mixed load for a long time; nothing of it may grow. */
import { parseArgs } from 'node:util'
import { mixSeeds } from '../crash/random.ts'
import {
  counted,
  LONG_HELP,
  LONG_OPTIONS,
  type LongRun,
  longOptions,
  longRun,
} from '../support/long-run.ts'
import { growthOf, judge, mib, type Sample, table } from './samples.ts'
import { Soak } from './soak.ts'

const HELP = `usage: npm run test:soak -- [OPTION…]
${LONG_HELP}
Every run is a new daemon: what it has is compared within the run.
`

/** How long clients work between two samples: a share of the run, within these. */
const CYCLE_SECONDS = [0.5, 4] as const
const SAMPLES = 80

interface State {
  failures: string[]
  operations: number
  samples: number
}

export async function main(args: readonly string[]): Promise<number> {
  const minutes = { type: 'string', default: '15' } as const
  const { values } = parseArgs({ args: [...args], options: { ...LONG_OPTIONS, minutes } })
  if (values.help) {
    process.stdout.write(HELP)
    return 0
  }
  const options = longOptions(values)
  const samples: Sample[] = []
  const share = (options.minutes * 60) / SAMPLES
  const seconds = Math.min(CYCLE_SECONDS[1], Math.max(CYCLE_SECONDS[0], share))
  return longRun<State>(
    {
      name: 'soak',
      key: [],
      options,
      fresh: { failures: [], operations: 0, samples: 0 },
      progress: ({ operations }) => progress(operations, samples),
      figure: (run) => figure(run, samples),
    },
    (run) => cycles(run, samples, seconds, options.seed),
  )
}

function progress(operations: number, samples: readonly Sample[]): string {
  const last = samples.at(-1)
  const memory = last === undefined ? '' : `, RssAnon ${mib(last.memory)} MiB`
  return `${operations.toLocaleString('en')} operations${memory}`
}

function figure({ state, before }: LongRun<State>, samples: readonly Sample[]): string {
  const growth = growthOf(samples, 'memory')
  const memory =
    growth === undefined
      ? 'too short to judge memory'
      : `RssAnon ${mib(growth.first)} MiB at first, ${mib(growth.last)} MiB at last ` +
        `(${mib(growth.allowed)} more allowed)`
  const { descriptors } = samples.at(-1) ?? { descriptors: 0 }
  return (
    `soak: ${counted(state.operations, before.operations, 'operations')}, ` +
    `${samples.length} samples, ${memory}, ${descriptors} descriptors`
  )
}

async function cycles(
  run: LongRun<State>,
  samples: Sample[],
  seconds: number,
  seed: number,
): Promise<void> {
  const { state } = run
  const soak = await Soak.begin()
  const rerun = `npm run test:soak -- --seed ${seed}`
  try {
    while (run.goOn()) {
      const before = soak.operations
      samples.push(await soak.cycle(mixSeeds(seed, state.samples), seconds))
      state.samples++
      state.operations += soak.operations - before
    }
    for (const problem of await soak.end()) run.fail(problem, rerun)
  } catch (error) {
    run.fail(`${(error as Error).stack}\n${soak.mount.logText()}`, rerun)
  }
  run.say(table(samples))
  for (const problem of judge(samples)) run.fail(problem, rerun)
}
