/** Medians, ratios and tables. */
import { readFileSync } from 'node:fs'
import { cpus, loadavg, release, totalmem } from 'node:os'
import Table from 'cli-table3'
import { ROOT, run } from '../quickstart/programs.ts'

export function median(values: readonly number[]): number | undefined {
  const sorted = [...values].sort((a, b) => a - b)
  const middle = sorted.length >> 1
  if (sorted.length === 0) return undefined
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1]! + sorted[middle]!) / 2
}

/** 1234567 → '1.23 M'; three digits that count. */
export function short(value: number): string {
  if (value >= 1e6) return `${(value / 1e6).toPrecision(3)} M`
  if (value >= 1e4) return `${(value / 1e3).toPrecision(3)} k`
  return value >= 100 ? value.toFixed(0) : value.toPrecision(3)
}

export function ratio(value: number | undefined, base: number | undefined): string {
  if (value === undefined || base === undefined || base === 0) return '–'
  return (value / base).toFixed(2)
}

export function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const made = new Table({
    head: [...head],
    colAligns: head.map((_, column) => (column === 0 ? 'left' : 'right')),
    style: { head: [], border: [], compact: true },
  })
  for (const row of rows) made.push([...row])
  return made.toString()
}

export interface Machine {
  cpu: string
  cores: number
  memory: string
  kernel: string
  node: string
  fio: string
  bindfs: string
  commit: string
  date: string
  load: number
}

async function firstLine(command: readonly string[]): Promise<string> {
  const { status, stdout } = await run(command, { cwd: ROOT })
  return status === 0 ? (stdout.split('\n')[0]?.trim() ?? '') : '?'
}

/** What a figure depends on besides us. */
export async function machine(): Promise<Machine> {
  const cores = cpus()
  return {
    cpu: cores[0]?.model ?? '?',
    cores: cores.length,
    memory: `${Math.round(totalmem() / 2 ** 30)} GiB`,
    kernel: release(),
    node: process.version,
    fio: await firstLine(['fio', '--version']),
    bindfs: await firstLine(['bindfs', '--version']),
    commit: await firstLine(['git', 'rev-parse', '--short', 'HEAD']),
    date: new Date().toISOString().slice(0, 16),
    load: loadavg()[0] ?? 0,
  }
}

export function machineLine(facts: Machine): string {
  const { cpu, cores, memory, kernel, node, fio, bindfs, commit, date, load } = facts
  const parts = [
    `${cpu}, ${cores} cores, ${memory}`,
    `Linux ${kernel}`,
    `Node ${node}`,
    fio,
    bindfs,
  ]
  return `${[...parts, `commit ${commit}`, date].join(' · ')} · load before ${load.toFixed(2)}`
}

/** Memory of a process, bytes: what is its own (no file, no shared memory). */
export function anonymousMemory(pid: number): number {
  const text = readFileSync(`/proc/${pid}/status`, 'utf8')
  return Number(/RssAnon:\s+(\d+) kB/.exec(text)?.[1] ?? Number.NaN) * 1024
}

/** Processor time a process has used, seconds. */
export function processorTime(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, 'utf8')
    .replace(/^.*\) /, '')
    .split(' ')
  return (Number(fields[11]) + Number(fields[12])) / 100
}
