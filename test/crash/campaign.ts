/** Many sequences one after the other, and what to say of one that failed. */
import { explore, NORMAL } from './explorer.ts'
import { isNarrow } from './narrow.ts'
import { type FlavourName, generate, type Sequence } from './operations.ts'
import { mixSeeds } from './random.ts'
import { shrink } from './shrink.ts'

export type Mode = Sequence['mode']

export interface Totals {
  sequences: number
  images: number
}

export interface Finding {
  readonly sequence: Sequence
  readonly message: string
  readonly trace: readonly string[]
}

export interface CampaignOptions {
  readonly seed: number
  readonly modes: readonly Mode[]
  /** All sequences of this one; each of its own when undefined. */
  readonly flavour?: FlavourName | undefined
  /** The first sequence: an earlier campaign of the same seed came so far. */
  readonly from?: number
  /** Asked before each sequence. */
  readonly goOn: (totals: Totals, next: number) => boolean
}

/** Stops at the first failure. */
export async function campaign(options: CampaignOptions, totals: Totals) {
  for (let next = options.from ?? 0; options.goOn(totals, next); next++) {
    const sequence = sequenceOf(options, next)
    const outcome = await explore(sequence, NORMAL)
    totals.sequences++
    totals.images += outcome.images
    if (outcome.failure === undefined) continue
    return { sequence, message: outcome.failure, trace: outcome.trace } satisfies Finding
  }
  return undefined
}

function sequenceOf({ seed, modes, flavour }: CampaignOptions, number: number): Sequence {
  return generate(mixSeeds(seed, number), modes[number % modes.length]!, flavour)
}

/** The command that explores a sequence again. */
export function rerunOf({ mode, flavour, seed }: Sequence): string {
  const narrow = isNarrow ? ' --narrow' : ''
  return `npm run test:crash -- --kind ${mode} --flavour ${flavour} --sequence ${seed}${narrow}`
}

/** The failure as a text: what is wrong, the shortest way there, and how to see it again. */
export async function describe(finding: Finding): Promise<string> {
  const { sequence, message, trace } = finding
  const outcome = { images: 0, fingerprints: new Set<string>(), failure: message, trace }
  const small = await shrink(sequence, outcome)
  const again = await explore(small.sequence, NORMAL)
  const kept = small.sequence.operations.map(({ at }) => at).join(',')
  return [
    `crash failure over ${sequence.mode} memory: ${message}`,
    `shrunk from ${sequence.operations.length} operations to ${small.sequence.operations.length}:`,
    ...small.outcome.trace.map((line) => `  ${line}`),
    `there: ${small.outcome.failure}`,
    ...(again.failure === undefined ? ['(it does not fail every time)'] : []),
    `rerun: ${rerunOf(sequence)} --keep ${kept}`,
  ].join('\n')
}

export interface SequenceName {
  readonly seed: number
  readonly mode: Mode
  readonly flavour?: FlavourName | undefined
  /** Of its operations only these: the shrinker left the others out. */
  readonly keep?: readonly number[] | undefined
}

export function oneSequence({ seed, mode, flavour, keep }: SequenceName): Sequence {
  const whole = generate(seed, mode, flavour)
  if (keep === undefined) return whole
  return { ...whole, operations: whole.operations.filter(({ at }) => keep.includes(at)) }
}
