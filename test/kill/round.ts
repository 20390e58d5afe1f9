/**
 * One round on a region that goes from round to round: clients change files, a blow ends it, and
 * everything that was promised must be there. What it left is looked at again a round later.
 */
import { existsSync, renameSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { ControlClient } from '../../src/control/client.ts'
import { mixSeeds, Random } from '../crash/random.ts'
import { type MountedRegion, type Outcome, runProgram, sleep } from '../support/mounts.ts'
import { Clients, type Findings, verify } from './clients.ts'
import type { Host } from './host.ts'
import { type RoundPlan, soon } from './plan.ts'

const CLIENTS = 3
/** How long the daemon may go on with what was asked for. */
const CHECKPOINT_MS = 40
const UNMOUNT_MS = 60
/** A mount of a region that has to be recovered takes about that long. */
const MOUNT_MS = 700
/** For a moment somebody may still be in it. */
const UNMOUNT = 'for i in {1..100}; do umount "$0" && exit; sleep 0.02; done; exit 1'

export interface RoundResult extends Findings {
  /** Processes that were killed. */
  readonly kills: number
}

/** What a round works with; it is the same for all rounds of a campaign. */
export class Rounds {
  readonly host: Host
  /** Of what the round before left. */
  readonly kept: string
  /** The directories in it. */
  #left: readonly string[] = []
  #kills = 0

  constructor(host: Host) {
    this.host = host
    this.kept = join(host.directory, 'kept.json')
  }

  /** Load, checkpoint or unmount. */
  async run(plan: RoundPlan): Promise<RoundResult> {
    this.#kills = 0
    const random = new Random(plan.seed)
    const mount = await this.host.mount(this.host.region, plan.mode)
    const { clients, problems, names, removal } = await this.start(mount, plan)
    if (plan.moment === 'unmount') await removal
    const done = await this.#blow(mount, clients, plan, random, problems)
    problems.push(...(await clients.end()))
    await removal
    await this.host.after(plan.end)
    problems.push(...(await this.fsck(['-n', '-f'], done.killed)))
    const promise = plan.end === 'kill' || !done.killed ? 'all' : 'synced'
    const loosely = plan.mode === 'writeback' && done.killed
    if (random.chance(0.25)) await this.#killMount(plan, random)
    return this.finish(plan, { promise, logs: clients.logs, writeback: loosely, names }, problems)
  }

  /** Starts the clients, and takes away what the round before the last one left. */
  async start(mount: MountedRegion, plan: RoundPlan) {
    const names = Array.from({ length: CLIENTS }, (_, index) => `r${plan.number}-c${index}`)
    const stays = [...this.#left, ...names].map((name) => `! -name ${name}`).join(' ')
    const old = `find . -mindepth 1 -maxdepth 1 ${stays} -print0 | xargs -0 rm -rf`
    const ready = await mount.client(`mkdir ${names.join(' ')} && sync .`)
    const problems = ready.status === 0 ? [] : [`mkdir: ${ready.stderr}`]
    const work = { mountpoint: mount.mountpoint, logs: this.host.directory, names }
    const clients = new Clients({ ...work, socket: this.host.socket(mount), seed: plan.seed })
    // Beside the clients; it ends with the daemon at the latest.
    const removal = mount.client(old)
    return { clients, problems, names, removal }
  }

  /** False: the daemon had ended before. */
  async #blow(
    mount: MountedRegion,
    clients: Clients,
    plan: RoundPlan,
    random: Random,
    problems: string[],
  ): Promise<{ killed: boolean }> {
    const strike = (delayMs: number) =>
      this.host.strike(mount.pid, { ...plan, region: mount.region, delayMs })
    await clients.begun()
    await sleep(plan.loadMs)
    if (clients.ended > 0) problems.push(`${clients.ended} clients ended before the blow`)
    let killed: boolean
    if (plan.moment === 'unmount') {
      problems.push(...(await clients.stop()))
      const command = ['bash', '-c', UNMOUNT, mount.mountpoint]
      const blow = { ...plan, region: mount.region, delayMs: soon(random, UNMOUNT_MS) }
      const struck = await this.host.strikeDuring(command, mount.pid, blow)
      killed = struck.killed
      // Struck down before the kernel had let go, it is a dead mount, which the next one clears.
      if (struck.status !== 0 && !killed) problems.push(`umount: ${struck.output}`)
    } else {
      if (plan.moment === 'checkpoint') await askForCheckpoint(this.host.socket(mount))
      const delayMs = plan.moment === 'checkpoint' ? random.below(CHECKPOINT_MS) : 0
      killed = (await strike(delayMs)).killed
      if (!killed) problems.push(`the daemon died by itself: ${mount.logText()}`)
    }
    if (killed) this.#kills++
    return { killed }
  }

  /** Recovery ends in the middle, too: the next mount begins it again. */
  async #killMount(plan: RoundPlan, random: Random): Promise<void> {
    const { region, mountpoint } = this.host
    const blow = { ...plan, region, delayMs: random.below(MOUNT_MS), watch: false }
    const args = ['mount', '-f', '-o', plan.mode, region, mountpoint]
    const { killed, output } = await this.host.strikeProgram('holdfast', args, blow)
    if (!killed) throw new Error(`mount -f: ${output}`)
    this.#kills++
    await this.host.after(plan.end)
  }

  /** Mounts, compares, leaves a manifest for the next round, and unmounts. */
  async finish(
    plan: RoundPlan,
    expected: {
      promise: 'all' | 'synced'
      logs: readonly string[]
      writeback?: boolean
      names: readonly string[]
    },
    problems: string[],
  ): Promise<RoundResult> {
    const mount = await this.host.mount(this.host.region, plan.mode)
    const next = `${this.kept}.next`
    const found = await verify(mount.mountpoint, { ...expected, kept: this.kept, manifest: next })
    if (existsSync(next)) renameSync(next, this.kept)
    this.#left = expected.names
    problems.push(...found.problems)
    // Every other time what was just made durable has to prove it.
    if (mixSeeds(plan.seed, 1) % 2 === 0) {
      await mount.unmount()
      problems.push(...(await this.fsck(['-n', '-f'], false)))
    } else {
      await this.host.strike(mount.pid, { ...plan, region: mount.region, delayMs: 0 })
      this.#kills++
      await this.host.after(plan.end)
    }
    if (problems.length === 0) for (const log of expected.logs) rmSync(log)
    return { ...found, problems, kills: this.#kills }
  }

  fsck(options: readonly string[], torn: boolean): Promise<string[]> {
    return fsckRegion(this.host.region, options, torn)
  }
}

/**
 * What fsck has to say against a region. A superblock copy that was being written may be torn: the
 * other one serves.
 */
export async function fsckRegion(
  region: string,
  options: readonly string[],
  torn: boolean,
): Promise<string[]> {
  const outcome = await runProgram('fsck.holdfast', [...options, '--json', region])
  return judgeFsck(outcome, torn).map((why) => `fsck ${options.join(' ')}: ${why}`)
}

export function judgeFsck({ status, stdout, stderr }: Outcome, torn: boolean): string[] {
  if (status === 0) return []
  const found = tryParse(stdout)?.problems ?? []
  if (torn && found.length === 1 && found[0]!.code === 'superblock-damaged') return []
  return [`exit ${status}: ${stdout}${stderr}`]
}

function tryParse(text: string): { problems: { code: string }[] } | undefined {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

/** Sent, not waited for. */
async function askForCheckpoint(socket: string): Promise<void> {
  const control = await ControlClient.connect(socket)
  control.call('checkpoint', {}).catch(() => undefined)
  control.closed.catch(() => undefined)
}
