/**
 * What the long runs (`npm run test:NAME`) have in common: their options, a state that the next
 * run of the same seed goes on from, progress, an end by signal, and the figure as the last line.
 */
import { mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { ROOT } from '../../tools/quickstart/programs.ts'
import { openDisplay } from './long-display.ts'

const STATES = join(ROOT, 'build/long-runs')
/** A run that fails so often fails always. */
const FAILURES_MAX = 10
const SIGNALS = { SIGINT: 130, SIGTERM: 143, SIGHUP: 129 } as const

/** For parseArgs, beside a run's own. */
export const LONG_OPTIONS = {
  help: { type: 'boolean', short: 'h', default: false },
  minutes: { type: 'string', default: '5' },
  seed: { type: 'string', default: '1' },
  restart: { type: 'boolean', default: false },
} as const

/** Their lines of a run's --help. */
export const LONG_HELP = `  --minutes N        how long (default 5)
  --seed S           which run (default 1): the same seed does the same
  --restart          from the beginning, not where the last run of that seed stopped
`

export interface LongOptions {
  readonly minutes: number
  readonly seed: number
  readonly restart: boolean
}

export function longOptions(values: {
  minutes: string
  seed: string
  restart: boolean
}): LongOptions {
  const minutes = Number(values.minutes)
  if (!(minutes > 0)) throw usageError(`--minutes takes a number above 0, not '${values.minutes}'`)
  return { minutes, seed: wholeNumber('--seed', values.seed), restart: values.restart }
}

/** For wrong usage: the launcher prints the sentence and exits 2, as for parseArgs' own errors. */
export function usageError(sentence: string): Error {
  return Object.assign(new Error(sentence), { code: 'ERR_PARSE_ARGS_INVALID_OPTION_VALUE' })
}

export function wholeNumber(option: string, text: string): number {
  if (/^\d{1,15}$/.test(text)) return Number(text)
  throw usageError(`${option} takes a whole number, not '${text}'`)
}

export function oneOf<T extends string>(option: string, text: string, names: readonly T[]): T {
  const found = names.find((name) => name === text)
  if (found !== undefined) return found
  throw usageError(`${option} takes one of ${names.join(', ')}, not '${text}'`)
}

/** What is kept from run to run: counts, and of each failure the command that shows it again. */
export interface LongState {
  failures: string[]
}

export interface LongPlan<State extends LongState> {
  /** As in `npm run test:NAME`. */
  readonly name: string
  /** What else, beside the seed, makes it another run with a count of its own. */
  readonly key: readonly string[]
  readonly options: LongOptions
  /** Before the first run. */
  readonly fresh: State
  /** What has been done, in a few words. */
  readonly progress: (state: State) => string
  /** The last line; whether all went well is said behind it. */
  readonly figure: (run: LongRun<State>) => string
}

export interface LongRun<State extends LongState> {
  /**
   * INVARIANT: right at every await, for a signal may come: a unit of work is counted when it is
   * done, with all its numbers at once.
   */
  readonly state: State
  /** What earlier runs had done. */
  readonly before: Readonly<State>
  /** Of this run, so far. */
  seconds(): number
  /**
   * Asked before each unit of work: false when the time is over, or too much failed. Keeps the
   * state.
   */
  goOn(): boolean
  /** A line for the user, whatever shows the progress. */
  say(line: string): void
  /** The run may go on behind a failure. */
  fail(what: string, rerun: string): void
}

/** Returns the exit code: 0 when nothing failed, neither now nor in runs that this one goes on. */
export async function longRun<State extends LongState>(
  plan: LongPlan<State>,
  work: (run: LongRun<State>) => Promise<void>,
): Promise<number> {
  const { name, options, fresh: state } = plan
  const words = [name, String(options.seed), ...plan.key].join('-')
  const path = join(STATES, `${words.replace(/[^\w=.-]+/g, '_')}.json`)
  const kept = options.restart ? undefined : recall<State>(path)
  Object.assign(state, kept)
  const before = structuredClone({ ...state })
  const started = performance.now()
  const seconds = () => (performance.now() - started) / 1000
  const display = openDisplay(name, options.minutes * 60)
  const show = () => display.show(seconds(), plan.progress(state))
  const timer = setInterval(show, 1000)
  const goOn = () => {
    keep(path, state)
    show()
    const failures = state.failures.length - before.failures.length
    return seconds() < options.minutes * 60 && failures < FAILURES_MAX
  }
  const fail = (what: string, rerun: string) => {
    state.failures.push(rerun)
    display.say(`${what}\nrerun: ${rerun}`)
  }
  const run = { state, before, seconds, goOn, say: display.say, fail }
  const finish = (how: string) => {
    clearInterval(timer)
    display.close()
    keep(path, state)
    process.stdout.write(`${plan.figure(run)}: ${verdict(state)}${how}\n`)
  }
  const stop = (signal: keyof typeof SIGNALS) => {
    // What is under way does not count. Mounts and children go with the process.
    finish(', interrupted')
    process.exit(SIGNALS[signal])
  }
  for (const signal of Object.keys(SIGNALS)) process.once(signal, stop)
  if (kept) display.say(`${name}: goes on behind ${plan.progress(state)} (--restart begins anew)`)
  try {
    await work(run)
  } catch (error) {
    display.say(`${(error as Error).stack}`)
    finish(', ended by an error')
    return 1
  }
  finish('')
  return state.failures.length === 0 ? 0 : 1
}

function verdict({ failures }: LongState): string {
  if (failures.length === 0) return 'all as promised'
  return `${failures.length} FAILED, the last: ${failures.at(-1)}`
}

/** "200,000 operations, of which 40,000 now". */
export function counted(total: number, before: number, noun: string): string {
  const now = before === 0 ? '' : `, of which ${(total - before).toLocaleString('en')} now`
  return `${total.toLocaleString('en')} ${noun}${now}`
}

function recall<State>(path: string): Partial<State> | undefined {
  try {
    return JSON.parse(readFileSync(path, 'utf8')) as Partial<State>
  } catch {
    return undefined
  }
}

function keep(path: string, state: LongState): void {
  mkdirSync(STATES, { recursive: true })
  const fresh = `${path}.${process.pid}`
  writeFileSync(fresh, JSON.stringify(state))
  renameSync(fresh, path)
}
