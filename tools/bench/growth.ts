/** `--scale`: what more files cost. The figures of a row are of one filesystem. */
import { rmSync } from 'node:fs'
import { dirname } from 'node:path'
import { Daemon } from './daemon.ts'
import { type Machine, machine, machineLine, median, short, table } from './report.ts'
import { dropCaches, workDirectory } from './targets.ts'

const COUNTS = [1_000, 10_000, 100_000, 1_000_000]
const LOOKUPS = 1_000
const QUERIES = 300
/** Files made before the kill: what the journal holds then. */
const TAIL = 1_000
const MOUNTS = 3

export interface GrowthRow {
  files: number
  createsPerSecond: number
  /** µs for one path of two names, nothing cached. */
  lookup: number
  /** µs for one "who owns this block?" over the control socket. */
  rmapQuery: number
  imageBytes: number
  checkpointMs: number
  /** ms to copy as many bytes as the image has, in memory. */
  copyMs: number
  unmountMs: number
  mountCleanMs: number
  mountAfterKillMs: number
  /** RssAnon of the daemon, bytes: empty, with all files, at most during a checkpoint. */
  memoryEmpty: number
  memory: number
  memoryPeak: number
}

export interface Growth {
  machine: Machine
  rows: GrowthRow[]
}

export async function growth(max: number, progress: (line: string) => void): Promise<Growth> {
  const result: Growth = { machine: await machine(), rows: [] }
  const directory = workDirectory()
  for (const files of COUNTS.filter((count) => count <= max)) {
    result.rows.push(await measure(directory, files, progress))
  }
  return result
}

async function measure(
  directory: string,
  files: number,
  progress: (line: string) => void,
): Promise<GrowthRow> {
  const tell = (what: string) => progress(`${files} files: ${what}`)
  tell('create')
  const daemon = await Daemon.make(directory, files * 6144 + 256 * 2 ** 20)
  const memoryEmpty = daemon.memory()
  const seconds = await daemon.makeFiles(0, files)
  tell('checkpoint, lookup, rmap')
  const checkpoint = await daemon.checkpoint()
  const memory = daemon.memory()
  await dropCaches()
  const lookup = await daemon.lookUp(files, LOOKUPS)
  const rmapQuery = await queryRmap(daemon, files)
  tell('mount after a clean unmount')
  const unmounts = [await daemon.unmount()]
  const mounts = [await daemon.mount()]
  while (mounts.length < MOUNTS) {
    unmounts.push(await daemon.unmount())
    mounts.push(await daemon.mount())
  }
  tell('mount after kill -9')
  await daemon.makeFiles(Math.ceil(files / 1000) * 1000, TAIL)
  await daemon.kill()
  const mountAfterKillMs = await daemon.mount()
  await daemon.unmount()
  rmSync(dirname(daemon.region), { recursive: true, force: true })
  return {
    files,
    createsPerSecond: files / seconds,
    lookup,
    rmapQuery,
    imageBytes: checkpoint.bytes,
    checkpointMs: checkpoint.milliseconds,
    copyMs: copyTime(checkpoint.bytes),
    unmountMs: median(unmounts)!,
    mountCleanMs: median(mounts)!,
    mountAfterKillMs,
    memoryEmpty,
    memory,
    memoryPeak: checkpoint.peak,
  }
}

/** Blocks spread over the part of the region that the files fill. */
async function queryRmap(daemon: Daemon, files: number): Promise<number> {
  const control = await daemon.control()
  const { blocks } = await control.call('status', {})
  const times: number[] = []
  for (let query = 0; query < QUERIES; query++) {
    const block = (query * 104_729) % Math.min(files + blocks.total / 64, blocks.total)
    const range = { offset: Math.floor(block) * 4096, length: 4096, limit: 16 }
    const from = performance.now()
    await control.call('rmap', range)
    times.push((performance.now() - from) * 1000)
  }
  return median(times)!
}

function copyTime(bytes: number): number {
  const source = Buffer.alloc(bytes, 1)
  const target = Buffer.alloc(bytes, 2)
  const times = [1, 2, 3].map(() => {
    const from = performance.now()
    source.copy(target)
    return performance.now() - from
  })
  return median(times)!
}

export function printGrowth({ machine: facts, rows }: Growth): string {
  const mb = (bytes: number) => (bytes / 1e6).toFixed(bytes < 1e7 ? 1 : 0)
  const lines: [string, (row: GrowthRow) => string][] = [
    ['create, files/s', (row) => short(row.createsPerSecond)],
    ['lookup of a path, uncached, µs', (row) => row.lookup.toFixed(0)],
    ['rmap query, µs', (row) => row.rmapQuery.toFixed(0)],
    ['mount after a clean unmount, ms', (row) => row.mountCleanMs.toFixed(0)],
    [
      `mount after kill -9 (${TAIL} files in the journal), ms`,
      (row) => row.mountAfterKillMs.toFixed(0),
    ],
    ['unmount, ms', (row) => row.unmountMs.toFixed(0)],
    ['checkpoint, ms', (row) => row.checkpointMs.toFixed(0)],
    ['checkpoint image, MB', (row) => mb(row.imageBytes)],
    ['memcpy of the image, ms', (row) => row.copyMs.toFixed(1)],
    ['daemon memory (RssAnon), MB', (row) => mb(row.memory)],
    ['  at most during a checkpoint, MB', (row) => mb(row.memoryPeak)],
    [
      '  growth for a file, bytes',
      (row) => ((row.memory - row.memoryEmpty) / row.files).toFixed(0),
    ],
  ]
  const head = ['files', ...rows.map((row) => row.files.toLocaleString('en'))]
  const body = lines.map(([name, cell]) => [name, ...rows.map(cell)])
  return [machineLine(facts), '', table(head, body)].join('\n')
}
