/**
 * `npm ci` of a few packages in a mounted directory: the tree is the one it makes on a plain
 * directory, and its programs run. Skipped when neither npm's cache nor a registry has the packages.
 */
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import {
  cannotMount,
  lacks,
  mountRegion,
  type Outcome,
  ROOT,
  run,
  scratch,
} from './support/mounts.ts'

const LIMIT_MS = 60_000
/** Without install scripts; one with a program, which npm links into node_modules/.bin. */
const WANTED = ['commander', 'cli-table3', 'cli-progress', 'semver']
/** What npm says when there is nothing to install from. */
const UNREACHABLE =
  /ENOTCACHED|ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ETIMEDOUT|E40[134]|E50\d|ERR_SOCKET/

interface Locked {
  version: string
  dependencies?: Record<string, string>
  optionalDependencies?: Record<string, string>
}

/** A package.json and its lock with these packages and what they need, as this project locks them. */
function manifests(): { manifest: string; lock: string } {
  const { packages } = JSON.parse(readFileSync(join(ROOT, 'package-lock.json'), 'utf8')) as {
    packages: Record<string, Locked>
  }
  const chosen: Record<string, Locked> = {}
  const queue = [...WANTED]
  for (let name = queue.pop(); name !== undefined; name = queue.pop()) {
    const entry = packages[`node_modules/${name}`]
    if (entry === undefined || chosen[`node_modules/${name}`] !== undefined) continue
    chosen[`node_modules/${name}`] = entry
    queue.push(...Object.keys({ ...entry.dependencies, ...entry.optionalDependencies }))
  }
  const versions = WANTED.map((name) => [name, packages[`node_modules/${name}`]!.version])
  const dependencies = Object.fromEntries(versions) as Record<string, string>
  const manifest = { name: 'in-a-mount', version: '1.0.0', dependencies }
  const lock = { ...manifest, lockfileVersion: 3, packages: { '': manifest, ...chosen } }
  return { manifest: JSON.stringify(manifest), lock: JSON.stringify(lock) }
}

/** Puts the two files there with a client of its own, and runs `npm ci`. */
function install(directory: string, files: string): Promise<Outcome> {
  const script = `
    cp ${files}/package.json ${files}/package-lock.json "$0" && cd "$0" &&
    exec npm ci --prefer-offline --ignore-scripts --no-audit --no-fund --fetch-retries=0`
  return run(['bash', '-c', script, directory], { timeoutMs: LIMIT_MS })
}

t.test('npm ci in a mount', { skip: cannotMount() || lacks('npm', 'diff') }, async (t) => {
  const files = scratch('disk')
  const plain = join(files, 'plain')
  mkdirSync(plain)
  const { manifest, lock } = manifests()
  writeFileSync(join(files, 'package.json'), manifest)
  writeFileSync(join(files, 'package-lock.json'), lock)
  const expected = await install(plain, files)
  const lines = expected.stderr.split('\n').filter((line) => /^npm (error|ERR!)/.test(line))
  const said = expected.timedOut ? 'no answer in time' : lines.slice(0, 2).join('; ')
  if (expected.timedOut || UNREACHABLE.test(said)) {
    t.pass('npm has no packages to install', { skip: said })
    return
  }
  t.equal(expected.status, 0, `on the disk ${said}`)

  const mount = await mountRegion({ on: 'memory' })
  // The second one removes what the first made.
  for (const turn of ['first', 'second']) {
    const outcome = await install(mount.mountpoint, files)
    t.equal(outcome.status, 0, `${turn}${outcome.status === 0 ? '' : `: ${outcome.stderr}`}`)
    t.comment(`${turn}: ${outcome.milliseconds} ms, ${expected.milliseconds} ms on the disk`)
  }
  const diff = await mount.client([
    'diff',
    '-r',
    '--no-dereference',
    'node_modules',
    join(plain, 'node_modules'),
  ])
  t.equal(diff.stdout + diff.stderr, '', 'the same tree')
  t.match((await mount.client('node_modules/.bin/semver 1.2.3 -i minor')).stdout, /^1\.3\.0$/m)
  const table = `const Table = require('cli-table3'); console.log(String(new Table().length))`
  t.equal((await mount.client(['node', '-e', table])).stdout, '0\n')
  await mount.unmount()
})
