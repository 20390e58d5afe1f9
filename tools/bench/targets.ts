/** The filesystems to measure. All lie in memory, on /dev/shm, so that no disk takes part. */
import { existsSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { freemem } from 'node:os'
import { join } from 'node:path'
import {
  abortConnection,
  detach,
  mountsBelow,
  type Outcome,
  run,
  runProgram,
  sleep,
} from '../quickstart/programs.ts'

const MEMORY = '/dev/shm'

export interface Target {
  name: string
  /** Where the files go; undefined when it cannot be measured here. */
  directory: string | undefined
  /** Why not. */
  reason?: string
}

export interface Workplace {
  directory: string
  targets: Target[]
}

export class BenchError extends Error {}

/** Throws with what the command said when it failed. */
export function must(outcome: Outcome): Outcome {
  if (outcome.status === 0) return outcome
  const how = outcome.timedOut ? 'did not come to its end' : `exit ${outcome.status}`
  throw new BenchError(`${how}: ${outcome.stderr.trim() || outcome.stdout.trim()}`)
}

/** A directory in memory that is emptied and removed, mounts included, when the process exits. */
export function workDirectory(): string {
  const directory = mkdtempSync(join(MEMORY, 'holdfast-bench-'))
  process.on('exit', () => {
    for (const mount of mountsBelow(directory)) {
      abortConnection(mount)
      detach(mount.mountpoint)
    }
    rmSync(directory, { recursive: true, force: true })
  })
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.on(signal, () => process.exit(1))
  }
  return directory
}

/** Writes and frees this much memory (but leaves 4 GiB), so that nobody pays for its first use. */
export async function touchMemory(directory: string, bytes: number): Promise<void> {
  const spare = Math.max(0, freemem() - 4 * 2 ** 30)
  const file = join(directory, `memory-${process.pid}`)
  const command = ['head', '-c', String(Math.floor(Math.min(bytes, spare))), '/dev/zero']
  await run(['sh', '-c', `${command.join(' ')} > ${file}`], { timeoutMs: 300_000 })
  rmSync(file, { force: true })
}

/** How each is made, in the order of the table; `size` is the room each gets, bytes. */
const MAKERS: Record<string, (directory: string, size: number) => Promise<string>> = {
  tmpfs: makeTmpfs,
  'ext4 on loop': makeExt4,
  bindfs: makeBindfs,
  'holdfast kernel': (directory, size) => makeHoldfast(directory, size, ['transport=kernel']),
  'holdfast kernel,writeback': (directory, size) =>
    makeHoldfast(directory, size, ['transport=kernel', 'writeback']),
  'holdfast fuse-native': (directory, size) =>
    makeHoldfast(directory, size, ['transport=fuse-native']),
}

export const TARGET_NAMES = Object.keys(MAKERS)

/** Mounts those whose name contains one of `only` (all when empty). */
export async function makeTargets(
  directory: string,
  size: number,
  only: readonly string[],
): Promise<Workplace> {
  const targets: Target[] = []
  for (const [name, make] of Object.entries(MAKERS)) {
    if (only.length > 0 && !only.some((part) => name.includes(part))) continue
    const place = join(directory, name.replaceAll(/[^a-z0-9]+/g, '-'))
    mkdirSync(place)
    try {
      targets.push({ name, directory: await make(place, size) })
    } catch (error) {
      if (!(error instanceof BenchError)) throw error
      targets.push({ name, directory: undefined, reason: error.message })
    }
  }
  return { directory, targets }
}

/** /dev/shm is one. */
async function makeTmpfs(directory: string): Promise<string> {
  return directory
}

async function makeExt4(directory: string, size: number): Promise<string> {
  if (process.getuid?.() !== 0) throw new BenchError('a loop mount needs root')
  const image = join(directory, 'image')
  const mountpoint = join(directory, 'mnt')
  mkdirSync(mountpoint)
  must(await run(['truncate', '-s', String(size), image]))
  must(await run(['mkfs.ext4', '-q', '-F', image]))
  must(await run(['mount', '-o', 'loop', image, mountpoint]))
  return mountpoint
}

/**
 * A FUSE filesystem in C that passes everything to the directory below it. Debian builds it with
 * libfuse 2, which writes 4 KiB at a time (80 MB/s) unless told otherwise; libfuse 3 has no such
 * option.
 */
async function makeBindfs(directory: string): Promise<string> {
  const below = join(directory, 'below')
  const mountpoint = join(directory, 'mnt')
  mkdirSync(below)
  mkdirSync(mountpoint)
  const big = await run(['bindfs', '-o', 'big_writes', below, mountpoint])
  if (big.status !== 0) must(await run(['bindfs', below, mountpoint]))
  return mountpoint
}

async function makeHoldfast(
  directory: string,
  size: number,
  options: readonly string[],
): Promise<string> {
  const region = join(directory, 'region')
  const mountpoint = join(directory, 'mnt')
  mkdirSync(mountpoint)
  must(await runProgram('mkfs.holdfast', ['--size', String(size), region]))
  const log = `log=${join(directory, 'log')}`
  must(
    await runProgram('holdfast', ['mount', '-o', [...options, log].join(','), region, mountpoint]),
  )
  return mountpoint
}

/** Takes all down in order; what does not go is detached at exit. */
export async function dropTargets({ directory }: Workplace): Promise<void> {
  for (const mount of mountsBelow(directory)) {
    if (mount.type === 'fuse.holdfast') await runProgram('holdfast', ['umount', mount.mountpoint])
    else await run(['umount', mount.mountpoint])
  }
}

/** Waits until the log or anything else a daemon still does has come to rest. */
export function settle(): Promise<void> {
  return sleep(100)
}

/** Drops the kernel's dentries and inodes (level 2); false when we may not. */
export async function dropCaches(): Promise<boolean> {
  if (process.getuid?.() !== 0 || !existsSync('/proc/sys/vm/drop_caches')) return false
  return (await run(['sh', '-c', 'sync; echo 2 > /proc/sys/vm/drop_caches'])).status === 0
}
