/** What the rounds of a seed do. */
import { mixSeeds, Random } from '../crash/random.ts'

/** What is going on when the blow falls. */
export const MOMENTS = ['load', 'checkpoint', 'unmount', 'mkfs', 'repair'] as const
export type Moment = (typeof MOMENTS)[number]

/**
 * How it ends: the process is killed; the same, and another host mounts the region; or the power
 * fails, and what the host had in its page cache is gone.
 */
export const ENDS = ['kill', 'move', 'power'] as const
export type End = (typeof ENDS)[number]

/** Mount options. */
export const MODES = ['cache=keep', 'cache=none', 'writeback'] as const
export type Mode = (typeof MODES)[number]

export interface RoundPlan {
  readonly number: number
  readonly seed: number
  readonly moment: Moment
  readonly end: End
  readonly mode: Mode
  /** How long clients work before the blow. */
  readonly loadMs: number
}

const ORDER: readonly Moment[] = [
  ...(['load', 'checkpoint', 'mkfs', 'load', 'unmount', 'repair', 'load', 'checkpoint'] as const),
]
const LOAD_MS = [500, 4000] as const

export interface Limits {
  readonly ends: readonly End[]
  readonly moment?: Moment | undefined
}

export function planRound(seed: number, number: number, { ends, moment }: Limits): RoundPlan {
  const own = mixSeeds(seed, number)
  const random = new Random(own)
  const [least, most] = LOAD_MS
  return {
    number,
    seed: own,
    moment: moment ?? ORDER[number % ORDER.length]!,
    end: random.pick(ends),
    // Its length and that of ORDER have no common divisor: all pairs come.
    mode: MODES[number % MODES.length]!,
    loadMs: least + random.below(most - least),
  }
}

export function describePlan({ number, moment, end, mode }: RoundPlan): string {
  const how = { kill: 'killed', move: 'killed, mounted elsewhere', power: 'power failure' }[end]
  return `round ${number}: ${how} during ${moment}, ${mode}`
}

/** Milliseconds below the limit, rather fewer: what comes first is short. */
export function soon(random: Random, limit: number): number {
  return (random.below(limit * 100) * random.below(100)) / 10_000
}
