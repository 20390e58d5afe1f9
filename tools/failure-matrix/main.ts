/**
 * `node tools/failure-matrix.mjs`: lets every kind of memory fail under every kind of operation, on
 * scratch mounts, and compares what happens with what docs/FAILURE.md promises.
 */
import { tmpdir } from 'node:os'
import { parseArgs } from 'node:util'
import { Stage } from './cell.ts'
import {
  allCells,
  BLOCKS,
  type Cell,
  differences,
  expected,
  METHODS,
  type Method,
  needsFreshMount,
  OPERATIONS,
  type Outcome,
  quickCells,
} from './cells.ts'
import { printMatrix, Report } from './print.ts'
import { isDeviceDax } from './region.ts'
import { scratchDirectory } from './scratch.ts'

const HELP = `usage: node tools/failure-matrix.mjs [OPTION…]
  --quick            a slice: every block, every operation, about a minute
  --method NAME      ${METHODS.join(', ')}; may be given several times. Default: soft and sigbus,
                     and on a --region that is device-dax hwpoison, too: the kernel itself fails
                     the pages, and takes them for failed until it boots again
  --block PART       only blocks whose name contains this: ${BLOCKS.join('; ')}
  --operation PART   only operations whose name contains this: ${OPERATIONS.join('; ')}
  --region NAME      on this region instead of scratch files: a file, /dev/dax0.0, an instance
                     (FILE#dax0.1), the targets of a mapped device (A,B). What is on it is LOST
  --force            yes, lose it
  --directory DIR    where scratch files go (default /dev/shm)
  --json             the outcome of every cell, as JSON
Exit code: 0 when every cell is as it should be, 1 when not, 2 for wrong usage.
`

/** Memory is only used where it is touched. */
const SIZE = '512M'

export interface Played {
  cell: Cell
  expected: Outcome
  found: Outcome
  differences: string[]
}

interface Options {
  cells: Cell[]
  directory: string
  region: string | undefined
  json: boolean
}

export async function main(args: readonly string[]): Promise<number> {
  const options = readOptions(args)
  if (typeof options === 'number') return options
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.on(signal, () => process.exit(1))
  }
  const directory = scratchDirectory(options.directory, 'holdfast-matrix')
  const report = new Report(options.cells.length)
  await playShared(options, directory, report)
  await playAlone(options, directory, report)
  const { played } = report
  process.stdout.write(
    options.json ? `${JSON.stringify(played, null, 2)}\n` : `${printMatrix(played)}\n`,
  )
  return played.every((one) => one.differences.length === 0) ? 0 : 1
}

/** Cells that a mount survives share one, and the answer to what the next mount needs. */
async function playShared(
  { cells, region }: Options,
  directory: string,
  report: Report,
): Promise<void> {
  const shared = cells.filter((cell) => !needsFreshMount(cell))
  if (shared.length === 0) return
  const stage = await Stage.open(directory, SIZE, region)
  const found: [Cell, Outcome][] = []
  for (const cell of shared) {
    const outcome = await play(stage, cell)
    found.push([cell, outcome])
    report.progress(compare(cell, { ...outcome, next: expected(cell).next }))
  }
  const next = await stage.close()
  const compared = found.map(([cell, outcome]) => compare(cell, { ...outcome, next }))
  report.nextMount(compared)
}

async function playAlone(
  { cells, region }: Options,
  directory: string,
  report: Report,
): Promise<void> {
  for (const cell of cells.filter(needsFreshMount)) {
    const stage = await Stage.open(directory, SIZE, region)
    const outcome = await play(stage, cell)
    const one = compare(cell, { ...outcome, next: await stage.close() })
    report.progress(one)
    report.played.push(one)
  }
}

async function play(stage: Stage, cell: Cell): Promise<Outcome> {
  try {
    return await stage.play(cell)
  } catch (error) {
    const nothing = { handle: '', reopened: '', hit: '', bystander: '', state: '', report: '' }
    return { ...nothing, operation: `not played: ${(error as Error).message}`, next: '' }
  }
}

function compare(cell: Cell, found: Outcome): Played {
  const wanted = expected(cell)
  return { cell, expected: wanted, found, differences: differences(wanted, found) }
}

function readOptions(args: readonly string[]): Options | number {
  const { values } = parseArgs({
    args: [...args],
    options: {
      help: { type: 'boolean', short: 'h', default: false },
      quick: { type: 'boolean', default: false },
      method: { type: 'string', multiple: true },
      block: { type: 'string', default: '' },
      operation: { type: 'string', default: '' },
      region: { type: 'string' },
      force: { type: 'boolean', default: false },
      directory: { type: 'string', default: '/dev/shm' },
      json: { type: 'boolean', default: false },
    },
  })
  if (values.help) {
    process.stdout.write(HELP)
    return 0
  }
  const poisonable = values.region !== undefined && isDeviceDax(values.region)
  const methods = (values.method ?? METHODS.slice(0, poisonable ? 3 : 2)) as Method[]
  const wrong = methods.find((method) => !METHODS.includes(method))
  if (wrong !== undefined) return usage(`there is no method ${wrong}: ${METHODS.join(', ')}`)
  if (values.region !== undefined && !values.force) {
    return usage(`everything on ${values.region} would be lost: say --force if it may`)
  }
  if (methods.includes('hwpoison') && !poisonable) {
    return usage('hwpoison fails memory until the machine boots again: name a device-dax --region')
  }
  const cells = (values.quick ? quickCells(methods) : allCells(methods)).filter(
    ({ block, operation }) => block.includes(values.block) && operation.includes(values.operation),
  )
  const directory = values.directory || tmpdir()
  return { cells, directory, region: values.region, json: values.json }
}

function usage(sentence: string): number {
  process.stderr.write(`failure-matrix: ${sentence}\n`)
  return 2
}
