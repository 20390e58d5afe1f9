/**
 * The live workload of a storm by fio: it fills its files at random, through write(2) and through
 * mappings, with blocks that carry a checksum, reads every one of them back, and begins again.
 */
import { mkdirSync, readdirSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { run } from '../quickstart/programs.ts'
import type { Verdict } from './workload.ts'

/** Of each of the files, and of the blocks in them. */
const SIZE = '4m'
const BLOCKS = '4k-64k'
/** One pass takes a second or two; a busy machine may need much more. */
const LIMIT_MS = 300_000

interface Report {
  readonly jobs: readonly {
    readonly error: number
    readonly read: { readonly total_ios: number }
    readonly write: { readonly total_ios: number }
  }[]
}

export async function hasFio(): Promise<boolean> {
  return (await run(['fio', '--version'])).status === 0
}

export class FioWork {
  readonly #directory: string
  readonly spared: ReadonlySet<number>
  #verdict: Verdict
  #stop = false
  readonly #work: Promise<void>

  private constructor(directory: string, first: Verdict) {
    this.#directory = directory
    const paths = readdirSync(directory).map((name) => join(directory, name))
    this.spared = new Set(paths.map((path) => statSync(path).ino))
    this.#verdict = first
    this.#work = this.#loop()
  }

  /** The files are there, and verified once, when this returns. */
  static async start(mountpoint: string): Promise<FioWork> {
    const directory = join(mountpoint, 'fio')
    mkdirSync(directory)
    const first = await pass(directory)
    if (first.problems.length > 0) throw new Error(`the workload fails: ${first.problems[0]}`)
    return new FioWork(directory, first)
  }

  /** False once something was wrong: then it has stopped by itself. */
  get busy(): boolean {
    return this.#verdict.problems.length === 0
  }

  /** Lets the pass that is under way come to its end. */
  async finish(): Promise<Verdict> {
    this.#stop = true
    await this.#work
    return this.#verdict
  }

  async #loop(): Promise<void> {
    while (!this.#stop && this.#verdict.problems.length === 0) {
      const { rounds, problems } = await pass(this.#directory)
      this.#verdict = { rounds: this.#verdict.rounds + rounds, problems }
    }
  }
}

/** Writes and reads of one pass over all files, and what was wrong. */
async function pass(directory: string): Promise<Verdict> {
  const common = ['--rw=randwrite', `--size=${SIZE}`, `--bsrange=${BLOCKS}`, '--numjobs=2']
  const check = ['--verify=crc32c', '--verify_fatal=1', '--do_verify=1', '--randrepeat=0']
  // Or it leaves its state in the current directory.
  check.push('--verify_state_save=0')
  const args = [
    '--output-format=json',
    `--directory=${directory}`,
    '--thread=1',
    ...check,
    ...['--name=write', '--ioengine=psync', ...common, '--end_fsync=1'],
    ...['--name=map', '--ioengine=mmap', ...common],
  ]
  const { status, stdout, stderr } = await run(['fio', ...args], { timeoutMs: LIMIT_MS })
  const json = stdout.indexOf('{')
  const jobs = json < 0 ? [] : (JSON.parse(stdout.slice(json)) as Report).jobs
  const rounds = jobs.reduce((sum, job) => sum + job.read.total_ios + job.write.total_ios, 0)
  const good = status === 0 && jobs.length > 0 && jobs.every(({ error }) => error === 0)
  const said = stderr.trim() || stdout.slice(0, Math.max(0, json)).trim()
  return { rounds, problems: good ? [] : [`fio (exit ${status}): ${said}`] }
}
