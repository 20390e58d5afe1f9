/**
 * A tree of many files, by two processes at once: made, walked, kept over an unmount, moved and
 * removed. A million of them take some minutes, which is more than `npm test` allows a file:
 *
 *     HOLDFAST_TEST_TREE=1000000 node --import=tsx test/large-tree.test.ts
 */
import { readFileSync } from 'node:fs'
import t, { type Test } from 'tap'
import type { Status } from '../src/fs/administration.ts'
import {
  cannotMount,
  type MountedRegion,
  mountRegion,
  runProgram,
  sleep,
} from './support/mounts.ts'
import { tellingClient } from './support/telling.ts'

const COUNT = Number(process.env.HOLDFAST_TEST_TREE ?? 20_000)
const MIB = 2 ** 20
/** A block for one file of four, and two images of the index of 250 bytes for each: ample. */
const SIZE = Math.ceil((COUNT * 4096) / MIB) + 128
/** For one step, on a busy machine too: the slowest takes 0.12 ms for a file on a quiet one. */
const LIMIT_MS = 60_000 + 2 * COUNT
/** Of a daemon: what it has without files, and what it may keep in memory for one. */
const MEMORY = 192 * MIB + 1024 * COUNT
const SEED = 4711

const SAMPLE = ['sample', String(COUNT), String(SEED)] as const
const PARTS = [0, 1]

type Words = readonly [kind: string, ...rest: string[]]

t.setTimeout(0)

/** Seconds a step took, as a comment. */
async function timed<T>(t: Test, what: string, body: () => Promise<T>): Promise<T> {
  const from = performance.now()
  const result = await body()
  t.comment(`${what}: ${((performance.now() - from) / 1000).toFixed(2)} s`)
  return result
}

async function client(t: Test, mount: MountedRegion, words: Words): Promise<void> {
  await timed(t, words[0], () => tellingClient(t, mount, 'large_tree.py', words, LIMIT_MS))
}

/** Two processes with a share of the work each. */
async function both(t: Test, mount: MountedRegion, kind: string): Promise<void> {
  const words = PARTS.map((part) => [kind, String(COUNT), String(part), String(PARTS.length)])
  await timed(t, `${kind}, by two`, () =>
    Promise.all(
      words.map((list) => tellingClient(t, mount, 'large_tree.py', list as [string], LIMIT_MS)),
    ),
  )
}

async function isClean(t: Test, region: string): Promise<void> {
  const { status, stdout, stderr } = await timed(t, 'fsck -f -n', () =>
    runProgram('fsck.holdfast', ['-f', '-n', region], { timeoutMs: LIMIT_MS }),
  )
  t.equal(status, 0, `fsck: ${stdout}${stderr}`)
}

/** Watches the memory of a daemon that no file backs; the rest is the region. */
class Memory {
  readonly #pid: number
  readonly #timer: NodeJS.Timeout
  #most = 0

  constructor(pid: number) {
    this.#pid = pid
    this.#timer = setInterval(() => this.#look(), 50)
  }

  #look(): void {
    this.#most = Math.max(this.#most, field(this.#pid, 'RssAnon'))
  }

  stop(t: Test): void {
    clearInterval(this.#timer)
    this.#look()
    const mib = (bytes: number) => `${Math.round(bytes / MIB)} MiB`
    const [now, high] = [field(this.#pid, 'RssAnon'), field(this.#pid, 'VmHWM')]
    t.comment(`RssAnon ${mib(now)}, at most ${mib(this.#most)}; with the region ${mib(high)}`)
    t.ok(this.#most > 0 && this.#most < MEMORY, `the daemon needs less than ${mib(MEMORY)}`)
  }
}

/** Bytes, of a line of /proc/PID/status. */
function field(pid: number, name: string): number {
  const text = readFileSync(`/proc/${pid}/status`, 'utf8')
  return Number(new RegExp(`^${name}:\\s+(\\d+) kB`, 'm').exec(text)?.[1] ?? Number.NaN) * 1024
}

/** What is removed goes when the kernel has forgotten it; slots shrink with the next images. */
async function allIsFree(t: Test, mount: MountedRegion, start: Status): Promise<void> {
  const same = ({ blocks, inodes }: Status) =>
    blocks.free === start.blocks.free && inodes === start.inodes
  for (const end = Date.now() + LIMIT_MS; Date.now() < end; await sleep(200)) {
    const taken = await runProgram('holdfast', ['checkpoint', mount.mountpoint])
    if (taken.status !== 0) t.fail(taken.stderr)
    if (taken.status !== 0 || same(await mount.status())) break
  }
  const { blocks, inodes, handles } = await mount.status()
  t.same({ blocks, inodes }, { blocks: start.blocks, inodes: start.inodes }, 'all is free again')
  t.equal(handles.open, 0)
}

t.test(`a tree of ${COUNT} files`, { skip: cannotMount() }, async (t) => {
  const mount = await mountRegion({ size: `${SIZE}M`, on: 'memory' })
  const start = await mount.status()
  const memory = new Memory(mount.pid)
  await both(t, mount, 'make')
  await client(t, mount, ['walk', String(COUNT)])
  await client(t, mount, SAMPLE)
  const full = await mount.status()
  memory.stop(t)
  t.ok(full.inodes - start.inodes > COUNT, 'each file is an inode')
  await timed(t, 'unmount', () => mount.unmount())
  await isClean(t, mount.region)

  const again = await timed(t, 'mount', () => mount.mountAgain())
  const memoryAgain = new Memory(again.pid)
  t.equal((await again.status()).inodes, full.inodes)
  await client(t, again, SAMPLE)
  await client(t, again, ['move', String(COUNT)])
  await client(t, again, ['walk-moved', String(COUNT)])
  await client(t, again, ['sample-moved', String(COUNT), String(SEED + 1)])
  await both(t, again, 'remove')
  await client(t, again, ['gone', String(COUNT)])
  await timed(t, 'free again', () => allIsFree(t, again, start))
  memoryAgain.stop(t)
  await timed(t, 'unmount', () => again.unmount())
  await isClean(t, mount.region)
})
