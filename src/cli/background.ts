/** Starts the daemon of a mount in the background and waits until the mount answers. */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, fstatSync, openSync, readSync } from 'node:fs'
import type { Readable } from 'node:stream'
import { fileURLToPath } from 'node:url'
import { isHoldfast, mountAt } from '../control/mountinfo.ts'
import { regionKey } from '../dax/region.ts'
import { type DaemonLog, openDaemonLog } from './daemon-log.ts'
import { CliError, MOUNT_FAILED, MOUNT_SYSTEM } from './errors.ts'
import { LOG_STYLE_VARIABLE } from './logger.ts'
import { formatOptions } from './options.ts'
import type { MountPlan } from './plan.ts'
import { probeMount } from './probe.ts'
import { parseReadiness, READY_FD, READY_VARIABLE, type Readiness } from './ready.ts'

const LAUNCHER = fileURLToPath(new URL('./bin/holdfast.mjs', import.meta.url))

/**
 * The data path makes little garbage: a small young generation costs it nothing and saves tens of
 * megabytes in a process that stays.
 */
const NODE_FLAGS = ['--max-semi-space-size=4']

const ANSWER_MS = 10_000

export interface Started {
  readonly pid: number
  /** How to read the daemon's log. */
  readonly log: string
}

export async function startInBackground(plan: MountPlan): Promise<Started> {
  const log = await openDaemonLog(plan.options.log, regionKey(plan.region))
  const logSize = log.file === undefined ? 0 : fstatSync(log.fd).size
  const child = spawnDaemon(plan, log)
  const undo = passOnSignals(child)
  try {
    const readiness = await readinessOf(child)
    if (readiness === undefined) throw died(child, log, logSize)
    if (!readiness.ready) throw new CliError(readiness.error, readiness.code)
    await requireAnswer(plan.mountpoint, log)
    return { pid: readiness.pid, log: log.place }
  } finally {
    undo()
    log.close()
    child.unref()
  }
}

/** The same plan in the foreground, in a session of its own. */
function spawnDaemon({ region, mountpoint, options }: MountPlan, log: DaemonLog): ChildProcess {
  const command = ['mount', '-f', '-o', formatOptions(options), '--', region, mountpoint]
  return spawn(process.execPath, [...NODE_FLAGS, LAUNCHER, ...command], {
    detached: true,
    cwd: '/',
    stdio: ['ignore', log.fd, log.fd, 'pipe'],
    env: {
      ...process.env,
      [READY_VARIABLE]: `${READY_FD}`,
      [LOG_STYLE_VARIABLE]: log.style,
      // glibc would otherwise keep an arena of its own for every thread of the pool.
      MALLOC_ARENA_MAX: process.env.MALLOC_ARENA_MAX ?? '2',
    },
  })
}

/** A Ctrl-C before the mount is there ends the daemon as well, although it has its own session. */
function passOnSignals(child: ChildProcess): () => void {
  const pass = (signal: NodeJS.Signals) => child.kill(signal)
  process.on('SIGINT', pass).on('SIGTERM', pass)
  return () => process.off('SIGINT', pass).off('SIGTERM', pass)
}

async function readinessOf(child: ChildProcess): Promise<Readiness | undefined> {
  const pipe = child.stdio[READY_FD] as Readable
  let text = ''
  pipe.setEncoding('utf8').on('data', (part: string) => {
    text += part
  })
  // The pipe ends when the daemon has reported, or has died.
  await once(pipe, 'close')
  const readiness = parseReadiness(text)
  if (readiness?.ready !== true && child.exitCode === null && child.signalCode === null) {
    await once(child, 'exit')
  }
  return readiness
}

function died(child: ChildProcess, log: DaemonLog, logSize: number): CliError {
  const how = child.signalCode ?? `exit code ${child.exitCode}`
  const words = log.file === undefined ? '' : lastLine(log.file, logSize)
  const reason = words === '' ? '' : `: ${words}`
  return new CliError(
    `the daemon died before it had mounted (${how})${reason}; its log: ${log.place}`,
    MOUNT_SYSTEM,
  )
}

function lastLine(file: string, from: number): string {
  const fd = openSync(file, 'r')
  try {
    const text = Buffer.alloc(4096)
    const length = readSync(fd, text, 0, text.length, Math.max(from, fstatSync(fd).size - 4096))
    return text.toString('utf8', 0, length).trimEnd().split('\n').at(-1)?.trim() ?? ''
  } finally {
    closeSync(fd)
  }
}

async function requireAnswer(mountpoint: string, log: DaemonLog): Promise<void> {
  const mount = mountAt(mountpoint)
  const answer = mount === undefined ? 'missing' : await probeMount(mountpoint, ANSWER_MS)
  if (mount !== undefined && isHoldfast(mount) && answer === 'alive') return
  throw new CliError(
    `mounted on ${mountpoint}, but it does not answer (${answer}); the daemon's log: ${log.place}`,
    MOUNT_FAILED,
  )
}
