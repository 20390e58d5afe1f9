/** The processes that change files (client.py), and what is found of their work (verify.py). */
import { type ChildProcess, spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { mixSeeds } from '../crash/random.ts'
import { runClient, sleep } from '../support/mounts.ts'

const CLIENT = fileURLToPath(new URL('client.py', import.meta.url))
const VERIFIER = fileURLToPath(new URL('verify.py', import.meta.url))
const VERIFY_MS = 120_000
/** A daemon that was killed answers nobody: every client ends at once. */
const END_MS = 20_000

export interface Work {
  readonly mountpoint: string
  /** Where logs are, outside of the mount. */
  readonly logs: string
  readonly socket: string
  readonly seed: number
  /** Of a client: a directory in the mount, and the log. */
  readonly names: readonly string[]
  /** Of each client at most. */
  readonly operations?: number
}

export class Clients {
  readonly logs: readonly string[]
  readonly #children: ChildProcess[]
  readonly #ends: Promise<string | undefined>[]

  constructor({ mountpoint, logs, socket, seed, names, operations }: Work) {
    this.logs = names.map((name) => join(logs, `${name}.log`))
    const most = operations === undefined ? [] : [String(operations)]
    this.#children = names.map((name, index) => {
      const own = String(mixSeeds(seed, index))
      const args = ['-B', CLIENT, join(mountpoint, name), this.logs[index]!, own, socket, ...most]
      return spawn('python3', args, { stdio: ['pipe', 'ignore', 'pipe'] })
    })
    this.#ends = this.#children.map(endOf)
  }

  /** Resolves when each has begun to work. */
  async begun(): Promise<void> {
    while (this.ended === 0 && !this.logs.every((log) => existsSync(log))) await sleep(10)
  }

  /** How many have ended: before the blow, that is too early. */
  get ended(): number {
    return this.#children.filter((child) => child.exitCode !== null || child.signalCode !== null)
      .length
  }

  /** Lets each finish what it is doing. Returns what went wrong. */
  async stop(): Promise<string[]> {
    for (const child of this.#children) child.stdin?.end()
    return this.end()
  }

  /** Waits for their ends. Returns what went wrong. */
  async end(): Promise<string[]> {
    const limit = setTimeout(() => {
      for (const child of this.#children) child.kill('SIGKILL')
    }, END_MS)
    const ends = await Promise.all(this.#ends)
    clearTimeout(limit)
    return ends.filter((end) => end !== undefined)
  }
}

async function endOf(child: ChildProcess): Promise<string | undefined> {
  let said = ''
  child.stderr?.on('data', (chunk: Buffer) => {
    said += chunk
  })
  child.stdin?.on('error', () => undefined)
  const end = await new Promise<string | number>((resolve) => {
    child.on('error', (error) => resolve(error.message))
    child.on('close', (code, signal) => resolve(signal ?? code ?? 0))
  })
  if (end === 0) return undefined
  return end === 'SIGKILL' ? `a client hangs: ${said}` : `a client failed: ${said || end}`
}

export interface Findings {
  /** That returned, and of those the ones that are promised. */
  readonly operations: number
  readonly promised: number
  readonly bytes: number
  readonly problems: readonly string[]
}

export interface Expected {
  readonly promise: 'all' | 'synced'
  readonly logs: readonly string[]
  readonly writeback?: boolean
  /** Manifest of what must be there unchanged, if there is one. */
  readonly kept: string
  /** Writes one of what is there now, and makes that durable. */
  readonly manifest?: string
}

export async function verify(mountpoint: string, expected: Expected): Promise<Findings> {
  const { promise, logs, writeback, kept, manifest } = expected
  const args = [mountpoint, promise, ...logs, '--kept', kept]
  if (writeback) args.push('--writeback')
  if (manifest !== undefined) args.push('--manifest', manifest)
  const outcome = await runClient(['python3', '-B', VERIFIER, ...args], { timeoutMs: VERIFY_MS })
  if (outcome.status === 0) return JSON.parse(outcome.stdout) as Findings
  const problem = `cannot be verified: ${outcome.timedOut ? 'no end' : outcome.stderr}`
  return { operations: 0, promised: 0, bytes: 0, problems: [problem] }
}
