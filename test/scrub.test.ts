/** The scrub: finds latent bad memory before a user does, in slices, and goes on where it stopped. */
import { spawn } from 'node:child_process'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import type { ScrubStatus } from '../src/fs/administration.ts'
import { scratchFilesystem } from './support/core.ts'
import {
  cannotMount,
  lacks,
  type MountedRegion,
  mountRegion,
  ROOT,
  run,
  runProgram,
} from './support/mounts.ts'

const MIB = 1024 * 1024
const CALLER = { uid: 0, gid: 0, pid: 1, umask: 0 }
const WRITE = { cached: false, killPrivileges: false, append: false }

/** A filesystem without a kernel, and files that fill `size` bytes of it. */
function filled(size: number) {
  const scratch = scratchFilesystem(64 * MIB, 'cacheline')
  const bytes = Buffer.alloc(MIB, 7)
  const handle = scratch.fs.create(1, Buffer.from('file'), 0o644, 2, CALLER)
  for (let at = 0; at < size; at += MIB) scratch.fs.write(handle, at, bytes, 0, MIB, WRITE)
  return { ...scratch, handle }
}

/** Resolves at the end of the scrub that runs. */
function ended({ fs }: ReturnType<typeof filled>): Promise<ScrubStatus> {
  return new Promise((resolve) => {
    fs.administration.subscribe((event) => {
      if (event.event === 'scrub' && event.state !== 'running') resolve(event)
    })
  })
}

const FAST = { rate: 2 ** 40 }

t.test('it reads what is in use, all of it, and nothing else', async (t) => {
  const scratch = filled(16 * MIB)
  const { fs, memory } = scratch
  // Free space: poison there is not looked for.
  memory.poison(60 * MIB, 4096)
  const end = ended(scratch)
  fs.administration.startScrub(FAST)
  const { state, checked, total, found } = await end
  t.match({ state, found }, { state: 'done', found: 0 })
  t.equal(checked, total)
  t.ok(checked > 16 * MIB)
  await fs.unmount()
})

t.test('latent poison has its consequences, each page once', async (t) => {
  const scratch = filled(8 * MIB)
  const { fs, memory, handle } = scratch
  const other = fs.create(1, Buffer.from('other'), 0o644, 2, CALLER)
  fs.write(other, 0, Buffer.alloc(4096), 0, 4096, WRITE)
  const [extent] = fs.administration.getmap(handle.ino).extents
  memory.poison(extent!.regionOffset + MIB, 8192)
  t.notOk(handle.dead)
  const end = ended(scratch)
  fs.administration.startScrub(FAST)
  t.equal((await end).found, 8192)
  t.ok(handle.dead, 'its handles are killed')
  t.notOk(other.dead)
  t.match(fs.administration.status().failures, [{ kind: 'data', action: 'handles killed' }, {}])
  const again = ended(scratch)
  fs.administration.startScrub(FAST)
  t.match(await again, { state: 'done', found: 0 }, 'what is known is no news')
  await fs.unmount()
})

t.test('metadata in use that went bad shuts down, and ends the scrub', async (t) => {
  const scratch = filled(MIB)
  const { fs, memory } = scratch
  memory.poison(64 * MIB - 4096, 4096)
  const end = ended(scratch)
  fs.administration.startScrub(FAST)
  t.match(await end, { state: 'stopped', found: 4096 })
  t.equal(fs.administration.status().state, 'shutdown')
  await fs.unmount()
})

t.test('operations do not wait for it', async (t) => {
  const scratch = filled(40 * MIB)
  const end = ended(scratch)
  scratch.fs.administration.startScrub(FAST)
  const gaps: number[] = []
  let running = true
  void end.then(() => {
    running = false
  })
  for (let last = performance.now(); running; ) {
    await new Promise((resolve) => setImmediate(resolve))
    const now = performance.now()
    gaps.push(now - last)
    last = now
  }
  gaps.sort((a, b) => a - b)
  const median = gaps[Math.floor(gaps.length / 2)] ?? 0
  const most = gaps[Math.floor(gaps.length * 0.99)] ?? 0
  t.comment(`turns of the event loop: median ${median.toFixed(2)} ms, 99 % ${most.toFixed(2)} ms`)
  t.ok(gaps.length > 20, 'there are turns in between')
  t.ok(median < 3, `a turn takes ${median} ms`)
  await scratch.fs.unmount()
})

async function mounted(): Promise<MountedRegion> {
  const mount = await mountRegion({ on: 'memory' })
  const script = 'for f in a b c; do head -c 4M /dev/urandom > $f; done'
  const { status, stderr } = await mount.client(script)
  if (status !== 0) throw new Error(stderr)
  return mount
}

const PROGRAM = join(ROOT, 'src/cli/bin/holdfast.mjs')
const scrub = (...args: string[]) => runProgram('holdfast', ['scrub', '--json', ...args])

/** Interrupted when it has begun; resolves with what it printed. */
function interrupted(t: Test, args: readonly string[]): Promise<ScrubStatus> {
  const child = spawn(PROGRAM, ['scrub', '--json', ...args], { stdio: ['ignore', 'pipe', 'pipe'] })
  t.teardown(() => child.kill('SIGKILL'))
  let out = ''
  child.stdout.on('data', (chunk) => {
    out += chunk
  })
  const interrupt = setTimeout(() => child.kill('SIGINT'), 4000)
  return new Promise((resolve, reject) => {
    child.once('close', () => {
      clearTimeout(interrupt)
      if (out === '') reject(new Error('the scrub printed nothing'))
      else resolve(JSON.parse(out) as ScrubStatus)
    })
  })
}

t.test('a real mount: found before a user meets it', { skip: cannotMount() }, async (t) => {
  const mount = await mounted()
  const target = ['--file', mount.path('b'), '--offset', '1M', '--method', 'sigbus']
  t.equal((await runProgram('holdfast', ['inject', mount.mountpoint, ...target])).status, 0)
  t.same((await mount.status()).failures, [], 'nobody knows yet')
  const first = await scrub(mount.mountpoint)
  t.equal(first.status, 1, 'it says so in its exit code')
  t.match(JSON.parse(first.stdout), { state: 'done', found: 4096 })
  const { failures } = await mount.status()
  t.match(failures, [{ kind: 'data', action: 'handles killed' }])
  t.equal((await mount.client('cat a > /dev/null')).status, 0)
  t.not((await mount.client('cat b > /dev/null')).status, 0)
  const second = await runProgram('holdfast', ['scrub', mount.mountpoint])
  t.match(second, { status: 0, stdout: /read, no bad memory found/ })
  await mount.unmount()
  t.match(await scrub(mount.region), { status: 1, stderr: /is not mounted/ })
})

t.test('a real mount: it goes on where it stopped', { skip: cannotMount() }, async (t) => {
  const mount = await mounted()
  const stopped = await interrupted(t, ['--rate', '2M', mount.mountpoint])
  t.equal(stopped.state, 'stopped')
  t.ok(stopped.position > 0 && stopped.checked < stopped.total, `at ${stopped.position}`)
  const further = await interrupted(t, ['--rate', '2M', mount.mountpoint])
  t.ok(further.position > stopped.position, `from ${stopped.position} to ${further.position}`)
  await mount.unmount()
  const again = await mount.mountAgain()
  const end = JSON.parse((await scrub(again.mountpoint)).stdout) as ScrubStatus
  t.equal(end.state, 'done')
  t.ok(end.checked > further.checked, 'also after a remount')
  const whole = JSON.parse((await scrub('--restart', again.mountpoint)).stdout) as ScrubStatus
  t.equal(whole.checked, whole.total)
  await again.unmount()
})

const onTerminal = { skip: cannotMount() || lacks('script') }

t.test('a terminal sees how far it is, a pipe does not', onTerminal, async (t) => {
  const mount = await mounted()
  const target = ['--file', mount.path('a'), '--method', 'sigbus']
  t.equal((await runProgram('holdfast', ['inject', mount.mountpoint, ...target])).status, 0)
  const command = `${PROGRAM} scrub --rate 8M ${mount.mountpoint}`
  const { status, stdout } = await run(['script', '-qec', command, '/dev/null'])
  t.equal(status, 1)
  const seen = [...stdout.matchAll(/\[[^\]]*\] (\d+) % {2}([\d.]+ \w+)? {2}(4\.0 KiB bad)?/g)]
  const percentages = seen.map(([, percentage]) => Number(percentage))
  t.ok(
    percentages.some((one) => one > 0 && one < 100),
    `${percentages}`,
  )
  t.same(
    percentages,
    [...percentages].sort((a, b) => a - b),
  )
  t.ok(
    seen.some(([, , size, bad]) => size?.endsWith('MiB') && bad !== undefined),
    'what it found',
  )
  t.ok(stdout.lastIndexOf('\x1b[?25h') > stdout.lastIndexOf('\x1b[?25l'), 'a cursor again')
  t.match(stdout, /MiB read, 4\.0 KiB of bad memory found: see holdfast status/)
  const piped = await runProgram('holdfast', ['scrub', mount.mountpoint])
  t.match(piped, { status: 0, stderr: '' })
  t.notMatch(piped.stdout, /%/)
  await mount.unmount()
})
