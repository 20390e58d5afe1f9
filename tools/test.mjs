/**
 * `npm test`: set-up where it is missing, types, style, then every *.test.ts below test/ with tap.
 * Ends with the line `N passed, N failed[, N skipped]`: assertions, one for types, one for style.
 *
 *     npm test                          everything
 *     npm test -- test/fs/*.test.ts     these files only
 */
import { spawn, spawnSync } from 'node:child_process'
import {
  chmodSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, dirname, join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { setupOrExit } from './setup.mjs'
import { TapCounter } from './test-tap.mjs'

const ROOT = dirname(dirname(fileURLToPath(import.meta.url)))
const BIN = join(ROOT, 'node_modules/.bin')
/** A run from a clean clone should stay below this; a slower one is told, not failed. */
const EXPECTED_SECONDS = 12 * 60
/** One test file may take this long. */
const FILE_SECONDS = 300
/** After this everything is stopped: something hangs. */
const LIMIT_SECONDS = 20 * 60

const started = Date.now()
await setupOrExit('test')
const seconds = () => Math.round((Date.now() - started) / 1000)
const counts = { pass: 0, fail: 0, skip: 0 }

/** Where test/support puts scratch directories, so that whatever is left can be found. */
const scratch = mkdtempSync(join(tmpdir(), 'holdfast-test-'))
chmodSync(scratch, 0o755)
/** The same for those in memory. */
const inMemory = join('/dev/shm', basename(scratch))

function check(name, command, args) {
  const from = Date.now()
  const { status, stdout, stderr } = spawnSync(join(BIN, command), args, {
    cwd: ROOT,
    encoding: 'utf8',
    timeout: 180_000,
  })
  const time = ((Date.now() - from) / 1000).toFixed(1)
  process.stdout.write(`${status === 0 ? 'ok    ' : 'FAILED'} ${name} (${time} s)\n`)
  if (status !== 0) process.stdout.write(`${stdout}${stderr}\n`)
  counts[status === 0 ? 'pass' : 'fail'] += 1
}

/** Test files that processes of this group run now, by pid. */
function runningFiles(group) {
  const files = new Map()
  for (const pid of readdirSync('/proc').filter((name) => /^\d+$/.test(name))) {
    try {
      const [, , , pgrp] = readFileSync(`/proc/${pid}/stat`, 'utf8')
        .replace(/\(.*\)/, 'x')
        .split(' ')
      if (Number(pgrp) !== group) continue
      const words = readFileSync(`/proc/${pid}/cmdline`, 'utf8').split('\0')
      const file = words.find((word) => word.endsWith('.test.ts'))
      const byTap = words.some((word) => word.includes('@tapjs/processinfo'))
      if (file !== undefined && byTap) files.set(Number(pid), file)
    } catch {}
  }
  return files
}

/**
 * Kills test files that run too long. tap's own limit is off: after it has stopped one file, it
 * gives up on the files that are still to come.
 */
function watchFiles(group) {
  const since = new Map()
  const timer = setInterval(() => {
    for (const [pid, file] of runningFiles(group)) {
      if (!since.has(pid)) since.set(pid, Date.now())
      if (Date.now() - since.get(pid) < FILE_SECONDS * 1000) continue
      process.stdout.write(`FAILED ${file}: runs for more than ${FILE_SECONDS} s\n`)
      process.kill(pid, 'SIGKILL')
      since.delete(pid)
    }
  }, 1000)
  return () => clearInterval(timer)
}

/** Runs tap; resolves to its exit code. The whole process group is killed at the limit. */
function runTap(files) {
  const counter = new TapCounter(counts, (text) => process.stdout.write(text))
  const child = spawn(join(BIN, 'tap'), ['run', '--reporter=tap', ...files], {
    cwd: ROOT,
    detached: true,
    stdio: ['ignore', 'pipe', 'inherit'],
    env: { ...process.env, HOLDFAST_TEST_SCRATCH: scratch, TAP_RCFILE: join(ROOT, '.taprc') },
  })
  const stop = (signal) => {
    try {
      process.kill(-child.pid, signal)
    } catch {}
  }
  const unwatch = watchFiles(child.pid)
  const limit = setTimeout(
    () => {
      const files = [...runningFiles(child.pid).values()].join(', ')
      process.stdout.write(`FAILED time limit: ${LIMIT_SECONDS} s are over in ${files}\n`)
      counts.fail += 1
      stop('SIGKILL')
    },
    LIMIT_SECONDS * 1000 - (Date.now() - started),
  )
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, () => stop('SIGKILL'))
  createInterface({ input: child.stdout }).on('line', (line) => counter.line(line))
  return new Promise((resolve) => {
    child.on('close', (code) => {
      clearTimeout(limit)
      unwatch()
      counter.end()
      resolve(code ?? 1)
    })
  })
}

/** Mounts and daemons that a killed test left behind. */
function sweep() {
  const mounts = readFileSync('/proc/self/mountinfo', 'utf8')
    .split('\n')
    .map((line) => line.split(' '))
    .filter(([, , , , place]) => [scratch, inMemory].some((root) => place?.startsWith(`${root}/`)))
  for (const fields of mounts.reverse()) {
    const minor = fields[2].split(':')[1]
    const abort = `/sys/fs/fuse/connections/${minor}/abort`
    try {
      if (existsSync(abort)) writeFileSync(abort, '1')
    } catch {}
    const lazily = process.getuid() === 0 ? ['umount', '-l'] : ['fusermount3', '-uz']
    spawnSync(lazily[0], [lazily[1], fields[4]], { stdio: 'ignore', timeout: 10_000 })
  }
  for (const pid of recordedDaemons()) {
    try {
      process.kill(pid, 'SIGKILL')
    } catch {}
  }
  for (const root of [scratch, inMemory]) rmSync(root, { recursive: true, force: true })
}

/** Processes that test/support noted as daemons, and that still serve that region. */
function recordedDaemons() {
  const directory = join(scratch, '.daemons')
  if (!existsSync(directory)) return []
  return readdirSync(directory)
    .map(Number)
    .filter((pid) => {
      try {
        const region = readFileSync(join(directory, String(pid)), 'utf8')
        return readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes(region)
      } catch {
        return false
      }
    })
}

const files = process.argv.slice(2)
if (files.length === 0) {
  check('types (tsc)', 'tsc', ['--noEmit'])
  check('style (biome)', 'biome', ['check', '--diagnostic-level=warn', '.'])
}
const code = await runTap(files)
sweep()
if (code !== 0 && counts.fail === 0) counts.fail += 1
if (seconds() > EXPECTED_SECONDS) {
  process.stdout.write(`note: this took ${seconds()} s, more than ${EXPECTED_SECONDS} s\n`)
}
process.stdout.write(`all tests took ${seconds()} s\n`)
const skipped = counts.skip > 0 ? `, ${counts.skip} skipped` : ''
process.stdout.write(`${counts.pass} passed, ${counts.fail} failed${skipped}\n`)
process.exit(counts.fail === 0 ? 0 : 1)
