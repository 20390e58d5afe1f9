/** The long runs: wrong usage, going on where a run stopped, an end by signal, the figure last. */
import { spawn } from 'node:child_process'
import { existsSync, mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { isDeepStrictEqual } from 'node:util'
import t from 'tap'
import { mixSeeds } from './crash/random.ts'
import { Runner } from './fuzz/runner.ts'
import { Tally } from './fuzz/tally.ts'
import { KIND_NAMES, KINDS } from './oracle/kinds.ts'
import { counted } from './support/long-run.ts'
import { cannotMount, lacks, notRoot, ROOT, run } from './support/mounts.ts'

const LAUNCHER = join(ROOT, 'tools/long-run.mjs')
/** Of no other run. */
const SEED = 900_000_000 + process.pid
const NAMES = ['crash', 'model', 'fsx', 'fuzz', 'kill', 'soak']

/** `key` is what else, beside the seed, makes it another run. */
function stateOf(seed: number, name = 'crash', key = '-cacheline-page-all'): string {
  const path = join(ROOT, `build/long-runs/${name}-${seed}${key}.json`)
  t.teardown(() => rmSync(path, { force: true }))
  return path
}

function crash(seed: number, ...options: string[]) {
  const all = ['crash', '--minutes', '0.02', '--seed', String(seed), ...options]
  return run([process.execPath, LAUNCHER, ...all])
}

t.test('each has help, and a sentence for wrong usage', async (t) => {
  const launch = (...args: string[]) => run([process.execPath, LAUNCHER, ...args])
  for (const name of NAMES) {
    const [help, wrong] = await Promise.all([
      launch(name, '--help'),
      launch(name, '--minutes', 'soon'),
    ])
    t.equal(help.status, 0, `${name} --help: ${help.stderr}`)
    for (const option of ['--minutes', '--seed', '--restart']) t.ok(help.stdout.includes(option))
    t.equal(wrong.status, 2)
    t.match(wrong.stderr, `${name}: --minutes takes a number above 0, not 'soon'`)
  }
  const nobody = await launch('nobody')
  t.equal(nobody.status, 2)
  t.match(nobody.stderr, /usage: .*crash/)
})

t.test('a run goes on where the last one of its seed stopped', async (t) => {
  const first = await crash(SEED)
  t.equal(first.status, 0, first.stderr)
  const [, images] = /^([\d,]+) crash images, of \d+ sequences/m.exec(first.stdout) ?? []
  t.ok(Number(images?.replaceAll(',', '')) > 0, first.stdout)
  const second = await crash(SEED)
  t.match(second.stdout, 'goes on behind')
  t.match(second.stdout.trimEnd().split('\n').at(-1), /, of which [\d,]+ now, .*: all as promised$/)
  const anew = await crash(SEED, '--restart')
  t.notMatch(anew.stdout, 'goes on behind')
})

type Counts = Record<string, unknown>

/**
 * Runs it behind an earlier run that left `before`, for a moment or for what `options` say.
 * Resolves to what it leaves.
 */
async function resume(name: string, key: string, before: Counts, ...options: string[]) {
  const path = stateOf(SEED, name, key)
  mkdirSync(dirname(path), { recursive: true })
  writeFileSync(path, JSON.stringify({ ...before, failures: [] }))
  const all = [name, '--minutes', '0.02', '--seed', String(SEED), ...options]
  const outcome = await run([process.execPath, LAUNCHER, ...all], { timeoutMs: 300_000 })
  const { failures, ...after } = JSON.parse(readFileSync(path, 'utf8')) as Counts
  return { ...outcome, failures, after }
}

const GOOD = { status: 0, failures: [] }
const LAST_LINE = /, of which [\d,]+ now[^\n]*: all as promised\n$/

t.test('fuzz, behind many regions: the next ones, no others', async (t) => {
  const runner = new Runner()
  t.teardown(() => runner.close())
  const judge = (at: number) => runner.judge({ seed: mixSeeds(SEED, at) })
  const first = (await judge(0)).outcome
  let from = 1
  // The first one again would be seen.
  for (; isDeepStrictEqual((await judge(from)).outcome, first); from++);
  const tally = Object.assign(new Tally(), { images: from, clean: 50, mounted: 60 })
  const { after, stdout, ...rest } = await resume('fuzz', '', { ...tally })
  t.match(rest, GOOD, stdout)
  t.match(stdout, new RegExp(`^fuzz: goes on behind ${from} mutated regions \\(--restart`))
  t.match(stdout, LAST_LINE)
  for (let at = from; at < Number(after.images); at++) tally.add(await judge(at))
  t.ok(tally.images > from)
  t.same({ ...after, failures: [] }, { ...tally })
})

const skip = cannotMount() || notRoot() || lacks('python3')

t.test('model, behind the kinds that come first: the next, no others', { skip }, async (t) => {
  const kinds = KIND_NAMES.flatMap((name) => KINDS[name].modes.map(() => name))
  const from = kinds.indexOf('core')
  const operations = Object.fromEntries(KIND_NAMES.map((name, at) => [name, 10 ** at]))
  const before = { sequences: from, operations: { ...operations } }
  const { after, stdout, ...rest } = await resume('model', '-all-all', before)
  t.match(rest, GOOD, stdout)
  t.match(stdout, /^model: goes on behind 1[1,]+ operations \(--restart/)
  t.match(stdout, LAST_LINE)
  t.ok(from > 0 && Number(after.sequences) > from)
  for (let at = from; at < Number(after.sequences); at++) {
    const kind = kinds[at % kinds.length]!
    operations[kind]! += KINDS[kind].operations
  }
  t.same(after.operations, operations)
})

t.test('fsx, kill and soak count on', { skip }, async (t) => {
  const operations = 1000
  const kill = { rounds: 30, kills: 28, operations, promised: 900, bytes: 5e6 }
  const [fsx, killed, soaked] = await Promise.all([
    resume('fsx', '-kernel-none', { rounds: 3, operations: { none: 1000 } }, '--mode', 'none'),
    resume('kill', '', kill, '--rounds', '1', '--minutes', '3'),
    resume('soak', '', { operations, samples: 9 }, '--minutes', '0.2'),
  ])
  for (const { stdout, stderr, ...rest } of [fsx, killed, soaked]) {
    t.match(rest, GOOD, `${stdout}${stderr}`)
    t.match(stdout, /goes on behind (1000 |30 rounds, 28 kills, 1,000 |1,000 )operations/)
    t.match(stdout, LAST_LINE)
  }
  t.match(fsx.after, { rounds: 4 })
  t.ok((fsx.after.operations as { none: number }).none > 1000)
  t.equal(killed.after.rounds, 31)
  for (const [count, before] of Object.entries(kill)) t.ok(Number(killed.after[count]) >= before)
  t.ok(Number(soaked.after.samples) > 9 && Number(soaked.after.operations) > 1000)
})

t.test('a failure of an earlier run is not forgotten', async (t) => {
  const { sequences, images } = JSON.parse(readFileSync(stateOf(SEED), 'utf8')) as {
    sequences: number
    images: number
  }
  t.ok(sequences > 0 && images > 0)
  writeFileSync(stateOf(SEED), JSON.stringify({ sequences, images, failures: ['the command'] }))
  const next = await crash(SEED)
  t.equal(next.status, 1)
  t.match(next.stdout, /: 1 FAILED, the last: the command\n$/)
})

t.test('a signal keeps the state and prints the figure', async (t) => {
  const options = ['crash', '--minutes', '5', '--seed', String(SEED + 1)]
  const child = spawn(process.execPath, [LAUNCHER, ...options], {
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  let said = ''
  child.stdout.on('data', (chunk) => {
    said += chunk
  })
  const ended = new Promise((resolve) => child.on('close', resolve))
  // It keeps its state before it begins.
  while (!existsSync(stateOf(SEED + 1))) await new Promise((resolve) => setTimeout(resolve, 50))
  child.kill('SIGINT')
  t.equal(await ended, 130)
  t.match(said, /crash images, .*: all as promised, interrupted\n$/)
})

t.test('what was done before and what now', async (t) => {
  t.equal(counted(200_000, 160_000, 'operations'), '200,000 operations, of which 40,000 now')
  t.equal(counted(1234, 0, 'images'), '1,234 images')
})
