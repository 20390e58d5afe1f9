/**
 * Real mounts for tests, made with the programs a person runs. A test process never touches its
 * mount itself (a daemon that hangs would hang the test): it sends a client, a child with a hard
 * time limit. Everything is taken down when the process exits, however the tests went.
 */
import {
  accessSync,
  chmodSync,
  constants,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import type { Status } from '../../src/fs/administration.ts'
import {
  abortConnection,
  detach,
  mountsBelow,
  type Outcome,
  type RunOptions,
  run,
  runJson,
  runProgram,
} from '../../tools/quickstart/programs.ts'

export { PythonClient } from '../../tools/demo/python-client.ts'
export {
  type Outcome,
  ROOT,
  run,
  runJson,
  runProgram,
  sleep,
} from '../../tools/quickstart/programs.ts'

/** More where everything is slow: under emulation. */
const CLIENT_LIMIT_MS = Number(process.env.HOLDFAST_TEST_CLIENT_MS ?? 30_000)

/** Where all scratch directories of this run are; tools/test.mjs sweeps it when we are killed. */
let base = process.env.HOLDFAST_TEST_SCRATCH
const cleanups: (() => void)[] = []

process.on('exit', () => {
  for (const clean of cleanups.reverse()) clean()
})

function scratchBase(): string {
  if (base === undefined) {
    const made = mkdtempSync(join(tmpdir(), 'holdfast-test-'))
    chmodSync(made, 0o755)
    cleanups.push(() => rmSync(made, { recursive: true, force: true }))
    base = made
  }
  return base
}

/** A fresh directory that is gone, with all mounts in it, when the process exits. */
export function scratch(kind: 'disk' | 'memory' = 'disk'): string {
  const parent = kind === 'disk' ? scratchBase() : join('/dev/shm', basename(scratchBase()))
  mkdirSync(parent, { recursive: true })
  const directory = mkdtempSync(join(parent, 't-'))
  chmodSync(directory, 0o755)
  cleanups.push(() => {
    for (const mount of mountsBelow(directory)) {
      abortConnection(mount)
      detach(mount.mountpoint)
    }
    // A daemon that has just lost its mount may still write its log.
    rmSync(directory, { recursive: true, force: true, maxRetries: 5, retryDelay: 100 })
  })
  return directory
}

/** Why mounts cannot be tested here, for tap's `skip`; false when they can. */
export function cannotMount(transport: 'kernel' | 'fuse-native' = 'kernel'): string | false {
  try {
    accessSync('/dev/fuse', constants.R_OK | constants.W_OK)
  } catch {
    return 'no access to /dev/fuse'
  }
  const helper = ['/usr/bin/fusermount3', '/bin/fusermount3'].some((path) => existsSync(path))
  if (process.getuid?.() !== 0 && !helper) return 'neither root nor fusermount3'
  return transport === 'fuse-native' ? cannotLoadFuseNative() : false
}

let fuseNative: string | false | undefined

function cannotLoadFuseNative(): string | false {
  if (fuseNative !== undefined) return fuseNative
  const modules = new URL('../../node_modules/fuse-native', import.meta.url)
  const maps = ['/usr/lib/x86_64-linux-gnu', '/usr/lib/aarch64-linux-gnu', '/usr/lib', '/lib64']
  if (!existsSync(modules)) fuseNative = 'fuse-native is not installed'
  else if (!maps.some((place) => existsSync(join(place, 'libfuse.so.2')))) {
    fuseNative = 'libfuse.so.2 is missing (Debian package libfuse2)'
  } else fuseNative = false
  return fuseNative
}

/** Why a test that needs these programs must be skipped; false when they are all there. */
export function lacks(...programs: string[]): string | false {
  const path = [...(process.env.PATH ?? '').split(':'), '/usr/sbin', '/sbin']
  const missing = programs.filter((name) => !path.some((place) => existsSync(join(place, name))))
  return missing.length > 0 ? `not installed: ${missing.join(', ')}` : false
}

/** Why a test needs root; false when we are. */
export function notRoot(): string | false {
  return process.getuid?.() === 0 ? false : 'needs root'
}

export interface ClientOptions extends RunOptions {
  /** The client changes there itself, for that may block. */
  cwd?: string
}

/** Runs a client: a bash script, or a command. Killed by pid at the limit (default 30 s). */
export function runClient(
  command: string | readonly string[],
  options: ClientOptions = {},
): Promise<Outcome> {
  const { cwd, ...rest } = options
  const words = typeof command === 'string' ? ['bash', '-c', command] : command
  const enter = ['bash', '-c', 'cd "$0" && exec "$@"']
  return run(cwd === undefined ? words : [...enter, cwd, ...words], {
    timeoutMs: CLIENT_LIMIT_MS,
    ...rest,
  })
}

/** A client written in Python. */
export function runPython(
  code: string,
  args: readonly string[] = [],
  options: ClientOptions = {},
): Promise<Outcome> {
  return runClient(['python3', '-c', code, ...args], options)
}

export interface MountOptions {
  /** Of a region that is made (default 64M). */
  size?: string
  /** An existing region, mounted as it is. */
  region?: string
  /** Where the region is made: on disk (default) or in /dev/shm. */
  on?: 'disk' | 'memory'
  mountpoint?: string
  /** Mount options: ['ro', 'commit=5']. */
  options?: readonly string[]
  transport?: 'kernel' | 'fuse-native'
  mkfs?: readonly string[]
}

/** A region mounted by a daemon in the background. */
export class MountedRegion {
  readonly region: string
  readonly mountpoint: string
  /** The daemon's log. */
  readonly log: string
  /** Of the daemon. */
  readonly pid: number

  constructor(region: string, mountpoint: string, log: string, pid: number) {
    this.region = region
    this.mountpoint = mountpoint
    this.log = log
    this.pid = pid
  }

  path(...names: string[]): string {
    return join(this.mountpoint, ...names)
  }

  /** A client in the root of the mount. */
  client(command: string | readonly string[], options: ClientOptions = {}): Promise<Outcome> {
    return runClient(command, { cwd: this.mountpoint, ...options })
  }

  status(): Promise<Status> {
    return runJson<Status>('holdfast', ['status', this.mountpoint])
  }

  logText(): string {
    return existsSync(this.log) ? readFileSync(this.log, 'utf8') : ''
  }

  /** kill -9; resolves when the process is gone. The mountpoint stays, dead. */
  async kill(): Promise<void> {
    process.kill(this.pid, 'SIGKILL')
    for (let tries = 0; running(this.pid) && tries < 500; tries++) {
      await new Promise((resolve) => setTimeout(resolve, 10))
    }
  }

  /** `holdfast umount`; throws when it fails. */
  async unmount(): Promise<void> {
    const outcome = await runProgram('holdfast', ['umount', this.mountpoint])
    if (outcome.status !== 0) throw new Error(`umount: ${outcome.stderr}${this.logText()}`)
  }

  /** Mounts the same region on the same place again. */
  mountAgain(options: MountOptions = {}): Promise<MountedRegion> {
    return mountRegion({ ...options, region: this.region, mountpoint: this.mountpoint })
  }
}

/** A process that is there and no zombie. */
function running(pid: number): boolean {
  try {
    return !/^State:\s+[ZX]/m.test(readFileSync(`/proc/${pid}/status`, 'utf8'))
  } catch {
    return false
  }
}

/** Makes a region (unless one is given) and mounts it; throws with what the programs said. */
export async function mountRegion(options: MountOptions = {}): Promise<MountedRegion> {
  const directory = scratch(options.on)
  const region = options.region ?? join(directory, 'region')
  const mountpoint = options.mountpoint ?? join(directory, 'mnt')
  const log = join(directory, 'log')
  // A mountpoint that is given may be a dead mount: the mount cleans it up.
  if (options.mountpoint === undefined) mkdirSync(mountpoint, { recursive: true })
  if (options.region === undefined) {
    const size = options.size ?? '64M'
    await must(await runProgram('mkfs.holdfast', ['--size', size, ...(options.mkfs ?? []), region]))
  }
  const all = [`log=${log}`, `transport=${options.transport ?? 'kernel'}`]
  all.push(...(options.options ?? []))
  const mounted = await runProgram('holdfast', ['mount', '-o', all.join(','), region, mountpoint])
  await must(mounted, log)
  const status = await runJson<Status>('holdfast', ['status', mountpoint])
  const pid = status.holder?.pid
  if (pid === undefined) throw new Error(`status names no holder: ${JSON.stringify(status)}`)
  note(pid, region)
  return new MountedRegion(region, mountpoint, log, pid)
}

async function must(outcome: Outcome, log?: string): Promise<void> {
  if (outcome.status === 0) return
  const text = log !== undefined && existsSync(log) ? readFileSync(log, 'utf8') : ''
  const how = outcome.timedOut ? 'did not come to its end' : `exit ${outcome.status}`
  throw new Error(`${how}: ${outcome.stderr}${text}`)
}

/** So that the daemon dies with us, and tools/test.mjs finds it when we are killed. */
function note(pid: number, region: string): void {
  const directory = join(scratchBase(), '.daemons')
  mkdirSync(directory, { recursive: true })
  writeFileSync(join(directory, String(pid)), region)
  cleanups.push(() => {
    if (commandLine(pid).includes(region)) process.kill(pid, 'SIGKILL')
  })
}

/** Of a process, '' when it is gone: its number may be another's by now. */
function commandLine(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8')
  } catch {
    return ''
  }
}
