/** Scratch regions and mounts, taken down when the process exits, however that comes. */
import { mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { openByName } from '../../src/bus/open.ts'
import type { ControlClient } from '../../src/control/client.ts'
import { connectTo, resolveTarget } from '../../src/control/target.ts'
import type { Status } from '../../src/fs/administration.ts'
import { readSuperblocks, requireSuperblock, type Superblock } from '../../src/media/superblock.ts'
import {
  abortConnection,
  detach,
  mountsBelow,
  type Outcome,
  runProgram,
} from '../quickstart/programs.ts'

/** Throws with what the program said. */
function must({ status, stderr, stdout, timedOut }: Outcome, what: string): void {
  if (status === 0) return
  const how = timedOut ? 'did not come to its end' : `exit ${status}`
  throw new Error(`${what}: ${how}: ${stderr.trim() || stdout.trim()}`)
}

/** A directory that is emptied, mounts and daemons included, when this process exits. */
export function scratchDirectory(parent: string, name: string): string {
  const directory = mkdtempSync(join(parent, `${name}-`))
  process.on('exit', () => {
    for (const mount of mountsBelow(directory)) {
      abortConnection(mount)
      detach(mount.mountpoint)
    }
    rmSync(directory, { recursive: true, force: true })
  })
  return directory
}

export class ScratchMount {
  readonly region: string
  readonly mountpoint: string
  readonly log: string
  #control: ControlClient | undefined

  private constructor(region: string, mountpoint: string, log: string) {
    this.region = region
    this.mountpoint = mountpoint
    this.log = log
  }

  /** A new filesystem in a file of `size` (or on the region of this name), mounted. */
  static async make(directory: string, size: string, region?: string): Promise<ScratchMount> {
    const place = mkdtempSync(join(directory, 'm-'))
    const mountpoint = join(place, 'mnt')
    mkdirSync(mountpoint)
    const mount = new ScratchMount(region ?? join(place, 'region'), mountpoint, join(place, 'log'))
    const how = region === undefined ? ['--size', size] : ['--force']
    must(await runProgram('mkfs.holdfast', [...how, mount.region]), 'mkfs.holdfast')
    await mount.mount()
    return mount
  }

  async mount(): Promise<void> {
    must(await this.tryMount(), 'holdfast mount')
  }

  tryMount(): Promise<Outcome> {
    const options = `log=${this.log}`
    return runProgram('holdfast', ['mount', '-o', options, this.region, this.mountpoint])
  }

  async control(): Promise<ControlClient> {
    this.#control ??= await connectTo(resolveTarget(this.mountpoint))
    return this.#control
  }

  async status(): Promise<Status> {
    return (await this.control()).call('status', {})
  }

  async unmount(): Promise<void> {
    this.#control?.close()
    this.#control = undefined
    must(await runProgram('holdfast', ['umount', this.mountpoint]), 'holdfast umount')
  }

  /** The state on media now; nobody is disturbed. */
  superblock(): Superblock {
    const device = openByName(this.region, { readOnly: true })
    try {
      return requireSuperblock(readSuperblocks(device.memory))
    } finally {
      device.close()
    }
  }

  logText(): string {
    return readFileSync(this.log, 'utf8')
  }
}
