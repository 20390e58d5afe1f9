/**
 * A round in which mkfs.holdfast is killed over an old filesystem. Afterwards the region holds the
 * old one, whole, or the new one, whole and empty, or none; and mkfs --force makes one.
 */
import { existsSync, renameSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { Random } from '../crash/random.ts'
import type { MountedRegion } from '../support/mounts.ts'
import { Clients, verify } from './clients.ts'
import type { Host } from './host.ts'
import { type RoundPlan, soon } from './plan.ts'
import { fsckRegion, type RoundResult } from './round.ts'

/** Files of the old filesystem: so many operations made them. */
const OPERATIONS = 150
/** From the start of mkfs to its end, and from its first store. */
const MKFS_MS = 500
const CHANGE_MS = 12
const NAME = 'old'

export class FormatRounds {
  readonly #host: Host
  /** Of the filesystem that is there. */
  readonly #kept: string
  #uuid: string | undefined
  #operations = 0
  #bytes = 0

  constructor(host: Host) {
    this.#host = host
    this.#kept = join(host.directory, 'kept-small.json')
  }

  async run(plan: RoundPlan): Promise<RoundResult> {
    const { small } = this.#host
    const problems: string[] = []
    this.#operations = 0
    this.#bytes = 0
    if (this.#uuid === undefined) await this.#makeOld(plan, problems)
    const random = new Random(plan.seed)
    const watch = random.chance(0.75)
    const delayMs = watch ? soon(random, CHANGE_MS) : random.below(MKFS_MS)
    const blow = { end: plan.end, region: small, seed: random.next(), delayMs, watch }
    const args = ['--force', '--size', `${32}M`, small]
    const said = await this.#host.strikeProgram('mkfs.holdfast', args, blow)
    if (said.struck) await this.#host.after(plan.end)
    else if (said.status !== 0) problems.push(`mkfs: ${said.output}`)
    await this.#look(plan, said.struck, problems)
    await this.#makeOld(plan, problems)
    return {
      operations: this.#operations,
      promised: this.#operations,
      bytes: this.#bytes,
      problems,
      kills: said.killed ? 1 : 0,
    }
  }

  /** A new filesystem over whatever is there, with files in it. */
  async #makeOld(plan: RoundPlan, problems: string[]): Promise<void> {
    const { directory, small } = this.#host
    const made = await this.#host.format(small)
    if (made.status !== 0) problems.push(`mkfs --force: ${made.stderr}`)
    const mount = await this.#host.mount(small, plan.mode)
    await mount.client(`mkdir ${NAME}`)
    const clients = new Clients({
      mountpoint: mount.mountpoint,
      logs: directory,
      socket: this.#host.socket(mount),
      seed: plan.seed,
      names: [NAME],
      operations: OPERATIONS,
    })
    problems.push(...(await clients.end()))
    await this.#verify(mount, clients.logs, problems)
    this.#uuid = (await mount.status()).uuid
    await mount.unmount()
    for (const log of clients.logs) rmSync(log)
  }

  async #verify(mount: MountedRegion, logs: readonly string[], problems: string[]): Promise<void> {
    const next = `${this.#kept}.next`
    const manifest = logs.length > 0 ? { manifest: next, kept: next } : { kept: this.#kept }
    const found = await verify(mount.mountpoint, { promise: 'all', logs, ...manifest })
    if (existsSync(next)) renameSync(next, this.#kept)
    problems.push(...found.problems)
    this.#operations += found.operations
    this.#bytes += found.bytes
  }

  /** What is in the region now. */
  async #look(plan: RoundPlan, struck: boolean, problems: string[]): Promise<void> {
    const { small } = this.#host
    const against = await fsckRegion(small, ['-n', '-f'], struck)
    let mount: MountedRegion
    try {
      mount = await this.#host.mount(small, plan.mode)
    } catch (error) {
      const none = struck && against.length > 0 && /superblock|no holdfast/.test(`${error}`)
      if (!none) problems.push(`neither old nor new: ${(error as Error).message}`)
      return
    }
    // What can be mounted is whole.
    problems.push(...against)
    const { uuid } = await mount.status()
    if (uuid === this.#uuid && struck) await this.#verify(mount, [], problems)
    else {
      const listed = await mount.client('ls -A')
      if (listed.status !== 0 || listed.stdout !== '') problems.push(`not empty: ${listed.stdout}`)
    }
    await mount.unmount()
  }
}
