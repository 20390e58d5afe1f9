/**
 * `npm run test:model`: random operations on a mount and on the core must do what they do on tmpfs,
 * and, while memory fails, what the model of failures says.
 */
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
import { cannotMount, lacks, notRoot } from '../support/mounts.ts'
import { KIND_NAMES, KINDS, type Kind, type KindName, rerunOf } from './kinds.ts'

const HELP = `usage: npm run test:model -- [OPTION…]
${LONG_HELP}  --against KIND     one only of ${KIND_NAMES.join(', ')}; default all in turn
  --mode NAME        one only of its modes; default all in turn
  --sequence S       one sequence only, as a failure names it, with its --against, --mode …
  --operations N     … and as many operations
`

interface Part {
  readonly name: KindName
  readonly mode: string
}

interface State extends LongState {
  sequences: number
  operations: Record<KindName, number>
}

export async function main(args: readonly string[]): Promise<number> {
  const { values } = parseArgs({
    args: [...args],
    options: {
      ...LONG_OPTIONS,
      against: { type: 'string' },
      mode: { type: 'string' },
      sequence: { type: 'string' },
      operations: { type: 'string' },
    },
  })
  if (values.help) {
    process.stdout.write(HELP)
    return 0
  }
  const options = longOptions(values)
  const parts = partsOf(values.against, values.mode)
  const mounts = parts.some(({ name }) => name !== 'core')
  const excuse = mounts && (cannotMount() || notRoot() || lacks('python3'))
  if (excuse !== false) {
    process.stderr.write(`model: cannot run: ${excuse}; --against core runs anywhere\n`)
    return 2
  }
  const key = [values.against ?? 'all', values.mode ?? 'all']
  if (values.sequence === undefined) return long(parts, key, options)
  const { name, mode } = parts[0]!
  const operations = wholeNumber('--operations', values.operations ?? `${KINDS[name].operations}`)
  const wrong = await KINDS[name].run(mode, wholeNumber('--sequence', values.sequence), operations)
  process.stdout.write(
    `${wrong ?? `${operations} operations ${KINDS[name].title}: all the same`}\n`,
  )
  return wrong === undefined ? 0 : 1
}

function partsOf(against: string | undefined, mode: string | undefined): Part[] {
  const names = against === undefined ? KIND_NAMES : [oneOf('--against', against, KIND_NAMES)]
  const all = names.flatMap((name) => KINDS[name].modes.map((one) => ({ name, mode: one })))
  if (mode === undefined) return all
  const known = oneOf('--mode', mode, [...new Set(all.map((part) => part.mode))])
  return all.filter((part) => part.mode === known)
}

function long(
  parts: readonly Part[],
  key: readonly string[],
  options: LongOptions,
): Promise<number> {
  const total = ({ operations }: State) =>
    Object.values(operations).reduce((sum, count) => sum + count, 0)
  const plan: LongPlan<State> = {
    name: 'model',
    key,
    options,
    fresh: { sequences: 0, operations: { tmpfs: 0, failures: 0, names: 0, core: 0 }, failures: [] },
    progress: (state) => `${total(state).toLocaleString('en')} operations`,
    figure: ({ state, before }) => {
      const shares = KIND_NAMES.map(
        (name) => `${state.operations[name].toLocaleString('en')} ${KINDS[name].title}`,
      )
      const what = counted(total(state), total(before as State), 'modelled operations')
      return `${what} (${shares.join(', ')}; seed ${options.seed})`
    },
  }
  return longRun(plan, async (run) => {
    const { state } = run
    while (run.goOn()) {
      const { name, mode } = parts[state.sequences % parts.length]!
      const { operations, run: compare }: Kind = KINDS[name]
      const seed = mixSeeds(options.seed, state.sequences)
      const wrong = await compare(mode, seed, operations).catch(messageOf)
      state.sequences++
      state.operations[name] += operations
      if (wrong !== undefined) run.fail(wrong, rerunOf(name, mode, seed, operations))
    }
  })
}

/** A mount that hangs or dies is a failure as others. */
function messageOf(error: Error): string {
  return error.message
}
