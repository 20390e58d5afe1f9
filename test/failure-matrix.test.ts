/**
 * The scripts that make memory fail for users, run as users run them: a slice of the failure matrix
 * and a storm over a live workload, both on real mounts. Every cell: node tools/failure-matrix.mjs.
 */
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { allCells, BLOCKS, METHODS, OPERATIONS, quickCells } from '../tools/failure-matrix/cells.ts'
import type { Played } from '../tools/failure-matrix/main.ts'
import { draws } from '../tools/inject-random/draws.ts'
import { cannotMount, ROOT, run, scratch } from './support/mounts.ts'

const skip = cannotMount()

function tool(name: string, args: readonly string[]) {
  const command = [process.execPath, join(ROOT, name), ...args]
  return run(command, { timeoutMs: 150_000 })
}

t.test('the slice meets every block and every operation', async (t) => {
  const cells = quickCells()
  t.same(new Set(cells.map(({ block }) => block)), new Set(BLOCKS))
  t.same(new Set(cells.map(({ operation }) => operation)), new Set(OPERATIONS))
  t.equal(allCells(METHODS).length, BLOCKS.length * OPERATIONS.length * METHODS.length)
})

t.test('failure-matrix --quick: every cell as docs/FAILURE.md says', { skip }, async (t) => {
  const { stdout, stderr, status } = await tool('tools/failure-matrix.mjs', [
    '--quick',
    '--json',
    '--directory',
    scratch('memory'),
  ])
  const played = JSON.parse(stdout || '[]') as Played[]
  t.equal(played.length, quickCells().length, stderr)
  for (const { cell, differences } of played) {
    t.same(differences, [], `${cell.method}: ${cell.block}, ${cell.operation}`)
  }
  t.equal(status, 0)
})

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

t.test('wrong usage is exit 2, and touches nothing', async (t) => {
  for (const [name, args] of [
    ['tools/failure-matrix.mjs', ['--method', 'axe']],
    ['tools/failure-matrix.mjs', ['--method', 'hwpoison']],
    ['tools/failure-matrix.mjs', ['--region', '/dev/null']],
    ['tools/inject-random.mjs', []],
    ['tools/inject-random.mjs', ['--scratch', '--count', 'many']],
  ] as const) {
    const { status, stderr } = await tool(name, args)
    t.equal(status, 2, stderr)
  }
})

t.test('docs/FAILURE.md names a test for each sentence, and they exist', async (t) => {
  const text = readFileSync(join(ROOT, 'docs/FAILURE.md'), 'utf8')
  const named = [...text.matchAll(/`(\w[\w-]*)\.test\.ts: ([^`]+)`/g)]
  t.ok(named.length > 15)
  for (const [, file, title] of named) {
    const path = join(ROOT, 'test', `${file}.test.ts`)
    t.equal(existsSync(path), true, path)
    t.equal(readFileSync(path, 'utf8').includes(title!), true, `${file}: ${title}`)
  }
  const cells = [...text.matchAll(/^\| ([^|]+) \| (soft|sigbus) \|/gm)]
  t.same(new Set(cells.map(([, block]) => block)), new Set(BLOCKS), 'every block has its rows')
})
