/** Storms of failures, run as users run them: over a live workload, on real mounts. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { draws } from '../tools/inject-random/draws.ts'
import { FioWork } from '../tools/inject-random/fio.ts'
import {
  cannotMount,
  lacks,
  mountRegion,
  ROOT,
  run,
  runJson,
  scratch,
  sleep,
} from './support/mounts.ts'

const skip = cannotMount()

function tool(name: string, args: readonly string[]) {
  const command = [process.execPath, join(ROOT, name), ...args]
  return run(command, { timeoutMs: 150_000 })
}

t.test(
  'inject-random: 500 failures over a live workload harm nothing else',
  { skip },
  async (t) => {
    const log = join(scratch(), 'log')
    const args = ['--scratch', '--seed', '7', '--count', '500', '--json', '--log', log]
    const { stdout, stderr, status } = await tool('tools/inject-random.mjs', args)
    t.equal(status, 0, stderr)
    const found = JSON.parse(stdout)
    t.same(found.problems, [])
    t.equal(found.state, 'mounted')
    t.equal(found.failures.length, 500)
    t.ok(found.rounds > 50, `${found.rounds} writes and checks meanwhile`)
    const kinds = new Set(found.failures.map(({ kind }: { kind: string }) => kind))
    t.same(kinds, new Set(['data', 'free']))

    const lines = readFileSync(log, 'utf8').trim().split('\n')
    t.equal(lines.length, 500, 'the log has every failure')
    const drawn: string[] = []
    for (const { offset, length } of draws(7, 2 ** 30, 65536)) {
      drawn.push(`${offset}+${length}`)
      if (drawn.length === 600) break
    }
    const injected = lines.map((line) => JSON.parse(line))
    t.ok(
      injected.every(({ offset, length }) => drawn.includes(`${offset}+${length}`)),
      'the seed says where',
    )
  },
)

t.test(
  'inject-random: the same seed, the same failures; a log can be replayed',
  { skip },
  async (t) => {
    const directory = scratch()
    const logs = ['first', 'again', 'replayed'].map((name) => join(directory, name))
    const common = ['--scratch', '--size', '256M']
    for (const [at, log] of logs.entries()) {
      const how = at < 2 ? ['--seed', '3', '--count', '40'] : ['--replay', logs[0]!]
      const { status, stderr } = await tool('tools/inject-random.mjs', [
        ...common,
        ...how,
        '--log',
        log,
      ])
      t.equal(status, 0, stderr)
    }
    const ranges = logs.map((log) => readFileSync(log, 'utf8').replaceAll(/,"kind.*/g, ''))
    t.equal(ranges[1], ranges[0])
    t.equal(ranges[2], ranges[0])
  },
)

t.test(
  'inject-random --workload fio: what fio verifies meanwhile is whole',
  { skip: skip || lacks('fio') },
  async (t) => {
    const args = ['--scratch', '--seed', '11', '--count', '300', '--size', '512M', '--json']
    const how = [...args, '--workload', 'fio']
    const { stdout, stderr, status } = await tool('tools/inject-random.mjs', how)
    t.equal(status, 0, stderr)
    const found = JSON.parse(stdout)
    t.match(found, { state: 'mounted', problems: [] })
    t.equal(found.failures.length, 300)
    t.ok(found.rounds > 300, `${found.rounds} writes and verified reads`)
  },
)

t.test(
  'the workload of fio notices what is not spared',
  { skip: skip || lacks('fio') },
  async (t) => {
    const mount = await mountRegion({ size: '128M', on: 'memory' })
    const work = await FioWork.start(mount.mountpoint)
    t.equal(work.spared.size, 4, 'two files written to, two mapped')
    // Between two passes nobody has the file open, and the next pass heals it.
    for (let page = 1; work.busy && page < 40; page++) {
      const offset = String(page * 8192)
      const where = ['--file', mount.path('fio/write.0.0'), '--offset', offset]
      await runJson('holdfast', ['inject', mount.mountpoint, ...where])
      await sleep(100)
    }
    const { rounds, problems } = await work.finish()
    t.ok(rounds > 0)
    t.match(problems, [/fio .*(Input\/output|EIO|error)/i])
    await mount.unmount()
  },
)

t.test('inject-random --spare and --metadata, on a mount of ours', { skip }, async (t) => {
  const mount = await mountRegion({ size: '128M', on: 'memory' })
  t.equal((await mount.client('for i in a b; do head -c 40M /dev/urandom > $i; done')).status, 0)
  const before = (await mount.client('sha256sum a')).stdout
  const storm = (...how: string[]) =>
    tool('tools/inject-random.mjs', [mount.mountpoint, '--seed', '5', '--json', ...how])
  const spared = await storm('--count', '150', '--spare', mount.path('a'))
  t.equal(spared.status, 0, spared.stderr)
  const { failures, skipped, state } = JSON.parse(spared.stdout)
  t.equal(state, 'mounted')
  t.ok(
    failures.some(({ kind }: { kind: string }) => kind === 'data'),
    'the other file was hit',
  )
  t.ok(skipped > 0, `${skipped} draws would have hit the spared file or metadata`)
  t.equal((await mount.client('sha256sum a')).stdout, before)
  const ended = await storm('--count', '5000', '--metadata')
  t.equal(ended.status, 1, ended.stderr)
  t.equal(JSON.parse(ended.stdout).state, 'shutdown')
  await mount.unmount()
})

t.test('wrong usage is exit 2, and touches nothing', async (t) => {
  for (const args of [[], ['--scratch', '--count', 'many'], ['--scratch', '--workload', 'dd']]) {
    const { status, stderr } = await tool('tools/inject-random.mjs', args)
    t.equal(status, 2, stderr)
  }
})
