/** The long runs: wrong usage, going on where a run stopped, an end by signal, the figure last. */
import { spawn } from 'node:child_process'
import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { counted } from './support/long-run.ts'
import { ROOT, run } from './support/mounts.ts'

const LAUNCHER = join(ROOT, 'tools/long-run.mjs')
/** Of no other run. */
const SEED = 900_000_000 + process.pid
const NAMES = ['crash', 'model', 'fsx', 'fuzz', 'kill', 'soak']

function stateOf(seed: number): string {
  return join(ROOT, `build/long-runs/crash-${seed}-cacheline-page-all.json`)
}

t.teardown(() => {
  for (const seed of [SEED, SEED + 1]) rmSync(stateOf(seed), { force: true })
})

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
