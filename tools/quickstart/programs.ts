/** Runs the programs of this checkout, and others, as children with a hard time limit. */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { existsSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { type Mount, readMounts } from '../../src/control/mountinfo.ts'

export const ROOT = fileURLToPath(new URL('../..', import.meta.url)).replace(/\/$/, '')

/** Launchers, as package.json "bin" has them. */
export const LAUNCHERS = {
  holdfast: 'src/cli/bin/holdfast.mjs',
  'mount.holdfast': 'src/cli/bin/mount.holdfast.mjs',
  'mkfs.holdfast': 'mkfs/mkfs.holdfast.mjs',
  'fsck.holdfast': 'tools/fsck.holdfast.mjs',
} as const

export type Program = keyof typeof LAUNCHERS

/** The command that starts a program of this checkout. */
export function commandOf(program: Program, args: readonly string[]): string[] {
  return [process.execPath, join(ROOT, LAUNCHERS[program]), ...args]
}

export interface Outcome {
  /** Exit code; null when a signal ended it. */
  status: number | null
  signal: NodeJS.Signals | null
  stdout: string
  stderr: string
  /** It was still running at the limit and was killed. */
  timedOut: boolean
  milliseconds: number
}

export interface RunOptions {
  timeoutMs?: number
  input?: string | Buffer
  cwd?: string
  env?: NodeJS.ProcessEnv
  uid?: number
  gid?: number
}

/** Time a killed child gets to be gone; one stuck in the kernel is left behind. */
const GRACE_MS = 2_000
/** Time for the last output of a child that has ended. */
const DRAIN_MS = 500

/** Runs a command to its end. Never rejects: a command that cannot start has status 127. */
export function run(command: readonly string[], options: RunOptions = {}): Promise<Outcome> {
  const [program, ...args] = command as [string, ...string[]]
  const started = performance.now()
  const stdout: Buffer[] = []
  const stderr: Buffer[] = []
  const { timeoutMs = 60_000, input, cwd, env, uid, gid } = options
  const child = spawn(program, args, {
    stdio: ['pipe', 'pipe', 'pipe'],
    ...(cwd !== undefined && { cwd }),
    ...(uid !== undefined && { uid }),
    ...(gid !== undefined && { gid }),
    env: { ...process.env, ...env },
  })
  child.stdout.on('data', (chunk: Buffer) => stdout.push(chunk))
  child.stderr.on('data', (chunk: Buffer) => stderr.push(chunk))
  child.stdin.on('error', () => undefined)
  child.stdin.end(input)
  return new Promise((resolve) => {
    let timedOut = false
    let grace: NodeJS.Timeout | undefined
    const end = (status: number | null, signal: NodeJS.Signals | null) => {
      clearTimeout(limit)
      clearTimeout(grace)
      resolve({
        status,
        signal,
        stdout: Buffer.concat(stdout).toString(),
        stderr: Buffer.concat(stderr).toString(),
        timedOut,
        milliseconds: performance.now() - started,
      })
    }
    const limit = setTimeout(() => {
      timedOut = true
      kill(child)
      grace = setTimeout(() => end(null, null), GRACE_MS)
    }, timeoutMs)
    child.on('error', (error) => {
      stderr.push(Buffer.from(`${error.message}\n`))
      end(127, null)
    })
    child.on('close', end)
    // A daemon that it started may keep our pipes open.
    child.on('exit', (status, signal) => {
      clearTimeout(limit)
      grace ??= setTimeout(() => end(status, signal), DRAIN_MS)
    })
  })
}

/** Kills by pid; what it leaves open no longer holds us. */
function kill(child: ChildProcess): void {
  child.kill('SIGKILL')
  child.stdout?.destroy()
  child.stderr?.destroy()
  child.unref()
}

/** Runs a program of this checkout to its end. */
export function runProgram(
  program: Program,
  args: readonly string[],
  options: RunOptions = {},
): Promise<Outcome> {
  return run(commandOf(program, args), options)
}

/** What a command printed with --json; throws with its stderr when it failed. */
export async function runJson<T>(
  program: Program,
  args: readonly string[],
  options: RunOptions = {},
): Promise<T> {
  const outcome = await runProgram(program, [...args, '--json'], options)
  if (outcome.status !== 0) {
    throw new Error(`${program} ${args.join(' ')}: ${outcome.stderr || `exit ${outcome.status}`}`)
  }
  return JSON.parse(outcome.stdout) as T
}

/** Ends the FUSE connection of a mount: whoever waits on it gets an error. Root only. */
export function abortConnection(mount: Mount): void {
  const minor = mount.device.split(':')[1]
  const abort = `/sys/fs/fuse/connections/${minor}/abort`
  try {
    if (existsSync(abort)) writeFileSync(abort, '1')
  } catch {}
}

/** Takes a mount out of the tree at once, busy or dead; synchronous, for exit handlers. */
export function detach(mountpoint: string): void {
  const command = process.getuid?.() === 0 ? ['umount', '-l'] : ['fusermount3', '-uz']
  const [program, flag] = command as [string, string]
  spawnSync(program, [flag, mountpoint], { stdio: 'ignore', timeout: 10_000 })
}

/** Mounts at or below a directory, innermost first. */
export function mountsBelow(directory: string): Mount[] {
  return readMounts()
    .filter(({ mountpoint }) => mountpoint === directory || mountpoint.startsWith(`${directory}/`))
    .reverse()
}

/** 'answers', 'dead' (its daemon is gone) or 'hangs', asked by a child that may block. */
export async function probeMount(mountpoint: string): Promise<'answers' | 'dead' | 'hangs'> {
  const outcome = await run(['stat', '-f', mountpoint], { timeoutMs: 5_000 })
  if (outcome.timedOut) return 'hangs'
  return outcome.status === 0 ? 'answers' : 'dead'
}

export function sleep(milliseconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, milliseconds))
}
