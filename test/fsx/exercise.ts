/**
 * Exercises a mount against a model in memory. Clients are processes of their own (client.py): one
 * works on one file, others on several, at the same time. Meanwhile the daemon writes checkpoints.
 * The region goes from mode to mode: each mount must still have what the one before left.
 */
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { connectTo, resolveTarget } from '../../src/control/target.ts'
import { must } from '../../tools/bench/targets.ts'
import { run, runProgram, sleep } from '../../tools/quickstart/programs.ts'
import type { Mode, TransportName } from './modes.ts'

const CLIENT = fileURLToPath(new URL('client.py', import.meta.url))
/** Files of each client, and how large they become. All of them work at the same time. */
const CLIENTS = [
  { files: 1, limit: 256 * 1024 },
  { files: 4, limit: 3 * 1024 * 1024 },
  { files: 12, limit: 64 * 1024 },
]
const CHECKPOINT_EVERY_MS = 1000
/** For the client's own limits: an operation that hangs, a list that is made shorter. */
const PATIENCE_MS = 120_000

export interface ExerciseOptions {
  transport: TransportName
  modes: readonly Mode[]
  seed: number
  /** Of each mode. */
  seconds: number
  /** Of each client, instead of seconds. */
  operations?: number | undefined
  /** An empty directory in memory. */
  directory: string
}

export interface Failure {
  mode: string
  error: string
  /** Of the operation that went wrong; undefined when it was not one of the client's. */
  number?: number
  operation?: unknown[]
  shortest?: unknown[][] | null
}

export interface Result {
  operations: Record<string, number>
  failures: Failure[]
}

/** What client.py prints. */
interface Report {
  operations: number
  failure: Required<Omit<Failure, 'mode'>> | null
  digests: string[] | null
}

export async function exercise(options: ExerciseOptions): Promise<Result> {
  const region = join(options.directory, 'region')
  const mountpoint = join(options.directory, 'mnt')
  mkdirSync(mountpoint)
  must(await runProgram('mkfs.holdfast', ['--size', '128M', region]))
  const result: Result = { operations: {}, failures: [] }
  let left: string[] = []
  for (const mode of options.modes) {
    const list = [...mode.options, `transport=${options.transport}`]
    const all = [...list, `log=${join(options.directory, 'log')}`].join(',')
    must(await runProgram('holdfast', ['mount', '-o', all, region, mountpoint]))
    await expectLeft(mountpoint, left, mode, result)
    left = await runMode(options, mode, mountpoint, result)
    must(await runProgram('holdfast', ['umount', mountpoint]))
  }
  const check = await runProgram('fsck.holdfast', ['-n', '-f', region])
  if (check.status !== 0) result.failures.push({ mode: 'fsck', error: check.stdout + check.stderr })
  return result
}

/** Runs the clients; returns lines for `sha256sum --check` about what they left. */
async function runMode(
  options: ExerciseOptions,
  mode: Mode,
  mountpoint: string,
  result: Result,
): Promise<string[]> {
  let running = true
  const checkpoints = checkpointWhile(mountpoint, () => running)
  const reports = await Promise.all(
    CLIENTS.map(async ({ files, limit }, index) => {
      const directory = join(mountpoint, `client${index}`)
      const shape = ['--files', String(files), '--limit', String(limit)]
      const report = await runClient(options, mode, directory, options.seed + index, shape)
      return { directory, ...report }
    }),
  )
  running = false
  await checkpoints
  const left: string[] = []
  for (const { directory, operations, failure, digests } of reports) {
    result.operations[mode.name] = (result.operations[mode.name] ?? 0) + operations
    if (failure !== null) result.failures.push({ mode: mode.name, ...failure })
    digests?.forEach((digest, file) => {
      left.push(`${digest}  ${join(directory, `file${file}`)}\n`)
    })
  }
  return left
}

async function runClient(
  { seconds, operations }: ExerciseOptions,
  { without }: Mode,
  directory: string,
  seed: number,
  shape: readonly string[],
): Promise<Report> {
  const end = operations ? ['--operations', String(operations)] : ['--seconds', String(seconds)]
  const command = ['python3', '-B', CLIENT, directory, '--seed', String(seed), ...shape, ...end]
  if (without.length > 0) command.push('--without', without.join(','))
  const outcome = await run(command, {
    timeoutMs: (operations ? 3_600_000 : seconds * 1000) + PATIENCE_MS,
  })
  return JSON.parse(must(outcome).stdout) as Report
}

/** So that images are written while the files change. */
async function checkpointWhile(mountpoint: string, running: () => boolean): Promise<void> {
  const control = await connectTo(resolveTarget(mountpoint))
  while (running()) {
    await control.call('checkpoint', {})
    await sleep(CHECKPOINT_EVERY_MS)
  }
  control.close()
}

async function expectLeft(
  mountpoint: string,
  left: readonly string[],
  mode: Mode,
  result: Result,
): Promise<void> {
  if (left.length === 0) return
  const check = await run(['sha256sum', '--check', '--quiet'], { input: left.join('') })
  if (check.status === 0) return
  const error = `not as the mount before left it, on ${mountpoint}: ${check.stdout}${check.stderr}`
  result.failures.push({ mode: mode.name, error })
}
