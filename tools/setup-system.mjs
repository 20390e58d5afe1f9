/**
 * What set-up needs from the operating system: Debian packages and Node's headers. Plain
 * JavaScript without dependencies, for it runs before anything is installed.
 */
import { spawn, spawnSync } from 'node:child_process'
import { accessSync, constants, existsSync, readdirSync, readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'

/** A problem that the reader can solve; printed without a stack. */
export class SetupError extends Error {}

/**
 * Debian package → how to see that it is there. `for` names the purposes that need it; `start` is
 * part of every purpose. An optional package that cannot be had is no error.
 */
export const PACKAGES = [
  { name: 'fuse3', program: 'fusermount3', for: 'start' },
  { name: 'libfuse2', library: 'libfuse.so.2', for: 'start', optional: true },
  { name: 'python3', program: 'python3', for: 'start' },
  { name: 'mount', program: 'umount', for: 'start' },
  { name: 'g++', program: 'g++', for: 'compile' },
  { name: 'make', program: 'make', for: 'compile' },
  { name: 'git', program: 'git', for: 'test' },
  { name: 'rsync', program: 'rsync', for: 'test' },
  { name: 'attr', program: 'setfattr', for: 'test' },
  { name: 'acl', program: 'setfacl', for: 'test' },
  { name: 'sqlite3', program: 'sqlite3', for: 'test' },
  { name: 'psmisc', program: 'fuser', for: 'test' },
  { name: 'g++', program: 'g++', for: 'test' },
  { name: 'make', program: 'make', for: 'test' },
  { name: 'fio', program: 'fio', for: 'bench' },
  { name: 'bindfs', program: 'bindfs', for: 'bench' },
  { name: 'e2fsprogs', program: 'mkfs.ext4', for: 'bench' },
  { name: 'perl', program: 'perl', for: 'bench' },
]

const SEARCH = [
  ...(process.env.PATH ?? '').split(':').filter(Boolean),
  '/usr/local/sbin',
  '/usr/sbin',
  '/sbin',
]

/** Where the program is, or undefined. */
export function which(program) {
  for (const directory of SEARCH) {
    const path = join(directory, program)
    try {
      accessSync(path, constants.X_OK)
      return path
    } catch {}
  }
  return undefined
}

function hasLibrary(name) {
  for (const base of ['/lib', '/usr/lib', '/lib64', '/usr/lib64', '/usr/local/lib']) {
    if (existsSync(join(base, name))) return true
  }
  return readdirSync('/usr/lib').some(
    (entry) => entry.includes('-linux-') && existsSync(join('/usr/lib', entry, name)),
  )
}

/** The packages missing for these purposes. */
export function missingPackages(purposes) {
  const missing = new Map()
  for (const entry of PACKAGES) {
    if (!purposes.includes(entry.for)) continue
    if (entry.program ? which(entry.program) : hasLibrary(entry.library)) continue
    missing.set(entry.name, entry)
  }
  return [...missing.values()]
}

/** How commands run as root from here: a prefix, or undefined when there is no way. */
function rootPrefix() {
  if (process.getuid() === 0) return []
  if (!which('sudo')) return undefined
  if (spawnSync('sudo', ['-n', 'true'], { stdio: 'ignore' }).status === 0) return ['sudo', '-n']
  return process.stdin.isTTY && process.stderr.isTTY ? ['sudo'] : undefined
}

/** Runs a command, its output kept; `tick(seconds)` is called every few seconds. */
export function runQuietly(command, { cwd, env, tick, input = 'ignore' } = {}) {
  return new Promise((resolve) => {
    const child = spawn(command[0], command.slice(1), {
      cwd,
      env: { ...process.env, ...env },
      stdio: [input, 'pipe', 'pipe'],
    })
    const output = []
    child.stdout.on('data', (chunk) => output.push(chunk))
    child.stderr.on('data', (chunk) => output.push(chunk))
    const started = Date.now()
    const timer = setInterval(() => tick?.(Math.round((Date.now() - started) / 1000)), 10_000)
    const end = (status) => {
      clearInterval(timer)
      resolve({ status, output: Buffer.concat(output).toString() })
    }
    child.on('error', (error) => {
      output.push(Buffer.from(`${error.message}\n`))
      end(127)
    })
    child.on('close', (status) => end(status ?? 128))
  })
}

/** The last lines of what a command printed, for an error message. */
export function tail(output, lines = 15) {
  return output.trimEnd().split('\n').slice(-lines).join('\n')
}

let listsUpdated = false

async function aptGet(prefix, names) {
  const environment = ['env', 'DEBIAN_FRONTEND=noninteractive', 'apt-get', '-qq']
  const options = ['-o', 'DPkg::Lock::Timeout=300']
  const input = prefix.length === 1 ? 'inherit' : 'ignore'
  if (!listsUpdated) {
    await runQuietly([...prefix, ...environment, ...options, 'update'], { input })
    listsUpdated = true
  }
  const install = ['install', '-y', '--no-install-recommends', ...names]
  return runQuietly([...prefix, ...environment, ...options, ...install], { input })
}

/** Installs Debian packages; throws SetupError with a sentence that says what to do instead. */
export async function installPackages(entries, say) {
  const names = entries.map((entry) => entry.name)
  const required = entries.filter((entry) => !entry.optional).map((entry) => entry.name)
  const byHand = `apt-get install ${names.join(' ')}`
  if (!which('apt-get')) {
    if (required.length === 0) return
    throw new SetupError(
      `missing: ${required.join(', ')}. This is no Debian system (no apt-get): install them with ` +
        'your own package manager and try again.',
    )
  }
  const prefix = rootPrefix()
  if (!prefix) {
    if (required.length === 0) return
    throw new SetupError(
      'missing Debian packages, and this user is neither root nor may use sudo without a ' +
        `password. Ask for: ${byHand}`,
    )
  }
  say(`installing Debian packages: ${names.join(', ')}`)
  if ((await aptGet(prefix, names)).status === 0) return
  for (const entry of entries) {
    const { status, output } = await aptGet(prefix, [entry.name])
    if (status === 0) continue
    if (!entry.optional) {
      throw new SetupError(`apt-get could not install ${entry.name}:\n${tail(output)}`)
    }
    say(`${entry.name} is not to be had here; going on without it`)
  }
}

/** NODE_MODULE_VERSION of the headers below `prefix`/include/node, or undefined. */
function headersVersion(prefix) {
  try {
    const text = readFileSync(join(prefix, 'include/node/node_version.h'), 'utf8')
    return /#define NODE_MODULE_VERSION (\d+)/.exec(text)?.[1]
  } catch {
    return undefined
  }
}

/** A directory to give node-gyp as --nodedir: headers of exactly this Node, already here. */
export function localHeaders() {
  const candidates = [dirname(dirname(process.execPath)), '/usr', '/usr/local']
  return candidates.find((prefix) => headersVersion(prefix) === process.versions.modules)
}

/** When node-gyp could not download headers: Debian's, if they are of this Node. */
export async function debianHeaders(say) {
  const major = process.versions.node.split('.')[0]
  const policy = which('apt-cache') ? spawnSync('apt-cache', ['policy', 'libnode-dev']) : undefined
  const candidate = /Candidate: (\d+)\./.exec(policy?.stdout?.toString() ?? '')?.[1]
  if (candidate !== major) return undefined
  await installPackages([{ name: 'libnode-dev' }], say)
  return localHeaders()
}
