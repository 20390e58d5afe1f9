/** A mounted filesystem from claim to release: device, filesystem, transport, control socket. */
import { hostname } from 'node:os'
import { openByName } from '../bus/open.ts'
import { isHoldfast, mountAt } from '../control/mountinfo.ts'
import { ControlServer } from '../control/server.ts'
import { watchBusErrors } from '../dax/bus-errors.ts'
import type { DaxDevice } from '../dax/device.ts'
import { fsPutDax, type Holder } from '../dax/holder.ts'
import { watchRemoval } from '../dax/removal.ts'
import { socketPath } from '../dax/runtime-directory.ts'
import { Filesystem } from '../fs/filesystem.ts'
import { claimRegion } from './claim.ts'
import { sentenceOf } from './errors.ts'
import type { LineLogger } from './logger.ts'
import type { MountPlan } from './plan.ts'
import { probeMount } from './probe.ts'
import { signalMappers } from './signal-mappers.ts'
import { startTransport, type Transport } from './transport.ts'

export class Daemon {
  readonly plan: MountPlan
  readonly transport: Transport
  readonly #logger: LineLogger
  readonly #claimed: Claimed
  readonly #fs: Filesystem
  readonly #control: ControlServer

  private constructor(
    plan: MountPlan,
    logger: LineLogger,
    claimed: Claimed,
    fs: Filesystem,
    transport: Transport,
    control: ControlServer,
  ) {
    this.plan = plan
    this.transport = transport
    this.#logger = logger
    this.#claimed = claimed
    this.#fs = fs
    this.#control = control
  }

  /** Mounts. What was done before a step that fails is undone, last first. */
  static async start(plan: MountPlan, logger: LineLogger): Promise<Daemon> {
    const undo = new AsyncUndo()
    try {
      const claimed = await claim(plan, logger)
      undo.push(() => release(claimed))
      const fs = mountFilesystem(plan, claimed.device, logger)
      undo.push(() => fs.unmount())
      const transport = await startTransport(plan, fs, claimed.device, logger)
      undo.push(() => transport.unmount(true))
      if (plan.options.onFailure === 'sigbus') signalMappers(fs, plan.mountpoint, logger)
      const control = await listen(plan, claimed, fs, logger)
      return new Daemon(plan, logger, claimed, fs, transport, control)
    } catch (error) {
      await undo.run((cause) => logger.error(`while giving up: ${sentenceOf(cause)}`))
      throw error
    }
  }

  /** Everything after the kernel has let go: the region is clean and free when it resolves. */
  async finish(): Promise<void> {
    await this.#detachAborted()
    try {
      // Watchers hear of the unmount, and of a failure in it, before they are hung up on.
      await this.#fs.unmount()
      this.#logger.info(`unmounted ${this.plan.mountpoint}`)
    } finally {
      // In the turn in which the volume was closed: whoever holds the region is told what fails in
      // it. The socket's name goes first, for afterwards it is the next holder's.
      const hungUp = this.#control.close()
      release(this.#claimed)
      await hungUp
    }
  }

  /** A connection that was aborted leaves a dead mount behind. */
  async #detachAborted(): Promise<void> {
    const { mountpoint } = this.plan
    const mount = mountAt(mountpoint)
    if (mount === undefined || !isHoldfast(mount)) return
    if ((await probeMount(mountpoint, 1000)) !== 'dead') return
    this.#logger.warn(`the connection of ${mountpoint} was aborted`)
    await this.transport.unmount(true).catch((error) => this.#logger.warn(sentenceOf(error)))
  }
}

interface Claimed {
  readonly device: DaxDevice
  readonly holder: Holder
  /** Ends the watch for failed and for removed memory. */
  readonly unwatch: () => unknown
}

async function claim(
  { region, mountpoint, options }: MountPlan,
  logger: LineLogger,
): Promise<Claimed> {
  const device = openByName(region, { readOnly: options.readOnly })
  const holder: Holder = { purpose: 'mount', mountpoint }
  try {
    await claimRegion(device, holder, (sentence) => logger.info(sentence))
  } catch (error) {
    device.close()
    throw error
  }
  const unwatch = [
    watchBusErrors(device),
    watchRemoval(device, (sentence) => logger.warn(sentence)),
  ]
  return { device, holder, unwatch: () => unwatch.map((stop) => stop()) }
}

function release({ device, holder, unwatch }: Claimed): void {
  unwatch()
  fsPutDax(device, holder)
  device.close()
}

function mountFilesystem(
  { options }: MountPlan,
  device: DaxDevice,
  logger: LineLogger,
): Filesystem {
  return Filesystem.mount(device, {
    readOnly: options.readOnly,
    commitSeconds: options.commitSeconds,
    onFailure: options.onFailure,
    noatime: options.flags.has('noatime'),
    indexDirectory: options.indexDir,
    logger,
  })
}

function listen(
  { region, mountpoint, options }: MountPlan,
  { device }: Claimed,
  fs: Filesystem,
  logger: LineLogger,
): Promise<ControlServer> {
  const holder = { pid: process.pid, host: hostname(), since: new Date().toISOString() }
  const facts = { region, mountpoint, transport: options.transport, holder }
  const warn = (sentence: string) => logger.warn(sentence)
  return ControlServer.listen(socketPath(device.key ?? ''), { fs: fs.administration, facts, warn })
}

/** Steps that undo what was done, run last first; one that fails does not stop the others. */
class AsyncUndo {
  readonly #steps: (() => void | Promise<void>)[] = []

  push(step: () => void | Promise<void>): void {
    this.#steps.push(step)
  }

  async run(onError: (error: unknown) => void): Promise<void> {
    for (const step of this.#steps.reverse()) {
      try {
        await step()
      } catch (error) {
        onError(error)
      }
    }
  }
}
