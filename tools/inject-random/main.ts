/**
 * `node tools/inject-random.mjs`: a storm of memory failures against a mount of yours, or against
 * a scratch one. The same seed on a region of the same size draws the same failures; the log says
 * what was really injected, and can be replayed.
 */
import { createReadStream, createWriteStream, statSync, type WriteStream } from 'node:fs'
import { createInterface } from 'node:readline'
import { parseArgs } from 'node:util'
import type { ControlClient } from '../../src/control/client.ts'
import { connectTo, resolveFile, resolveTarget } from '../../src/control/target.ts'
import type { InjectRequest } from '../../src/fs/administration.ts'
import { table } from '../bench/report.ts'
import { ScratchMount, scratchDirectory } from '../failure-matrix/scratch.ts'
import { runProgram } from '../quickstart/programs.ts'
import type { Draw } from './draws.ts'
import { hasFio } from './fio.ts'
import { type Failure, percentile, type StormResult, storm } from './storm.ts'
import { type Verdict, WORKLOADS, Workload, type WorkloadKind } from './workload.ts'

const HELP = `usage: node tools/inject-random.mjs [OPTION…] MOUNTPOINT
       node tools/inject-random.mjs [OPTION…] --scratch
Makes memory of a mounted filesystem fail at random places. Files that are hit lose those bytes.
--scratch mounts a scratch region with files of its own, and checks all of them in the end.
  --count N       failures (default 100)
  --seed N        for the same storm again (default: drawn, and printed)
  --most BYTES    longest failure (default 65536; nine of ten are one page)
  --method NAME   soft, sigbus, or hwpoison on device-dax (default soft)
  --spare PATH    leave this file alone; may be given several times
  --metadata      hit metadata as well: the first hit on what is in use shuts the filesystem down
  --log FILE      write what was injected, one JSON object a line
  --replay FILE   inject what such a log says
  --size SIZE     of a scratch region (default 1G)
  --workload NAME over its spared files: own (writes, renames and checks), or fio (random writes
                  with --verify=crc32c, half of them through mappings) (default own)
  --json          the result as JSON
Exit code: 0 when the filesystem serves on (and, on a scratch mount, nothing but the failed memory
was harmed), 1 when not, 2 for wrong usage.
`

const PARSED = {
  help: { type: 'boolean', short: 'h', default: false },
  scratch: { type: 'boolean', default: false },
  count: { type: 'string', default: '100' },
  seed: { type: 'string' },
  most: { type: 'string', default: '65536' },
  method: { type: 'string', default: 'soft' },
  spare: { type: 'string', multiple: true },
  metadata: { type: 'boolean', default: false },
  log: { type: 'string' },
  replay: { type: 'string' },
  size: { type: 'string', default: '1G' },
  workload: { type: 'string', default: 'own' },
  json: { type: 'boolean', default: false },
} as const

type Values = ReturnType<typeof read>['values']

function read(args: readonly string[]) {
  return parseArgs({ args: [...args], options: PARSED, allowPositionals: true })
}

export async function main(args: readonly string[]): Promise<number> {
  const { values, positionals } = read(args)
  if (values.help) {
    process.stdout.write(HELP)
    return 0
  }
  const [mountpoint] = positionals
  const sentence = complaint(values, mountpoint) ?? (await missing(values))
  if (sentence !== undefined) {
    process.stderr.write(`inject-random: ${sentence}\n`)
    return 2
  }
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.on(signal, () => process.exit(1))
  }
  if (mountpoint !== undefined) return run(await connectTo(resolveTarget(mountpoint)), values)
  return runOnScratch(values)
}

/** With files that are watched over, and a check of all of them at the end. */
async function runOnScratch(values: Values): Promise<number> {
  const directory = scratchDirectory('/dev/shm', 'holdfast-storm')
  const mount = await ScratchMount.make(directory, values.size)
  const control = await mount.control()
  const kind = values.workload as WorkloadKind
  const workload = await Workload.start(mount.mountpoint, control, kind)
  const code = await run(control, values, workload)
  await mount.unmount()
  const check = await runProgram('fsck.holdfast', ['-n', '-f', mount.region])
  process.stderr.write(check.stdout)
  // 4: bad memory under files is told, not mended.
  return code === 0 && [0, 4].includes(check.status ?? -1) ? 0 : 1
}

function complaint(values: Values, mountpoint: string | undefined): string | undefined {
  if ((mountpoint === undefined) === !values.scratch) {
    return 'name a mountpoint, or say --scratch (--help explains)'
  }
  for (const name of ['count', 'most', 'seed'] as const) {
    const given = values[name]
    if (given !== undefined && !/^\d+$/.test(given)) return `--${name} must be a number`
  }
  if (!WORKLOADS.some((name) => name === values.workload)) {
    return `--workload is one of ${WORKLOADS.join(', ')}`
  }
  const methods = ['soft', 'sigbus', 'hwpoison']
  return methods.includes(values.method) ? undefined : `--method is one of ${methods.join(', ')}`
}

async function missing({ workload }: Values): Promise<string | undefined> {
  if (workload !== 'fio' || (await hasFio())) return undefined
  return 'fio is not there: apt-get install fio, or --workload own'
}

async function run(control: ControlClient, values: Values, workload?: Workload): Promise<number> {
  const seed = Number(values.seed ?? Math.floor(Math.random() * 2 ** 32))
  const count = Number(values.count)
  process.stderr.write(`inject-random: seed ${seed}\n`)
  const log = values.log === undefined ? undefined : createWriteStream(values.log)
  const replay = values.replay === undefined ? undefined : await readLog(values.replay)
  const result = await storm(control, {
    seed,
    count: replay?.length ?? count,
    most: Math.max(4096, Number(values.most)),
    method: values.method as InjectRequest['method'],
    spare: workload?.spared ?? new Set((values.spare ?? []).map(inodeOf)),
    metadata: values.metadata,
    ...(replay === undefined ? {} : { replay }),
    onFailure: (failure, number) => note(failure, number, replay?.length ?? count, log),
  })
  const verdict = await workload?.finish(result.failures)
  const { state, blocks } = await control.call('status', {})
  if (workload === undefined) control.close()
  await new Promise<void>((resolve) => (log === undefined ? resolve() : log.end(resolve)))
  const facts = { seed, state, poisoned: blocks.poisoned, ...verdict, ...result }
  if (values.json) process.stdout.write(`${JSON.stringify(facts, null, 2)}\n`)
  else process.stdout.write(`${describe(result)}\n${state}, ${blocks.poisoned} blocks poisoned\n`)
  if (verdict !== undefined) process.stderr.write(`${describeVerdict(verdict)}\n`)
  return state === 'mounted' && (verdict?.problems.length ?? 0) === 0 ? 0 : 1
}

function describeVerdict({ rounds, problems }: Verdict): string {
  const harmed = problems.length === 0 ? 'nothing outside the failed memory was harmed' : 'HARMED:'
  return [`${rounds} writes and checks of spared files meanwhile; ${harmed}`, ...problems].join(
    '\n',
  )
}

function note(failure: Failure, number: number, count: number, log?: WriteStream): void {
  const { offset, length, kind, inodes } = failure
  log?.write(`${JSON.stringify({ offset, length, kind, inodes })}\n`)
  const step = Math.max(1, Math.floor(count / 20))
  if (number % step === 0) process.stderr.write(`inject-random: ${number}/${count}\n`)
}

async function readLog(path: string): Promise<Draw[]> {
  const found: Draw[] = []
  for await (const line of createInterface({ input: createReadStream(path) })) {
    if (line !== '') found.push(JSON.parse(line) as Draw)
  }
  return found
}

function inodeOf(path: string): number {
  if (!statSync(path).isFile()) throw new Error(`--spare ${path}: it is no file`)
  return resolveFile(path).inode
}

export function describe({ failures, skipped }: StormResult): string {
  const rows = (['data', 'free', 'metadata', 'all'] as const).map((kind) => {
    const some = failures.filter((failure) => kind === 'all' || failure.kind === kind)
    const times = some.map(({ milliseconds }) => milliseconds)
    const sum = (value: (failure: Failure) => number) =>
      some.reduce((total, failure) => total + value(failure), 0)
    return [
      kind,
      String(some.length),
      String(sum(({ length }) => length) / 4096),
      String(new Set(some.flatMap(({ inodes }) => inodes)).size),
      String(sum(({ handlesKilled }) => handlesKilled)),
      percentile(times, 0.5).toFixed(2),
      percentile(times, 0.99).toFixed(2),
    ]
  })
  const head = ['memory of', 'failures', 'pages', 'files', 'handles killed', 'p50 ms', 'p99 ms']
  return `${table(head, rows)}\n${skipped} draws left alone (metadata, spared files)`
}
