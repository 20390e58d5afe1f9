/**
 * One daemon for a long time. In every cycle clients work, memory fails and is healed, operators
 * ask and order; then everything is deleted, and what the daemon has is compared with before.
 */
import { readdirSync, readFileSync } from 'node:fs'
import { ControlClient } from '../../src/control/client.ts'
import { resolveTarget } from '../../src/control/target.ts'
import { regionKey } from '../../src/dax/region.ts'
import { SYSTEM_DIRECTORY } from '../../src/dax/runtime-directory.ts'
import type { InjectRequest } from '../../src/fs/administration.ts'
import { anonymousMemory } from '../../tools/bench/report.ts'
import { mixSeeds, Random } from '../crash/random.ts'
import {
  type MountedRegion,
  mountRegion,
  PythonClient,
  runProgram,
  sleep,
} from '../support/mounts.ts'
import { INSPECTABLE, Inspector } from './inspector.ts'
import type { Sample } from './samples.ts'

const LOAD = readFileSync(new URL('load.py', import.meta.url), 'utf8')
const CLIENTS = 3
const BLOCK = 4096
/** A cycle takes longer on a busy machine; nothing takes this long. */
const PATIENCE_MS = 60_000
/** How long until the kernel has forgotten what was deleted. */
const REST_MS = 10_000
const ROWS = 4096
const VICTIM_BLOCKS = 8

export class Soak {
  readonly mount: MountedRegion
  readonly #key: string
  readonly #socket: string
  readonly #control: ControlClient
  readonly #clients: readonly PythonClient[]
  readonly #inspector: Inspector
  readonly #started = performance.now()
  #operations = 0
  #inodes = 0

  private constructor(
    mount: MountedRegion,
    socket: string,
    control: ControlClient,
    clients: readonly PythonClient[],
    inspector: Inspector,
  ) {
    this.mount = mount
    this.#key = regionKey(mount.region)
    this.#socket = socket
    this.#control = control
    this.#clients = clients
    this.#inspector = inspector
  }

  static async begin(): Promise<Soak> {
    const mount = await mountInspectable()
    const { socket } = resolveTarget(mount.mountpoint)
    if (socket === undefined) throw new Error('no control socket')
    const clients: PythonClient[] = []
    for (let number = 0; number < CLIENTS; number++) {
      const client = new PythonClient(LOAD, [mount.path(`c${number}`)], PATIENCE_MS)
      process.on('exit', () => client.process.kill('SIGKILL'))
      const ready = await client.ready
      if (ready?.ok !== true) throw new Error(`a client cannot start: ${ready?.error}`)
      clients.push(client)
    }
    const inspector = await Inspector.open(mount.pid)
    const control = await ControlClient.connect(socket)
    const soak = new Soak(mount, socket, control, clients, inspector)
    soak.#inodes = (await soak.#control.call('status', {})).inodes
    return soak
  }

  get operations(): number {
    return this.#operations
  }

  /** Works for so long, deletes it all, and measures. Throws with what went wrong. */
  async cycle(seed: number, seconds: number): Promise<Sample> {
    const random = new Random(seed)
    const inodes = await this.#ask<number[]>(0, 'hold()')
    let working = true
    const work = this.#clients.map((_client, number) =>
      number === 0
        ? Promise.resolve(0)
        : this.#ask<number>(number, `work(${seconds}, ${mixSeeds(seed, number)})`),
    )
    const workers = Promise.all(work).finally(() => {
      working = false
    })
    const operators = this.#operate(random, inodes, () => working)
    const [done] = await Promise.all([workers, operators])
    this.#operations += done.reduce((sum, count) => sum + count, 0)
    for (let number = 0; number < CLIENTS; number++) await this.#ask(number, 'empty()')
    return this.#measure()
  }

  async #ask<T>(number: number, expression: string): Promise<T> {
    const answer = await this.#clients[number]!.evaluate<T>(expression, PATIENCE_MS)
    if (answer?.ok !== true) throw new Error(`${expression}: ${answer?.error ?? 'the client died'}`)
    return answer.value as T
  }

  /** Who looks, who orders, and memory that fails. */
  async #operate(random: Random, inodes: readonly number[], on: () => boolean): Promise<void> {
    const { regionSize } = await this.#control.call('status', {})
    for (let round = 0; on(); round++) {
      await this.#fail(random, inodes)
      const other = await ControlClient.connect(this.#socket)
      if (round % 2 === 0) await other.watch(() => undefined)
      await other.call('status', {})
      await other.call('rmap', { offset: random.below(regionSize), length: 2 ** 24, limit: 100 })
      await other.call('getmap', { inode: random.pick(inodes) })
      if (random.chance(0.3)) await other.call('checkpoint', {})
      if (random.chance(0.2)) await this.#freeze(other)
      if (random.chance(0.2)) await other.call('scrub', { action: 'start' })
      // Every other one hangs up in the middle of a request.
      if (round % 2 === 0) other.call('checkpoint', {}).catch(() => undefined)
      other.close()
      this.#operations += 6
      await sleep(30)
    }
  }

  async #freeze(control: ControlClient): Promise<void> {
    await control.call('freeze', {})
    await sleep(20)
    await control.call('thaw', {})
  }

  /** One block of a file that is open and mapped, or a free one. */
  async #fail(random: Random, inodes: readonly number[]): Promise<void> {
    const method: InjectRequest['method'] = random.chance(0.3) ? 'sigbus' : 'soft'
    if (random.chance(0.2)) {
      const free = { target: { kind: 'free' }, length: BLOCK, method: 'soft' } as const
      await this.#control.call('inject', free)
      return
    }
    const victim = random.below(inodes.length)
    const block = random.below(VICTIM_BLOCKS)
    const place = { kind: 'file', inode: inodes[victim]!, fileOffset: block * BLOCK } as const
    await this.#control.call('inject', { target: place, length: BLOCK, method })
    // Failed without notice, it is found by whoever reads.
    const healed = await this.#ask<string>(0, `heal(${victim}, ${block})`)
    if (healed !== 'healed') throw new Error(`a file that was hit: ${healed}`)
  }

  /** The kernel forgets what was deleted a moment later. */
  async #measure(): Promise<Sample> {
    const until = Date.now() + REST_MS
    let status = await this.#control.call('status', {})
    while ((status.inodes > this.#inodes || status.handles.open > 0) && Date.now() < until) {
      await sleep(20)
      status = await this.#control.call('status', {})
    }
    if (status.handles.open > 0) throw new Error(`${status.handles.open} handles are left open`)
    while ((await this.#control.call('scrub', { action: 'status' })).state === 'running') {
      await sleep(20)
    }
    const { poisoned } = status.blocks
    await this.#control.call('clearPoison', { range: 'all' })
    const { bytes } = await this.#control.call('checkpoint', {})
    const rmapRows = await this.#rmapRows(status.regionSize)
    const { blocks, inodes } = await this.#control.call('status', {})
    const { pid } = this.mount
    const heap = await this.#inspector.collectGarbage()
    return {
      seconds: (performance.now() - this.#started) / 1000,
      operations: this.#operations,
      memory: anonymousMemory(pid),
      heap,
      descriptors: readdirSync(`/proc/${pid}/fd`).length,
      threads: readdirSync(`/proc/${pid}/task`).length,
      rmapRows,
      image: bytes,
      freeBlocks: blocks.free,
      poisoned,
      inodes,
    }
  }

  /** Those of files and metadata: free space is another table. */
  async #rmapRows(regionSize: number): Promise<number> {
    let rows = 0
    for (let offset = 0; offset < regionSize; ) {
      const rest = { offset, length: regionSize - offset, limit: ROWS }
      const found = await this.#control.call('rmap', rest)
      rows += found.filter(({ owner }) => owner !== 'free' && owner !== 'poison').length
      const last = found.at(-1)
      if (last === undefined) break
      offset = last.regionOffset + last.length
    }
    return rows
  }

  /** Unmounts; returns what is left behind, or is wrong in the region. */
  async end(): Promise<string[]> {
    this.#control.close()
    this.#inspector.close()
    for (const client of this.#clients) await client.end()
    await this.mount.unmount()
    const left = readdirSync(SYSTEM_DIRECTORY).filter((name) => name.startsWith(`${this.#key}.`))
    const problems = left.map((name) => `left in ${SYSTEM_DIRECTORY}: ${name}`)
    const check = await runProgram('fsck.holdfast', ['-n', '-f', this.mount.region])
    if (check.status !== 0) problems.push(`fsck: ${check.stdout}${check.stderr}`)
    return problems
  }
}

/** Nothing else of it is different: the inspector opens when it is asked for. */
async function mountInspectable(): Promise<MountedRegion> {
  const before = process.env.NODE_OPTIONS
  process.env.NODE_OPTIONS = [before, INSPECTABLE].filter((part) => part).join(' ')
  try {
    return await mountRegion({ size: '256M', on: 'memory' })
  } finally {
    if (before === undefined) delete process.env.NODE_OPTIONS
    else process.env.NODE_OPTIONS = before
  }
}
