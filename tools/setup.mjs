/**
 * Makes a clone ready to run: what `npm start`, `npm test` and `npm run bench` call first. When all
 * is there it only looks (well under 100 ms) and says nothing; else it installs what is missing and
 * says what it does. Plain JavaScript without dependencies, for it runs before `npm ci`.
 *
 *     node tools/setup.mjs [start|test|bench]
 */
import { existsSync, readdirSync, readFileSync, realpathSync, statSync, utimesSync } from 'node:fs'
import { createRequire } from 'node:module'
import { connect, createServer } from 'node:net'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import {
  debianHeaders,
  installPackages,
  localHeaders,
  missingPackages,
  runQuietly,
  SetupError,
  tail,
} from './setup-system.mjs'

const ROOT = dirname(dirname(fileURLToPath(import.meta.url)))
const NODE_MINIMUM = [20, 19]
const ADDON = join(ROOT, 'src/native/build/Release/holdfast.node')

const say = (line) => process.stderr.write(`holdfast set-up: ${line}\n`)

function checkPlatform() {
  if (process.platform !== 'linux') throw new SetupError('holdfast needs Linux.')
  const [major, minor] = process.versions.node.split('.').map(Number)
  const old = major < NODE_MINIMUM[0] || (major === NODE_MINIMUM[0] && minor < NODE_MINIMUM[1])
  if (old) {
    throw new SetupError(
      `holdfast needs Node ${NODE_MINIMUM.join('.')} or newer, not ${process.version}.`,
    )
  }
}

/** npm as a command: the one that runs us, else the one in PATH. */
function npm() {
  const own = process.env.npm_execpath
  return own?.endsWith('npm-cli.js') ? [process.execPath, own] : ['npm']
}

function readJson(path) {
  try {
    return JSON.parse(readFileSync(path, 'utf8'))
  } catch {
    return undefined
  }
}

/** True when node_modules holds what package-lock.json says (optional packages may be absent). */
function npmPackagesPresent() {
  const wanted = readJson(join(ROOT, 'package-lock.json'))?.packages
  const found = readJson(join(ROOT, 'node_modules/.package-lock.json'))?.packages
  if (!wanted) throw new SetupError('package-lock.json is missing or damaged; restore it from git.')
  if (!found) return false
  return Object.entries(wanted).every(([path, entry]) => {
    if (path === '' || entry.optional || entry.devOptional) return true
    return found[path]?.version === entry.version && existsSync(join(ROOT, path))
  })
}

/** True when better-sqlite3 was compiled for this Node. */
function sqliteLoads() {
  try {
    const Database = createRequire(import.meta.url)('better-sqlite3')
    new Database(':memory:').close()
    return true
  } catch {
    return false
  }
}

function newestSource(directory) {
  let newest = 0
  for (const entry of readdirSync(directory)) {
    if (/\.(c|h|gyp|gypi)$/.test(entry)) {
      newest = Math.max(newest, statSync(join(directory, entry)).mtimeMs)
    }
  }
  return newest
}

function addonPresent() {
  if (!existsSync(ADDON)) return false
  return statSync(ADDON).mtimeMs >= newestSource(join(ROOT, 'src/native'))
}

/** True when `tap build` ran since the packages or .taprc changed. */
function tapBuilt() {
  const built = join(ROOT, '.tap/plugins')
  const packages = join(ROOT, 'node_modules/.package-lock.json')
  if (!existsSync(built) || !existsSync(packages)) return false
  const since = Math.max(statSync(packages).mtimeMs, statSync(join(ROOT, '.taprc')).mtimeMs)
  return statSync(built).mtimeMs >= since
}

/** Environment that makes every node-gyp below use these headers instead of downloading them. */
function headersEnvironment(nodedir) {
  if (!nodedir) return {}
  return { npm_config_nodedir: nodedir, npm_package_config_node_gyp_nodedir: nodedir }
}

/** Runs npm; when it failed for want of Node's headers, gets Debian's and tries once more. */
async function runNpm(args, what, tick) {
  const attempt = (nodedir) =>
    runQuietly([...npm(), ...args], { cwd: ROOT, env: headersEnvironment(nodedir), tick })
  const local = localHeaders()
  let { status, output } = await attempt(local)
  if (status !== 0 && !local && /node-gyp|gyp ERR/.test(output)) {
    const headers = await debianHeaders(say)
    if (headers) ({ status, output } = await attempt(headers))
  }
  if (status !== 0)
    throw new SetupError(`${what} failed (npm ${args.join(' ')}):\n${tail(output, 40)}`)
}

async function installNpmPackages() {
  say('installing npm packages (compiling better-sqlite3 takes about two minutes)')
  const compiling = join(ROOT, 'node_modules/better-sqlite3/build/Makefile')
  await runNpm(
    ['ci', '--include=dev', '--include=optional'],
    'installing npm packages',
    (seconds) => say(`… ${seconds} s${existsSync(compiling) ? ', compiling better-sqlite3' : ''}`),
  )
}

async function buildTap() {
  say('building the test runner (tap build)')
  const tap = join(ROOT, 'node_modules/.bin/tap')
  const { status, output } = await runQuietly([tap, 'build'], { cwd: ROOT })
  if (status !== 0) throw new SetupError(`tap build failed:\n${tail(output)}`)
  utimesSync(join(ROOT, '.tap/plugins'), new Date(), new Date())
}

/** What there is and what not. */
function look(purpose) {
  const packages = npmPackagesPresent()
  const sqlite = packages && sqliteLoads()
  const addon = addonPresent()
  const tap = purpose !== 'test' || tapBuilt()
  const compile = packages && sqlite && addon ? [] : ['compile']
  const debian = missingPackages(['start', purpose, ...compile])
  const complete = compile.length === 0 && tap && debian.every((entry) => entry.optional)
  return { packages, sqlite, debian, complete }
}

async function install(purpose) {
  const { packages, sqlite, debian } = look(purpose)
  if (debian.length > 0) await installPackages(debian, say)
  if (!packages) {
    await installNpmPackages()
  } else if (!sqlite) {
    say('compiling better-sqlite3 for this Node (about two minutes)')
    await runNpm(['rebuild', 'better-sqlite3'], 'compiling better-sqlite3')
  }
  if (!addonPresent()) {
    say('building the native addon')
    await runNpm(['run', 'build'], 'building the native addon')
  }
  if (purpose === 'test' && !tapBuilt()) await buildTap()
}

/**
 * Calls `work` while no other set-up of this clone runs. The lock is a socket in the abstract
 * namespace: it is gone with its process, however that ends.
 */
async function alone(work) {
  const name = `\0holdfast-setup-${realpathSync(ROOT)}`
  const waiters = new Set()
  const server = createServer((socket) => waiters.add(socket.on('error', () => {})))
  const take = () =>
    new Promise((resolve, reject) => {
      const refused = (error) => (error.code === 'EADDRINUSE' ? resolve(false) : reject(error))
      server.once('error', refused)
      server.listen(name, () => resolve(server.off('error', refused)))
    })
  const holderGone = () =>
    new Promise((resolve) => {
      connect(name).on('error', resolve).on('close', resolve).resume()
    })
  for (let told = false; !(await take()); told = true) {
    if (!told) say('another set-up of this clone is running; waiting for it')
    await holderGone()
  }
  try {
    await work()
  } finally {
    server.close()
    for (const socket of waiters) socket.destroy()
  }
}

/** Installs what `purpose` ('start', 'test' or 'bench') needs; throws SetupError. */
export async function setup(purpose) {
  checkPlatform()
  if (look(purpose).complete) return
  await alone(async () => {
    if (look(purpose).complete) return
    const started = Date.now()
    await install(purpose)
    if (!sqliteLoads()) {
      throw new SetupError('better-sqlite3 does not load; delete node_modules and try again.')
    }
    say(`ready (${Math.round((Date.now() - started) / 1000)} s)`)
  })
}

/** The same for a program: prints the error and exits 1. */
export async function setupOrExit(purpose) {
  try {
    await setup(purpose)
  } catch (error) {
    if (!(error instanceof SetupError)) throw error
    say(error.message)
    process.exit(1)
  }
}

if (process.argv[1] && realpathSync(process.argv[1]) === fileURLToPath(import.meta.url)) {
  await setupOrExit(process.argv[2] ?? 'start')
}
