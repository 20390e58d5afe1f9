/** `npm run test:crash`: explores crashes for as long as it is told, and prints its figure last. */
import { parseArgs } from 'node:util'
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
import {
  campaign,
  describe,
  type Mode,
  oneSequence,
  rerunOf,
  type SequenceName,
  type Totals,
} from './campaign.ts'
import { explore } from './explorer.ts'
import { killAll, runInMutant } from './mutation.ts'
import { isNarrow, rerunNarrow } from './narrow.ts'
import { FLAVOUR_NAMES, type FlavourName } from './operations.ts'

const KINDS = ['cacheline', 'page'] as const satisfies readonly Mode[]

const HELP = `usage: npm run test:crash -- [OPTION…]
${LONG_HELP}  --kind KIND        cacheline (device-dax) or page (plain file); default both in turn
  --flavour NAME     only sequences of one sort: ${FLAVOUR_NAMES.join(' ')}
  --narrow           with limits so small that sequences meet them: see test/crash/narrow.ts
  --sequence S       one sequence only, as a failure names it, with its --kind …
  --keep N,N,…       … and of its operations only these
  --mutants          break holdfast in every way of the list; each must be found out
  --mutant NAME      only this way
`

export async function main(args: readonly string[]): Promise<number> {
  const { values } = parseArgs({
    args: [...args],
    options: {
      ...LONG_OPTIONS,
      kind: { type: 'string' },
      flavour: { type: 'string' },
      narrow: { type: 'boolean', default: false },
      sequence: { type: 'string' },
      keep: { type: 'string' },
      mutants: { type: 'boolean', default: false },
      mutant: { type: 'string' },
    },
  })
  if (values.help) {
    process.stdout.write(HELP)
    return 0
  }
  if (values.narrow && !isNarrow) return rerunNarrow(args)
  const options = longOptions(values)
  const modes = values.kind === undefined ? KINDS : [oneOf('--kind', values.kind, KINDS)]
  const flavour =
    values.flavour === undefined ? undefined : oneOf('--flavour', values.flavour, FLAVOUR_NAMES)
  if (values.sequence !== undefined) {
    const keep = values.keep?.split(',').map((at) => wholeNumber('--keep', at))
    const sequence = wholeNumber('--sequence', values.sequence)
    return one({ seed: sequence, mode: modes[0]!, flavour, keep }, values.mutant)
  }
  if (values.mutants || values.mutant !== undefined) {
    const wanted = values.mutant === undefined ? undefined : [values.mutant]
    return killAll({ wanted, print: (line) => process.stdout.write(`${line}\n`) })
  }
  return long(options, modes, flavour)
}

async function one(name: SequenceName, mutant: string | undefined): Promise<number> {
  if (mutant !== undefined) return runInMutant(mutant, name)
  const outcome = await explore(oneSequence(name))
  for (const line of outcome.trace) process.stdout.write(`${line}\n`)
  process.stdout.write(`${outcome.images} crash images: ${outcome.failure ?? 'all as promised'}\n`)
  return outcome.failure === undefined ? 0 : 1
}

/** Until the time is over or a crash fails. */
function long(
  options: LongOptions,
  modes: readonly Mode[],
  flavour: FlavourName | undefined,
): Promise<number> {
  const plan: LongPlan<Totals & LongState> = {
    name: 'crash',
    key: [...modes, flavour ?? 'all', ...(isNarrow ? ['narrow'] : [])],
    options,
    fresh: { sequences: 0, images: 0, failures: [] },
    progress: ({ sequences, images }) => `${sequences} sequences, ${images} crash images`,
    figure: ({ state, before, seconds }) => {
      const rate = Math.round((state.images - before.images) / seconds())
      return (
        `${counted(state.images, before.images, 'crash images')}, of ${state.sequences} ` +
        `sequences (seed ${options.seed}, ${modes.join(' and ')}${isNarrow ? ', narrow limits' : ''}), ${rate} a second`
      )
    },
  }
  return longRun(plan, async (run) => {
    const which = { seed: options.seed, modes, flavour, from: run.state.sequences }
    const finding = await campaign({ ...which, goOn: run.goOn }, run.state)
    if (finding === undefined) return
    run.fail(finding.message, rerunOf(finding.sequence))
    run.say(await describe(finding))
  })
}
