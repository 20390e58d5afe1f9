/** Compiles an entry and all it imports into build/, once for every state of the sources. */
import { createHash } from 'node:crypto'
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs'
import { basename, join, relative } from 'node:path'
import { pathToFileURL } from 'node:url'

/** Older builds that stay: a daemon may still have to import a chunk of its own build. */
const KEPT_BUILDS = 8

/**
 * The compiled module of `entry` (a path below `root`), or undefined when it is not there and
 * cannot be written.
 */
export async function compiled(root, entry) {
  const directory = join(root, 'build', entry.replace(/\.ts$/, '').replaceAll('/', '-'))
  const current = readManifest(directory)
  if (current !== undefined && upToDate(root, current)) return join(directory, current.module)
  try {
    mkdirSync(directory, { recursive: true })
    return await compile(root, entry, directory)
  } catch (error) {
    if (['EACCES', 'EROFS', 'EPERM', 'ENOSPC'].includes(error.code)) return undefined
    throw error
  }
}

function readManifest(directory) {
  try {
    const manifest = JSON.parse(readFileSync(join(directory, 'manifest.json'), 'utf8'))
    return existsSync(join(directory, manifest.module)) ? manifest : undefined
  } catch {
    return undefined
  }
}

function upToDate(root, manifest) {
  return Object.entries(manifest.inputs).every(
    ([path, stamp]) => stampOf(join(root, path)) === stamp,
  )
}

/** Changes whenever the file may have changed. */
function stampOf(path) {
  const found = statSync(path, { bigint: true, throwIfNoEntry: false })
  return found === undefined ? 'gone' : `${found.mtimeNs}.${found.size}.${found.ino}`
}

async function compile(root, entry, directory) {
  const started = BigInt(Date.now()) * 1_000_000n
  const { outputs, metafile } = await bundle(root, entry, directory)
  const hash = createHash('sha256')
  for (const { path, contents } of outputs) hash.update(basename(path)).update(contents)
  const name = hash.digest('hex').slice(0, 16)
  publish(directory, name, outputs)
  const inputs = {}
  let quiet = true
  for (const path of Object.keys(metafile.inputs)) {
    inputs[path] = stampOf(join(root, path))
    // Edited while we compiled: what we have may be the older text. Use it, but not again.
    quiet &&= BigInt(inputs[path].split('.')[0]) < started
  }
  const module = join(name, basename(entry).replace(/\.ts$/, '.js'))
  if (quiet) writeManifest(directory, { module, inputs })
  prune(directory, name)
  return join(directory, module)
}

async function bundle(root, entry, directory) {
  const { build } = await import('esbuild')
  const result = await build({
    absWorkingDir: root,
    entryPoints: [join(root, entry)],
    // As deep as the real place, so that the source maps point at the sources.
    outdir: join(directory, 'out'),
    bundle: true,
    splitting: true,
    format: 'esm',
    platform: 'node',
    target: 'node20',
    packages: 'external',
    sourcemap: 'linked',
    sourcesContent: false,
    metafile: true,
    write: false,
    logLevel: 'silent',
    plugins: [ownLocation(root)],
  }).catch((error) => {
    const [first] = error.errors ?? []
    if (first === undefined) throw error
    const { location } = first
    const where = location ? `${location.file}:${location.line}: ` : ''
    throw new Error(`cannot compile ${where}${first.text}`)
  })
  return { outputs: result.outputFiles, metafile: result.metafile }
}

/** A module finds its neighbours (the addon) by its own location: leave it where its source is. */
function ownLocation(root) {
  return {
    name: 'own-location',
    setup(build) {
      build.onLoad({ filter: /\.ts$/ }, ({ path }) => {
        if (relative(root, path).startsWith('..')) return undefined
        const text = readFileSync(path, 'utf8')
        if (!text.includes('import.meta.url')) return undefined
        const url = JSON.stringify(pathToFileURL(path).href)
        return { contents: text.replaceAll('import.meta.url', url), loader: 'ts' }
      })
    },
  }
}

/** All at once, by a rename: another process may compile the same at the same time. */
function publish(directory, name, outputs) {
  const target = join(directory, name)
  if (existsSync(target)) return
  const scratch = join(directory, `.${name}.${process.pid}`)
  mkdirSync(scratch)
  for (const { path, contents } of outputs) writeFileSync(join(scratch, basename(path)), contents)
  try {
    renameSync(scratch, target)
  } catch (error) {
    rmSync(scratch, { recursive: true })
    if (!existsSync(target)) throw error
  }
}

function writeManifest(directory, manifest) {
  const scratch = join(directory, `.manifest.${process.pid}`)
  writeFileSync(scratch, JSON.stringify(manifest))
  renameSync(scratch, join(directory, 'manifest.json'))
}

function prune(directory, current) {
  const builds = readdirSync(directory)
    .filter((name) => /^[0-9a-f]{16}$/.test(name) && name !== current)
    .map((name) => ({ name, age: statSync(join(directory, name)).mtimeMs }))
    .sort((a, b) => b.age - a.age)
  for (const { name } of builds.slice(KEPT_BUILDS)) {
    rmSync(join(directory, name), { recursive: true, force: true })
  }
}
