/** What rounds need of this machine: regions on a disk that can lose power, mounts, the blow. */
import { mkdirSync, readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { SYSTEM_DIRECTORY } from '../../src/dax/runtime-directory.ts'
import { commandOf, detach, type Program } from '../../tools/quickstart/programs.ts'
import {
  type MountedRegion,
  mountRegion,
  type Outcome,
  runClient,
  runProgram,
  scratch,
} from '../support/mounts.ts'
import { Disk } from './disk.ts'
import { Boots } from './namespace.ts'
import type { End, Mode } from './plan.ts'

const STRIKE = fileURLToPath(new URL('strike.py', import.meta.url))
const DISK_MEGABYTES = 320
/** Its journal goes round several times in a round. */
export const REGION_MEGABYTES = 96
/** The one that mkfs is killed over. */
export const SMALL_MEGABYTES = 32

/** What ended a process, and what was written back before. */
export interface Blow {
  readonly end: End
  readonly region: string
  readonly delayMs: number
  readonly seed: number
}

/** What strike.py prints. */
export interface Struck {
  /** The process was there. */
  readonly killed: boolean
  /** The blow fell; not when a program had ended before. */
  readonly struck: boolean
  /** Of a program that ended by itself. */
  readonly status: number | null
  readonly output: string
}

export class Host {
  readonly directory: string
  readonly region: string
  readonly small: string
  readonly mountpoint: string
  /** Why there are no power failures, or no other hosts. */
  readonly lacking: readonly string[]
  readonly #disk: Disk | undefined
  readonly #boots: Boots | undefined
  /** Of the daemon that was started last. */
  #pid: number | undefined

  private constructor(
    directory: string,
    disk: Disk | undefined,
    boots: Boots | undefined,
    [region, small]: readonly [string, string],
    lacking: readonly string[],
  ) {
    this.directory = directory
    this.mountpoint = join(directory, 'mnt')
    this.region = region
    this.small = small
    this.lacking = lacking
    this.#disk = disk
    this.#boots = boots
  }

  static async make(): Promise<Host> {
    const directory = scratch('memory')
    const lacking: string[] = []
    const missing = (what: string) => (error: Error) => {
      lacking.push(`no ${what}: ${error.message}`)
      return undefined
    }
    const boots = await Boots.begin(directory).catch(missing('mount by another host'))
    const disk =
      boots && (await Disk.make(directory, DISK_MEGABYTES).catch(missing('power failure')))
    mkdirSync(join(directory, 'mnt'))
    const place = async (name: string, megabytes: number) =>
      (await disk?.makeFile(name, megabytes)) ?? join(directory, name)
    const region = await place('region', REGION_MEGABYTES)
    const small = await place('small', SMALL_MEGABYTES)
    return new Host(directory, disk, boots, [region, small], lacking)
  }

  /** The ends that this machine can have. */
  get ends(): readonly End[] {
    if (this.#boots === undefined) return ['kill']
    return this.#disk === undefined ? ['kill', 'move'] : ['kill', 'move', 'power']
  }

  format(region: string): Promise<Outcome> {
    const size = region === this.small ? SMALL_MEGABYTES : REGION_MEGABYTES
    return runProgram('mkfs.holdfast', ['--force', '--size', `${size}M`, region])
  }

  async mount(region: string, mode: Mode): Promise<MountedRegion> {
    const mount = await mountRegion({ region, mountpoint: this.mountpoint, options: [mode] })
    this.#pid = mount.pid
    return mount
  }

  /** By the record of the daemon: this process has seen another boot, and would not believe it. */
  socket({ pid }: MountedRegion): string {
    for (const name of readdirSync(SYSTEM_DIRECTORY)) {
      if (!name.endsWith('.json')) continue
      const path = join(SYSTEM_DIRECTORY, name)
      if (holderOf(path) === pid) return path.replace(/json$/, 'sock')
    }
    throw new Error(`${pid} has no control socket`)
  }

  /** Kills a process, if it is still there; when the power fails, that happens in any case. */
  strike(pid: number, blow: Blow): Promise<Struck> {
    return this.#strike(blow, [String(pid)])
  }

  /** Kills a program, some time after its start or after it has begun to write. */
  strikeProgram(
    program: Program,
    args: readonly string[],
    blow: Blow & { readonly watch: boolean },
  ): Promise<Struck> {
    const watch = blow.watch ? ['--watch'] : []
    return this.#strike(blow, [...watch, '--', ...commandOf(program, args)])
  }

  /** Kills a daemon, some time after a command has made it write. */
  strikeDuring(command: readonly string[], pid: number, blow: Blow): Promise<Struck> {
    return this.#strike(blow, ['--watch', '--victim', String(pid), '--', ...command])
  }

  async #strike({ end, region, delayMs, seed }: Blow, rest: readonly string[]): Promise<Struck> {
    const args = ['--region', region, '--delay', String(delayMs / 1000)]
    if (end === 'power') args.push('--disk', this.#disk!.path, '--scatter', String(seed))
    const outcome = await runClient(['python3', '-B', STRIKE, ...args, ...rest], {
      timeoutMs: 90_000,
    })
    if (outcome.status !== 0) throw new Error(`strike.py: ${outcome.stderr}`)
    return JSON.parse(outcome.stdout) as Struck
  }

  /** The host as it is after that: everything of it that was running is gone. */
  async after(end: End): Promise<void> {
    if (end === 'power') await this.#disk?.restart()
    if (end !== 'kill') this.#boots?.next()
  }

  /** Whatever is still mounted, and whoever still runs. */
  async close(): Promise<void> {
    if (this.#pid !== undefined && commandLine(this.#pid).includes(this.directory)) {
      process.kill(this.#pid, 'SIGKILL')
    }
    detach(this.mountpoint)
    await this.#disk?.unmount()
    await this.#boots?.end()
  }
}

/** Of a process, '' when it is gone: its number may be another's by now. */
function commandLine(pid: number): string {
  try {
    return readFileSync(`/proc/${pid}/cmdline`, 'utf8')
  } catch {
    return ''
  }
}

/** The pid in a holder record; other tests' records come and go. */
function holderOf(path: string): number | undefined {
  try {
    return (JSON.parse(readFileSync(path, 'utf8')) as { pid?: number }).pid
  } catch {
    return undefined
  }
}
