/** `npm run test:crash`: explores crashes for as long as it is told, and prints its figure last. */
import { parseArgs } from 'node:util'
import {
  type CampaignOptions,
  campaign,
  describe,
  type Mode,
  oneSequence,
  type SequenceName,
} from './campaign.ts'
import { explore } from './explorer.ts'
import { killAll, runInMutant } from './mutation.ts'
import { FLAVOUR_NAMES } from './operations.ts'
import { forget, recall, remember } from './progress.ts'

const HELP = `usage: npm run test:crash -- [OPTION…]
  --minutes N        how long (default 5)
  --seed S           which sequences (default 1); the same seed gives the same
  --kind KIND        cacheline (device-dax) or page (plain file); default both in turn
  --flavour NAME     only sequences of one sort: ${FLAVOUR_NAMES.join(' ')}
  --restart          from the first sequence of the seed, not where the last run stopped
  --sequence S       one sequence only, as a failure names it, with its --kind …
  --keep N,N,…       … and of its operations only these
  --mutants          break holdfast in every way of the list; each must be found out
  --mutant NAME      only this way
`

/** How often a line of progress is written when nobody looks at a terminal, seconds. */
const LINE_SECONDS = 30

export async function main(args: readonly string[]): Promise<number> {
  const { values } = parseArgs({
    args: [...args],
    options: {
      help: { type: 'boolean', short: 'h', default: false },
      minutes: { type: 'string', default: '5' },
      seed: { type: 'string', default: '1' },
      kind: { type: 'string' },
      flavour: { type: 'string' },
      restart: { type: 'boolean', default: false },
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
  const modes = modesOf(values.kind)
  const seed = wholeNumber('--seed', values.seed)
  const minutes = Number(values.minutes)
  const flavour = FLAVOUR_NAMES.find((name) => name === values.flavour)
  const known = values.flavour === undefined || flavour !== undefined
  if (modes === undefined || seed === undefined || !(minutes > 0) || !known) {
    process.stderr.write(HELP)
    return 2
  }
  if (values.sequence !== undefined) {
    const keep = values.keep?.split(',').map(Number)
    const name = { seed: Number(values.sequence), mode: modes[0]!, flavour, keep }
    return one(name, values.mutant)
  }
  if (values.mutants || values.mutant !== undefined) {
    const wanted = values.mutant === undefined ? undefined : [values.mutant]
    return killAll({ wanted, print: (line) => process.stdout.write(`${line}\n`) })
  }
  const options = { seed, modes, flavour }
  if (values.restart) forget(options)
  return long(options, minutes)
}

function modesOf(kind: string | undefined): readonly Mode[] | undefined {
  if (kind === undefined) return ['cacheline', 'page']
  return kind === 'cacheline' || kind === 'page' ? [kind] : undefined
}

function wholeNumber(option: string, text: string): number | undefined {
  const number = Number(text)
  if (Number.isSafeInteger(number)) return number
  process.stderr.write(`${option} takes a whole number, not ${text}\n`)
  return undefined
}

async function one(name: SequenceName, mutant: string | undefined): Promise<number> {
  if (mutant !== undefined) return runInMutant(mutant, name)
  const outcome = await explore(oneSequence(name))
  for (const line of outcome.trace) process.stdout.write(`${line}\n`)
  process.stdout.write(`${outcome.images} crash images: ${outcome.failure ?? 'all as promised'}\n`)
  return outcome.failure === undefined ? 0 : 1
}

type Which = Pick<CampaignOptions, 'seed' | 'modes' | 'flavour'>

async function long(which: Which, minutes: number): Promise<number> {
  const begun = recall(which)
  const totals = { ...begun }
  if (begun.sequences > 0) {
    const where = `sequence ${begun.sequences}, ${begun.images} images`
    process.stdout.write(`going on after ${where} (--restart begins anew)\n`)
  }
  const started = Date.now()
  let told = 0
  const goOn = () => {
    const seconds = (Date.now() - started) / 1000
    remember(which, totals)
    if (process.stdout.isTTY || seconds - told >= LINE_SECONDS) {
      told = seconds
      progress(totals, seconds, minutes)
    }
    return seconds < minutes * 60
  }
  const finding = await campaign({ ...which, from: begun.sequences, goOn }, totals)
  if (process.stdout.isTTY) process.stdout.write('\n')
  if (finding !== undefined) process.stdout.write(`${await describe(finding)}\n`)
  const rate = (totals.images - begun.images) / ((Date.now() - started) / 1000)
  const verdict = finding === undefined ? 'all as promised' : 'one FAILED'
  process.stdout.write(
    `${totals.images} crash images of ${totals.sequences} sequences (seed ${which.seed}, ` +
      `${which.modes.join(' and ')}), ${Math.round(rate)} a second: ${verdict}\n`,
  )
  return finding === undefined ? 0 : 1
}

function progress(
  { images, sequences }: { images: number; sequences: number },
  seconds: number,
  minutes: number,
): void {
  const part = Math.min(1, seconds / (minutes * 60))
  const line = `${Math.floor(part * 100)} %  ${sequences} sequences, ${images} crash images`
  process.stdout.write(process.stdout.isTTY ? `\r${line} ` : `${line}\n`)
}
