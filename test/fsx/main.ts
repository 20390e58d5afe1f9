/** `npm run test:fsx`: random operations on files of a real mount, against a model in memory. */
import { rmSync } from 'node:fs'
import { parseArgs } from 'node:util'
import { mixSeeds } from '../crash/random.ts'
import {
  counted,
  LONG_HELP,
  LONG_OPTIONS,
  type LongOptions,
  type LongPlan,
  type LongState,
  longOptions,
  longRun,
  oneOf,
  wholeNumber,
} from '../support/long-run.ts'
import { cannotMount, lacks, scratch } from '../support/mounts.ts'
import { type ExerciseOptions, exercise, type Failure, type Result } from './exercise.ts'
import { MODES, type Mode, type TransportName } from './modes.ts'

const TRANSPORTS = ['kernel', 'fuse-native'] as const satisfies readonly TransportName[]
/** Of each mode in one round: the region goes from mode to mode, then a new one is made. */
const ROUND_SECONDS = 8

const HELP = `usage: npm run test:fsx -- [OPTION…]
${LONG_HELP}  --transport NAME   kernel (default) or fuse-native: each has a count of its own
  --mode NAME        one mode only: ${MODES.kernel.map(({ name }) => name).join(', ')}
  --without NAME,…   operations to leave out
  --round S          one round only, as a failure names it, with its --transport, --mode …
  --operations N     … and as many operations of each client as it took
`

interface Wanted {
  readonly transport: TransportName
  readonly modes: readonly Mode[]
}

interface State extends LongState {
  rounds: number
  operations: Result['operations']
}

export async function main(args: readonly string[]): Promise<number> {
  const { values } = parseArgs({
    args: [...args],
    options: {
      ...LONG_OPTIONS,
      transport: { type: 'string', default: 'kernel' },
      mode: { type: 'string' },
      without: { type: 'string', default: '' },
      round: { type: 'string' },
      operations: { type: 'string', default: '10000' },
    },
  })
  if (values.help) {
    process.stdout.write(HELP)
    return 0
  }
  const options = longOptions(values)
  const transport = oneOf('--transport', values.transport, TRANSPORTS)
  const names = MODES[transport].map(({ name }) => name)
  const mode = values.mode === undefined ? undefined : oneOf('--mode', values.mode, names)
  const without = values.without.split(',').filter((name) => name !== '')
  const modes = MODES[transport]
    .filter(({ name }) => mode === undefined || name === mode)
    .map((one) => ({ ...one, without: [...one.without, ...without] }))
  const excuse = cannotMount(transport) || lacks('python3')
  if (excuse !== false) {
    process.stderr.write(`fsx: cannot run: ${excuse}\n`)
    return 2
  }
  const wanted = { transport, modes }
  if (values.round === undefined) return long(wanted, options, without)
  const seed = wholeNumber('--round', values.round)
  return once(wanted, seed, wholeNumber('--operations', values.operations))
}

/** One round on a region of its own. */
async function round(part: Omit<ExerciseOptions, 'directory'>): Promise<Result> {
  const directory = scratch('memory')
  const result = await exercise({ ...part, directory })
  rmSync(directory, { recursive: true })
  return result
}

async function once(wanted: Wanted, seed: number, operations: number): Promise<number> {
  const result = await round({ ...wanted, seed, operations, seconds: 0 })
  for (const failure of result.failures) {
    process.stdout.write(`${describe(failure)}\n`)
  }
  process.stdout.write(`${total(result.operations)} operations (${shares(result.operations)})\n`)
  return result.failures.length === 0 ? 0 : 1
}

function long(wanted: Wanted, options: LongOptions, without: readonly string[]): Promise<number> {
  const { transport, modes } = wanted
  const plan: LongPlan<State> = {
    name: 'fsx',
    key: [transport, ...modes.map(({ name }) => name), ...without],
    options,
    fresh: { rounds: 0, operations: {}, failures: [] },
    progress: ({ operations }) => `${total(operations)} operations`,
    figure: ({ state, before }) =>
      `${counted(total(state.operations), total(before.operations), 'fsx operations')}, ` +
      `transport ${transport} (${shares(state.operations)}; seed ${options.seed})`,
  }
  return longRun(plan, async (run) => {
    const { state } = run
    while (run.goOn()) {
      const seed = mixSeeds(options.seed, state.rounds)
      const left = (options.minutes * 60 - run.seconds()) / modes.length
      const seconds = Math.max(1, Math.min(ROUND_SECONDS, left))
      const { operations, failures } = await round({ ...wanted, seed, seconds })
      state.rounds++
      for (const [mode, count] of Object.entries(operations)) {
        state.operations[mode] = (state.operations[mode] ?? 0) + count
      }
      for (const failure of failures) run.fail(describe(failure), rerunOf(failure, transport, seed))
    }
  })
}

function total(operations: Result['operations']): number {
  return Object.values(operations).reduce((sum, count) => sum + count, 0)
}

function shares(operations: Result['operations']): string {
  return Object.entries(operations)
    .map(([mode, count]) => `${mode} ${count.toLocaleString('en')}`)
    .join(', ')
}

/** The command that does it again; without a number only time brought it about. */
export function rerunOf(failure: Failure, transport: TransportName, seed: number): string {
  const { mode, number } = failure
  const one = number === undefined ? '' : ` --mode ${mode} --operations ${number}`
  return `npm run test:fsx -- --transport ${transport} --round ${seed}${one}`
}

/** What went wrong, and the shortest way there. */
export function describe({ mode, error, number, operation, shortest }: Failure): string {
  if (number === undefined) return `${mode}: ${error}`
  const lines = [`${mode}: operation ${number} ${JSON.stringify(operation)}: ${error}`]
  if (shortest) {
    lines.push(`${shortest.length} operations are enough:`)
    lines.push(...shortest.map((step) => `  ${JSON.stringify(step)}`))
  } else lines.push('it did not go wrong again on new files')
  return lines.join('\n')
}
