/**
 * Daemons and programs that are killed, and hosts that lose power: a few rounds of `npm run
 * test:kill`; and that its verifier finds what is lost.
 */
import {
  appendFileSync,
  closeSync,
  existsSync,
  mkdirSync,
  openSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { openByName } from '../src/bus/open.ts'
import { BLOCK_SIZE } from '../src/media/geometry.ts'
import { readSuperblocks, requireSuperblock } from '../src/media/superblock.ts'
import { Clients, verify } from './kill/clients.ts'
import { inNamespace } from './kill/namespace.ts'
import { type End, type Moment, planRound } from './kill/plan.ts'
import { fsckRegion } from './kill/round.ts'
import type { SliceReport } from './kill/slice.ts'
import {
  cannotMount,
  lacks,
  mountRegion,
  notRoot,
  ROOT,
  run,
  runProgram,
  scratch,
  sleep,
} from './support/mounts.ts'

const SLICE = fileURLToPath(new URL('kill/slice.ts', import.meta.url))
const SLICE_MS = 240_000
/** Moment, end, mode, milliseconds of load. */
const ROUNDS = [
  'load,power,cache=keep,900',
  'checkpoint,kill,cache=none,600',
  'unmount,power,writeback,500',
  'mkfs,power,cache=keep,0',
  'repair,kill,cache=keep,400',
]

t.test(
  'kill -9 and power failures under load: nothing that was promised is lost',
  { skip: cannotMount() || notRoot() || lacks('python3', 'unshare', 'umount') },
  async (t) => {
    const command = [process.execPath, '--import=tsx', SLICE, ...ROUNDS]
    const outcome = await run(inNamespace(command), { cwd: ROOT, timeoutMs: SLICE_MS })
    t.equal(outcome.status, 0, outcome.stderr)
    const report = JSON.parse(outcome.stdout.trimEnd().split('\n').at(-1)!) as SliceReport
    for (const sentence of report.lacking) t.comment(`skipped: ${sentence}`)
    t.equal(report.rounds.length, ROUNDS.length)
    const kills = report.rounds.reduce((sum, round) => sum + round.kills, 0)
    t.ok(kills >= 3, `${kills} kills`)
    for (const { plan, problems, operations } of report.rounds) {
      t.same(problems, [], `${plan.moment}, ${plan.end}`)
      t.ok(operations > 0, `${operations} operations`)
    }
  },
)

t.test(
  'the namespace that rounds run in keeps no mount of others',
  { skip: cannotMount() || notRoot() || lacks('unshare') },
  async (t) => {
    const mount = await mountRegion({ on: 'memory' })
    const count = join(scratch(), 'count')
    const look = 'mount | grep -c "$0" > "$1.part"; mv "$1.part" "$1"; sleep 6'
    const inside = run(inNamespace(['bash', '-c', look, mount.mountpoint, count]))
    while (!existsSync(count)) await sleep(20)
    // It would hang until the namespace is gone.
    const first = await Promise.race([mount.unmount().then(() => 'unmounted'), inside])
    t.equal(first, 'unmounted')
    await inside
    t.equal(readFileSync(count, 'utf8'), '0\n')
  },
)

t.test('rounds: every moment with every end, and the same again for a seed', async (t) => {
  const seen = new Set<`${Moment} ${End}`>()
  const ends: End[] = ['kill', 'move', 'power']
  for (let number = 0; number < 100; number++) {
    const plan = planRound(7, number, { ends })
    t.same(plan, planRound(7, number, { ends }))
    seen.add(`${plan.moment} ${plan.end}`)
  }
  t.equal(seen.size, 15, [...seen].join(', '))
})

t.test('fsck forgives one copy of the superblock after a blow, and nothing else', async (t) => {
  const region = join(scratch(), 'region')
  t.equal((await runProgram('mkfs.holdfast', ['--size', '32M', region])).status, 0)
  const options = ['-n', '-f']
  t.same(await fsckRegion(region, options, false), [])
  const spoil = (offset: number) => {
    const fd = openSync(region, 'r+')
    writeSync(fd, Buffer.alloc(64, 0x5a), 0, 64, offset)
    closeSync(fd)
  }
  spoil(0)
  t.same(await fsckRegion(region, options, true), [], 'the other copy serves')
  t.match(await fsckRegion(region, options, false), [/exit 4: .*superblock-damaged/s])
  const device = openByName(region, { readOnly: true })
  const { slots } = requireSuperblock(readSuperblocks(device.memory))
  device.close()
  spoil(slots[0][0]!.block * BLOCK_SIZE + 8192)
  t.match(await fsckRegion(region, options, true), [/exit 4: .*checkpoint-damaged/s])
  rmSync(region)
  t.match(await fsckRegion(region, options, true), [/exit 8/], 'what it cannot look at')
})

t.test('the verifier finds what is lost', { skip: lacks('python3') }, async (t) => {
  const directory = scratch()
  const names = ['one']
  mkdirSync(join(directory, 'one'))
  const work = { mountpoint: directory, logs: directory, socket: '/nobody', seed: 5, names }
  // Where nobody answers on a control socket, a client ends at its first checkpoint.
  const clients = new Clients({ ...work, operations: 60 })
  t.same(await clients.end(), [])
  const [log] = clients.logs as [string]
  const expected = { promise: 'all', logs: [log], kept: join(directory, 'none') } as const
  const found = await verify(directory, expected)
  t.same(found.problems, [], 'as the client left it')
  t.ok(found.operations >= 59 && found.bytes > 10_000, JSON.stringify(found))

  const largest = await run([
    'bash',
    '-c',
    `cd "$0" && ls -S -d $(find . -type f) | head -1`,
    join(directory, 'one'),
  ])
  const file = join(directory, 'one', largest.stdout.trim())
  const bytes = readFileSync(file)
  const lost = async (what: string) => {
    const { problems } = await verify(directory, expected)
    t.equal(problems.length, 1, `${what}: ${problems}`)
    writeFileSync(file, bytes)
  }
  writeFileSync(
    file,
    bytes.map((byte, at) => (at === bytes.length - 9 ? byte ^ 1 : byte)),
  )
  await lost('one bit')
  truncateSync(file, bytes.length - 1)
  await lost('one byte at the end')
  appendFileSync(file, '\0')
  await lost('a byte too many')
  writeFileSync(join(directory, 'one', 'stranger'), '')
  t.equal((await verify(directory, expected)).problems.length, 1, 'a file too many')
})
