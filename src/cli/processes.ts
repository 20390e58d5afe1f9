/**
 * What other processes have of a mount. Nothing of it is read in this process, which may be the
 * daemon of the mount: /proc/PID/maps waits for a lock that a process holds while it unmaps dirty
 * pages, until the daemon has taken them, and whoever looks at a process in the moment it ends may
 * have to close its files. So a child looks, at many at a time, and is left behind when it does not
 * come to its end.
 */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { createInterface } from 'node:readline'
import type { Readable } from 'node:stream'

export interface Seen {
  readonly pid: number
  /** Of /proc/PID/stat: with the pid it names a process for ever. */
  readonly startTime: number
  readonly command: string
  /** The first link found that leads below the mountpoint: 'working directory', 'open file', … */
  readonly link?: { readonly use: string; readonly path: string }
  /** Of /proc/PID/maps, those of the device; not looked at when there is a link. */
  readonly maps: readonly string[]
}

export interface Wanted {
  /** 'major:minor' */
  readonly device: string
  /** Without it links are not looked at. */
  readonly mountpoint?: string
}

/** Threads of the child, each of which one hung process may take. */
const THREADS = 32

/** Only links are read, for a stat of what they lead to would be a request to the mount. */
const CHILD = `
const { readdirSync, readFileSync, readlinkSync, promises } = require('fs')
const [device, mountpoint] = process.argv.slice(1)
const own = [String(process.pid), String(process.ppid)]
const all = readdirSync('/proc').filter((name) => /^[0-9]+$/.test(name))
const pids = all.filter((name) => !own.includes(name)).values()
function* links(pid) {
  yield* [['cwd', 'working directory'], ['root', 'root directory'], ['exe', 'program']]
  for (const fd of readdirSync('/proc/' + pid + '/fd')) yield ['fd/' + fd, 'open file']
}
function firstLink(pid) {
  if (mountpoint !== '') for (const [name, use] of links(pid)) try {
    const path = readlinkSync('/proc/' + pid + '/' + name)
    if (path === mountpoint || path.startsWith(mountpoint + '/')) return { use, path }
  } catch {}
}
async function look() {
  for (const pid of pids) try {
    const stat = readFileSync('/proc/' + pid + '/stat', 'utf8')
    const [from, to] = [stat.indexOf('('), stat.lastIndexOf(')')]
    const seen = { pid: Number(pid), startTime: Number(stat.slice(to + 2).split(' ')[22 - 3]) }
    const link = firstLink(pid)
    const text = link ? '' : await promises.readFile('/proc/' + pid + '/maps', 'utf8')
    const maps = text.split('\\n').filter((line) => line.includes(device))
    if (!link && maps.length === 0) continue
    const command = stat.slice(from + 1, to)
    process.stdout.write(JSON.stringify({ ...seen, command, link, maps }) + '\\n')
  } catch {}
}
for (let i = 0; i < ${THREADS}; i++) look()
`

/** Tells of each as soon as it is seen. False when some could not be asked in time. */
export async function lookAtProcesses(
  { device, mountpoint = '' }: Wanted,
  milliseconds: number,
  tell: (seen: Seen) => void,
): Promise<boolean> {
  // Not by its path, which may lead into the mount by now.
  const child = spawn('/proc/self/exe', ['-e', CHILD, '--', deviceField(device), mountpoint], {
    cwd: '/',
    stdio: ['ignore', 'pipe', 'ignore'],
    env: { UV_THREADPOOL_SIZE: String(THREADS) },
  })
  const stdout: Readable | null | undefined = child.stdout
  if (!stdout) {
    // No descriptor was left for it; the reason comes as an event.
    child.on('error', () => undefined)
    return false
  }
  createInterface({ input: stdout }).on('line', (line) => {
    // A child that was killed may leave a piece of a line.
    if (line.endsWith(']}')) tell(JSON.parse(line) as Seen)
  })
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<boolean>((resolve) => {
    timer = setTimeout(resolve, milliseconds, false)
  })
  const ended = once(child, 'close').then(
    () => true,
    () => false,
  )
  const inTime = await Promise.race([ended, late])
  clearTimeout(timer)
  if (!inTime) {
    // It may be beyond any signal for as long as what it asks for is.
    child.kill('SIGKILL')
    child.unref()
    stdout.destroy()
  }
  return inTime
}

/** Lines of maps: `start-end perms offset major:minor inode path`, the device in hexadecimal. */
export function deviceField(device: string): string {
  const [major, minor] = device.split(':').map((part) => Number(part).toString(16).padStart(2, '0'))
  return ` ${major}:${minor} `
}
