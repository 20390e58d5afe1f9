/** Formats a region if there is none, mounts it in the foreground, stays until it is unmounted. */
import { type ChildProcess, spawn } from 'node:child_process'
import { existsSync, mkdirSync, realpathSync } from 'node:fs'
import { dirname, join, relative, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { isHoldfast, mountAt } from '../../src/control/mountinfo.ts'
import { commandOf, detach, probeMount, ROOT, runProgram, sleep } from './programs.ts'

/** npm passes a signal on that the terminal has sent us already: one Ctrl-C may come twice. */
const SAME_SIGNAL_MS = 500
const MOUNT_LIMIT_MS = 60_000

interface Options {
  region: string
  size: string
  mountpoint: string
  mountOptions: string[]
}

export async function main(args: readonly string[]): Promise<number> {
  const options = parse(args)
  if (!existsSync(options.region) && !(await format(options))) return 1
  switch (await prepareMountpoint(options.mountpoint)) {
    case 'free':
      return serve(options)
    case 'mounted':
      say(`already mounted on ${short(options.mountpoint)}`)
      usage(options, `npx holdfast umount ${short(options.mountpoint)}`)
      return 0
    default:
      complain(`${options.mountpoint} is the mountpoint of another filesystem; give --mountpoint`)
      return 1
  }
}

function parse(args: readonly string[]): Options {
  const { values } = parseArgs({
    args: [...args],
    options: {
      region: { type: 'string', default: join(ROOT, 'demo.holdfast') },
      size: { type: 'string', default: '1G' },
      mountpoint: { type: 'string', default: join(ROOT, 'mnt') },
      options: { type: 'string', short: 'o', multiple: true, default: [] },
    },
  })
  return {
    region: resolve(values.region),
    size: values.size,
    mountpoint: resolve(values.mountpoint),
    mountOptions: values.options.flatMap((option) => ['-o', option]),
  }
}

async function format({ region, size }: Options): Promise<boolean> {
  mkdirSync(dirname(region), { recursive: true })
  const outcome = await runProgram('mkfs.holdfast', ['--size', size, '-L', 'demo', region])
  process.stderr.write(outcome.stderr)
  if (outcome.status !== 0) return false
  say(`formatted ${short(region)} (${size}, sparse)`)
  return true
}

/** Makes the directory; takes away what an earlier crash left mounted on it. */
async function prepareMountpoint(mountpoint: string): Promise<'free' | 'mounted' | 'foreign'> {
  for (;;) {
    const mount = mountAt(mountpoint)
    if (mount === undefined) break
    if (!isHoldfast(mount)) return 'foreign'
    if ((await probeMount(mountpoint)) === 'answers') return 'mounted'
    say(`detaching ${short(mountpoint)}: its daemon is gone`)
    detach(mountpoint)
    if (mountAt(mountpoint)?.id === mount.id) return 'foreign'
  }
  mkdirSync(mountpoint, { recursive: true })
  return mountAt(realpathSync(mountpoint)) === undefined ? 'free' : 'foreign'
}

async function serve(options: Options): Promise<number> {
  const { region, mountpoint, mountOptions } = options
  const [program, ...args] = commandOf('holdfast', [
    'mount',
    '-f',
    ...mountOptions,
    region,
    mountpoint,
  ]) as [string, ...string[]]
  // A process group of its own: the terminal's Ctrl-C comes to us, and once to the daemon from us.
  const daemon = spawn(program, args, { detached: true, stdio: ['ignore', 'inherit', 'inherit'] })
  const ended = new Promise<number>((done) => {
    daemon.on('error', (error) => complain(error.message))
    daemon.on('close', (code) => done(code ?? 1))
  })
  passSignals(daemon)
  if (await mounted(daemon, mountpoint)) {
    say(`${short(region)} is mounted on ${short(mountpoint)}`)
    usage(options, 'Ctrl-C here (once more if programs still use it)')
  }
  const code = await ended
  if (code === 0) say(`unmounted; the files are in ${short(region)}`)
  return code
}

async function mounted(daemon: ChildProcess, mountpoint: string): Promise<boolean> {
  for (const limit = Date.now() + MOUNT_LIMIT_MS; Date.now() < limit; await sleep(50)) {
    if (daemon.exitCode !== null || daemon.signalCode !== null) return false
    const mount = mountAt(mountpoint)
    if (mount !== undefined && isHoldfast(mount)) return true
  }
  return false
}

function passSignals(daemon: ChildProcess): void {
  let last = Number.NEGATIVE_INFINITY
  const pass = (signal: NodeJS.Signals) => {
    const now = performance.now()
    if (now - last < SAME_SIGNAL_MS) return
    last = now
    daemon.kill(signal === 'SIGHUP' ? 'SIGTERM' : signal)
  }
  process.on('SIGINT', pass)
  process.on('SIGTERM', pass)
  process.on('SIGHUP', pass)
}

function usage({ region, mountpoint }: Options, stop: string): void {
  const place = short(mountpoint)
  const lines = [
    ['use it', `cp -r docs ${place}/ && ls -l ${place}/docs`],
    ['look at it', `npx holdfast status ${place}`],
    ['where a file lies', `npx holdfast getmap ${place}/docs/DESIGN.md`],
    ['who owns what', `npx holdfast rmap ${place}`],
    ['break a file', `npx holdfast inject ${place} --file ${place}/docs/DESIGN.md`],
    ['heal it', `cp docs/DESIGN.md ${place}/docs/ && npx holdfast clear-poison ${place} --all`],
    ['watch events', `npx holdfast watch ${place}`],
    ['stop', stop],
    ['start afresh', `rm ${short(region)}`],
  ]
  const text = lines.map(([what, how]) => `  ${what?.padEnd(18)} ${how}\n`).join('')
  process.stdout.write(`\n${text}\n`)
}

/** Relative to where the person is, when that is shorter. */
function short(path: string): string {
  const inside = relative(process.cwd(), path)
  return inside.startsWith('..') ? path : `./${inside}`
}

function say(line: string): void {
  process.stdout.write(`holdfast: ${line}\n`)
}

function complain(line: string): void {
  process.stderr.write(`holdfast: ${line}\n`)
}
