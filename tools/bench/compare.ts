/**
 * The comparison: every job on every filesystem, in rounds, so that whatever else the machine does
 * hits all alike. The figure is the median of the rounds.
 */
import { JOBS, type Job, prepare, type Scale } from './jobs.ts'
import { type Machine, machine, machineLine, median, ratio, short, table } from './report.ts'
import {
  BenchError,
  dropTargets,
  makeTargets,
  settle,
  TARGET_NAMES,
  type Target,
  touchMemory,
  workDirectory,
} from './targets.ts'

export interface CompareOptions {
  scale: Scale
  rounds: number
  /** Parts of names of targets; all when empty. */
  targets: readonly string[]
  /** Parts of names of jobs; all when empty. */
  jobs: readonly string[]
  progress: (line: string) => void
}

export interface Comparison {
  machine: Machine
  rounds: number
  scale: Scale
  /** Job → target → one figure for each round, or the reason why there is none. */
  results: Record<string, Record<string, number[] | string>>
  units: Record<string, string>
}

/** Room for the files of a target and for a copy of the largest. */
function roomFor(scale: Scale): number {
  const room = 2 * scale.sequential + scale.random + scale.cached + 64 * 2 ** 20
  return Math.ceil((room * 1.25) / 2 ** 21) * 2 ** 21
}

export async function compare(options: CompareOptions): Promise<Comparison> {
  const { scale, rounds, progress } = options
  const facts = await machine()
  progress('touching memory (a fresh virtual machine gets it page by page)')
  const targets = options.targets.length || TARGET_NAMES.length
  const directory = workDirectory()
  await touchMemory(directory, 2 * targets * roomFor(scale))
  progress('mounting and filling')
  const workplace = await makeTargets(directory, roomFor(scale), options.targets)
  const jobs = JOBS.filter(({ name }) => matches(name, options.jobs))
  const comparison: Comparison = { machine: facts, rounds, scale, results: {}, units: {} }
  for (const job of jobs) {
    comparison.units[job.name] = job.unit
    comparison.results[job.name] = {}
  }
  try {
    for (const target of workplace.targets) await fill(target, scale)
    for (let round = 1; round <= rounds; round++) {
      for (const job of jobs) {
        progress(`round ${round} of ${rounds}: ${job.name}`)
        for (const target of workplace.targets) await measure(comparison, job, target)
      }
    }
  } finally {
    await dropTargets(workplace)
  }
  return comparison
}

/** 'create' means that job alone; 'random' all with random in their names. */
function matches(name: string, parts: readonly string[]): boolean {
  return parts.length === 0 || parts.some((part) => name.includes(part))
}

async function fill(target: Target, scale: Scale): Promise<void> {
  if (target.directory === undefined) return
  try {
    await prepare(target.directory, scale)
  } catch (error) {
    if (!(error instanceof BenchError)) throw error
    target.directory = undefined
    target.reason = error.message
  }
}

async function measure(comparison: Comparison, job: Job, target: Target): Promise<void> {
  const results = comparison.results[job.name]!
  if (target.directory === undefined) {
    results[target.name] = target.reason ?? 'not available'
    return
  }
  const before = results[target.name]
  if (typeof before === 'string') return
  try {
    const figure = await job.measure(target.directory, comparison.scale)
    results[target.name] = [...(before ?? []), figure]
  } catch (error) {
    if (!(error instanceof BenchError)) throw error
    results[target.name] = error.message
  }
  await settle()
}

export function print(comparison: Comparison): string {
  const { results, units, rounds, scale } = comparison
  const jobs = Object.keys(results)
  const targets = Object.keys(results[jobs[0] ?? ''] ?? {})
  const reasons = new Map<string, string>()
  const cell = (job: string, target: string): string => {
    const result = results[job]?.[target]
    if (!Array.isArray(result)) {
      if (result !== undefined) reasons.set(target, result)
      return '–'
    }
    const figure = median(result)!
    if (!target.startsWith('holdfast')) return short(figure)
    const ratios = ['tmpfs', 'bindfs'].map((base) => ratioTo(results, job, base, figure))
    return `${short(figure)}\n${ratios.join(' · ')}`
  }
  const rows = jobs.map((job) => [
    `${job}\n${units[job]}`,
    ...targets.map((target) => cell(job, target)),
  ])
  const head = ['', ...targets.map((target) => target.replace(' ', '\n'))]
  const notes = [
    `Medians of ${rounds} rounds. Below a figure of holdfast: × tmpfs · × bindfs.`,
    `Files: ${mib(scale.sequential)} sequential, ${mib(scale.random)} random,`,
    `${mib(scale.cached)} in cache, ${scale.files} small; timed jobs run ${scale.seconds} s.`,
    'All on /dev/shm: ext4 on a loop file there, bindfs (-o big_writes) over a directory there,',
    'the regions of holdfast as files there.',
    ...JOBS.filter(({ name }) => jobs.includes(name)).map(({ name, what }) => `  ${name}: ${what}`),
    ...[...reasons].map(([target, reason]) => `not measured: ${target}: ${reason}`),
  ]
  return [machineLine(comparison.machine), '', table(head, rows), ...notes].join('\n')
}

function ratioTo(
  results: Comparison['results'],
  job: string,
  target: string,
  figure: number,
): string {
  const base = results[job]?.[target]
  return ratio(figure, Array.isArray(base) ? median(base) : undefined)
}

function mib(bytes: number): string {
  return `${bytes / 2 ** 20} MiB`
}
