/** `npm run test:fsx`: random operations on files of a real mount, against a model in memory. */
import { parseArgs } from 'node:util'
import { workDirectory } from '../bench/targets.ts'
import { exercise, type Failure } from './exercise.ts'
import { MODES, type Mode, type TransportName } from './modes.ts'

const HELP = `usage: npm run test:fsx -- [OPTION…]
  --minutes N         how long, all modes together (default 1)
  --operations N      as many operations of each client, instead
  --seed S            repeats what a run with that seed did (default: another every time)
  --transport NAME    kernel (default) or fuse-native
  --mode NAME         one mode only: ${MODES.kernel.map(({ name }) => name).join(', ')}
  --without NAME,…    operations to leave out
`

const SEED_MAX = 2 ** 31

interface Wanted {
  transport: TransportName
  modes: readonly Mode[]
  seed: number
  minutes: number
  operations: number | undefined
}

export async function main(args: readonly string[]): Promise<number> {
  const wanted = parse(args)
  if (wanted === undefined) {
    process.stdout.write(HELP)
    return 2
  }
  const { transport, modes, seed, minutes, operations } = wanted
  process.stdout.write(`fsx: seed ${seed}\n`)
  const { operations: done, failures } = await exercise({
    transport,
    modes,
    seed,
    operations,
    seconds: (minutes * 60) / modes.length,
    directory: workDirectory(),
    progress: (line) => process.stdout.write(`fsx: ${line}\n`),
  })
  for (const failure of failures) process.stdout.write(describe(failure, transport, seed))
  const counts = Object.entries(done).map(([mode, count]) => `${mode} ${count}`)
  const total = Object.values(done).reduce((sum, count) => sum + count, 0)
  const found = failures.length === 1 ? '1 mismatch' : `${failures.length} mismatches`
  const of = `transport ${transport}: ${counts.join(', ')}; seed ${seed}`
  process.stdout.write(`fsx: ${total} operations, ${found} (${of})\n`)
  return failures.length === 0 ? 0 : 1
}

/** Undefined when that cannot be meant. */
function parse(args: readonly string[]): Wanted | undefined {
  const { values } = parseArgs({
    args: [...args],
    options: {
      help: { type: 'boolean', short: 'h', default: false },
      minutes: { type: 'string', default: '1' },
      operations: { type: 'string' },
      seed: { type: 'string' },
      transport: { type: 'string', default: 'kernel' },
      mode: { type: 'string' },
      without: { type: 'string', default: '' },
    },
  })
  const seed = Number(values.seed ?? Math.floor(Math.random() * SEED_MAX))
  const minutes = Number(values.minutes)
  const operations = values.operations === undefined ? undefined : Number(values.operations)
  const known = values.transport === 'kernel' || values.transport === 'fuse-native'
  if (values.help || !known) return undefined
  if (!Number.isSafeInteger(seed) || !(minutes > 0) || operations === 0) return undefined
  const transport = values.transport as TransportName
  const more = values.without.split(',').filter((name) => name !== '')
  const modes = MODES[transport]
    .filter(({ name }) => values.mode === undefined || name === values.mode)
    .map((mode) => ({ ...mode, without: [...mode.without, ...more] }))
  return modes.length === 0 ? undefined : { transport, modes, seed, minutes, operations }
}

/** What went wrong, the shortest way there, and the command that does it again. */
export function describe(failure: Failure, transport: TransportName, seed: number): string {
  const { mode, error, number, operation, shortest } = failure
  if (number === undefined) return `fsx: ${mode}: ${error}\n`
  const lines = [`${mode}: operation ${number} ${JSON.stringify(operation)}: ${error}`]
  if (shortest) {
    lines.push(`${shortest.length} operations are enough:`)
    lines.push(...shortest.map((step) => `  ${JSON.stringify(step)}`))
  } else lines.push('it did not go wrong again on new files')
  const rerun = `--transport ${transport} --mode ${mode} --seed ${seed} --operations ${number}`
  lines.push(`again: npm run test:fsx -- ${rerun}`)
  return lines.map((line) => `fsx: ${line}\n`).join('')
}
