/**
 * `--striped`: what a stripe set of two devices costs or gains beside one device of the same size,
 * through the mount. In turn, and each first in every other round: whatever else the machine does
 * hits both alike.
 */
import { mkdirSync, mkdtempSync } from 'node:fs'
import { join } from 'node:path'
import { runProgram } from '../quickstart/programs.ts'
import { Daemon } from './daemon.ts'
import { JOBS, type Scale } from './jobs.ts'
import {
  type Machine,
  machine,
  machineLine,
  median,
  processorTime,
  ratio,
  short,
  table,
} from './report.ts'
import { must, settle, touchMemory, workDirectory } from './targets.ts'

const UNIT = 2 ** 21
const KINDS = ['one device', 'two, striped'] as const
type Kind = (typeof KINDS)[number]

export interface Striped {
  machine: Machine
  rounds: number
  scale: Scale
  rows: Row[]
}

interface Row {
  job: string
  /** MB/s of each round. */
  figures: Record<Kind, number[]>
  /** Processor time of the daemon, seconds: what no other program on the machine disturbs much. */
  processor: Record<Kind, number[]>
}

export async function striped(
  scale: Scale,
  rounds: number,
  progress: (line: string) => void,
): Promise<Striped> {
  const facts = await machine()
  const directory = workDirectory()
  // Room for the file, and for its next edition before the last one is gone.
  const size = Math.ceil((2.5 * scale.sequential) / (2 * UNIT)) * 2 * UNIT + 64 * 2 ** 20
  await touchMemory(directory, 2 * size)
  progress('mounting')
  const daemons: Record<Kind, Daemon> = {
    'one device': await makeOne(directory, size),
    'two, striped': await makeSet(directory, size),
  }
  const jobs = JOBS.filter(({ name }) => name.startsWith('sequential'))
  const none = () => ({ 'one device': [], 'two, striped': [] })
  const rows = jobs.map(({ name }): Row => ({ job: name, figures: none(), processor: none() }))
  for (let round = 1; round <= rounds; round++) {
    for (const [at, job] of jobs.entries()) {
      progress(`round ${round} of ${rounds}: ${job.name}`)
      for (const kind of round % 2 === 1 ? KINDS : [...KINDS].reverse()) {
        const { mountpoint, pid } = daemons[kind]
        const before = processorTime(pid)
        rows[at]!.figures[kind].push(await job.measure(mountpoint, scale))
        rows[at]!.processor[kind].push(processorTime(pid) - before)
        await settle()
      }
    }
  }
  for (const kind of KINDS) await daemons[kind].unmount()
  return { machine: facts, rounds, scale, rows }
}

async function makeOne(directory: string, size: number): Promise<Daemon> {
  return mounted(directory, (place) => [join(place, 'region')], ['--size', String(size)])
}

/** Two targets of half the size each, and of what a target needs for itself. */
async function makeSet(directory: string, size: number): Promise<Daemon> {
  const half = String(size / 2 + 2 * UNIT)
  const pair = (place: string) => [join(place, 'a'), join(place, 'b')]
  return mounted(directory, pair, ['--striped', '--size', half])
}

async function mounted(
  directory: string,
  regions: (place: string) => string[],
  how: readonly string[],
): Promise<Daemon> {
  const place = mkdtempSync(join(directory, 'd-'))
  const names = regions(place)
  const daemon = new Daemon(names.join(','), join(place, 'mnt'))
  mkdirSync(daemon.mountpoint)
  must(await runProgram('mkfs.holdfast', [...how, ...names]))
  await daemon.mount()
  return daemon
}

export function printStriped({ machine, rounds, scale, rows }: Striped): string {
  const line = (what: string, values: Record<Kind, number[]>) => {
    const [one, two] = KINDS.map((kind) => median(values[kind]))
    return [what, short(one!), short(two!), ratio(two, one)]
  }
  const cells = rows.flatMap(({ job, figures, processor }) => [
    line(`${job}, MB/s`, figures),
    line('  processor time of the daemon, s', processor),
  ])
  const file = `${scale.sequential / 2 ** 20} MiB`
  return [
    machineLine(machine),
    '',
    table(['', ...KINDS, 'striped / one'], cells),
    `Medians of ${rounds} rounds in turn; a file of ${file}, chunks of 2 MiB, regions on /dev/shm.`,
  ].join('\n')
}
