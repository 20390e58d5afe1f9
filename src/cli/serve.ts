/** The life of a daemon's process: mount, tell, wait for the end or for signals, unmount. */
import { mountAt } from '../control/mountinfo.ts'
import { canonical } from '../control/target.ts'
import { isBelow, nameUsers } from './busy.ts'
import { Daemon } from './daemon.ts'
import { CliError, codeOf, EXIT_FAILED, EXIT_OK, MOUNT_FAILED, sentenceOf } from './errors.ts'
import { type LineLogger, openLogger } from './logger.ts'
import type { MountPlan } from './plan.ts'
import { isDaemon, reportReadiness } from './ready.ts'
import { prepare } from './stale.ts'

/** Resolves to the exit code after the unmount; rejects when there was no mount. */
export async function serve(plan: MountPlan): Promise<number> {
  const background = isDaemon()
  // In the background stderr is the log already.
  const logger = openLogger(background ? undefined : plan.options.log, plan.options.debug)
  // What the process stands on must not be what somebody wants to unmount.
  process.chdir('/')
  try {
    return await live(plan, logger, background)
  } catch (error) {
    const code = error instanceof CliError ? error.exitCode : MOUNT_FAILED
    if (!background) throw new CliError(sentenceOf(error), code, { cause: error })
    logger.error(sentenceOf(error))
    reportReadiness({ ready: false, error: sentenceOf(error), code })
    return code
  }
}

async function live(plan: MountPlan, logger: LineLogger, background: boolean): Promise<number> {
  await prepare(plan, (sentence) => logger.info(sentence))
  keepPathOutside(plan.mountpoint)
  const daemon = await Daemon.start(plan, logger)
  dieOfBugs(logger)
  const signals = new Signals(daemon, logger, background)
  reportReadiness({ ready: true, pid: process.pid })
  logger.info(greeting(plan, background))
  await daemon.transport.closed
  signals.stop()
  try {
    await daemon.finish()
    return EXIT_OK
  } catch (error) {
    logger.error(`the unmount failed: ${sentenceOf(error)}`)
    return EXIT_FAILED
  }
}

/**
 * We wait for the programs that we start, umount among them, until they have been found: they must
 * not be looked for in what we serve.
 */
function keepPathOutside(mountpoint: string): void {
  if (process.env.PATH === undefined) return
  const directories = process.env.PATH.split(':').filter((path) => path.startsWith('/'))
  const outside = directories.filter((path) => !isBelow(canonical(path), mountpoint))
  process.env.PATH = outside.join(':') || '/usr/sbin:/usr/bin:/sbin:/bin'
}

function greeting({ region, mountpoint }: MountPlan, background: boolean): string {
  const end = background ? `holdfast umount ${mountpoint}` : 'Ctrl-C'
  return `mounted ${region} on ${mountpoint} (pid ${process.pid}); ${end} unmounts`
}

/**
 * A bug may have left anything half done in memory, so nothing more is written: the region is as
 * after a crash, which the next mount replays without loss.
 */
function dieOfBugs(logger: LineLogger): void {
  process.on('uncaughtException', (error) => {
    logger.error(`internal error, stopping as in a crash: ${error.stack ?? sentenceOf(error)}`)
    process.exit(EXIT_FAILED)
  })
}

/**
 * SIGINT and SIGTERM: the first one unmounts, or names the users; a second one detaches lazily; a
 * third one leaves the users with a dead mount.
 */
class Signals {
  readonly #daemon: Daemon
  readonly #logger: LineLogger
  #count = 0
  readonly #onSignal = () => void this.#unmount()

  constructor(daemon: Daemon, logger: LineLogger, background: boolean) {
    this.#daemon = daemon
    this.#logger = logger
    process.on('SIGINT', this.#onSignal).on('SIGTERM', this.#onSignal)
    // The terminal of a foreground daemon is gone; a background one has none to lose.
    process.on('SIGHUP', background ? () => {} : this.#onSignal)
  }

  stop(): void {
    process.off('SIGINT', this.#onSignal).off('SIGTERM', this.#onSignal)
    // Somebody impatient must not kill the final checkpoint.
    process.on('SIGINT', () => {}).on('SIGTERM', () => {})
  }

  async #unmount(): Promise<void> {
    const attempt = ++this.#count
    if (attempt > 2) {
      await this.#leave()
      return
    }
    const lazy = attempt === 2
    const { mountpoint } = this.#daemon.plan
    try {
      // Detached, they would not be found any more.
      const users = lazy ? await this.#users() : undefined
      await this.#daemon.transport.unmount(lazy)
      if (users === undefined) return
      this.#logger.warn(
        `detached ${mountpoint}; waiting for ${users} to let go; again to leave them`,
      )
    } catch (error) {
      if (lazy || codeOf(error) !== 'EBUSY') this.#logger.error(sentenceOf(error))
      else {
        const users = await this.#users()
        const whose = users === undefined ? 'somebody uses it' : `used by ${users}`
        this.#logger.warn(`${mountpoint} is busy: ${whose}; once more detaches it lazily`)
      }
    }
  }

  /** Who they are is good to know, but no more. */
  async #users(): Promise<string | undefined> {
    try {
      const mount = mountAt(this.#daemon.plan.mountpoint)
      return mount && (await nameUsers(mount))
    } catch {
      return undefined
    }
  }

  async #leave(): Promise<void> {
    process.off('SIGINT', this.#onSignal).off('SIGTERM', this.#onSignal)
    this.#logger.warn('leaving; whoever still uses the mount gets ENOTCONN')
    try {
      await this.#daemon.finish()
      process.exit(EXIT_OK)
    } catch (error) {
      this.#logger.error(`the unmount failed: ${sentenceOf(error)}`)
      process.exit(EXIT_FAILED)
    }
  }
}
