/**
 * Starts a TypeScript program of this checkout from any directory and through any symbolic link.
 *
 * The program is compiled once into build/ and then runs as plain JavaScript. tsx would do, but a
 * daemon that stays for months would keep tsx's loader thread (33 MB) and, when its cache was cold,
 * an esbuild process; and every command would start 120 ms later.
 */
import { existsSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import { compiled } from './compile.mjs'

const root = join(dirname(fileURLToPath(import.meta.url)), '../../..')

/** Runs `main(program, arguments)` of the entry; its result is the exit code. */
export async function launch(program, entry) {
  const sentence = missing()
  if (sentence !== undefined) {
    process.stderr.write(`${program}: ${sentence}\n`)
    process.exitCode = 1
    return
  }
  // `holdfast rmap … | head` ends without a word.
  process.stdout.on('error', (error) => process.exit(error.code === 'EPIPE' ? 0 : 1))
  const { main } = await load(program, entry)
  process.exitCode = await main(program, process.argv.slice(2))
}

/** What a fresh checkout still lacks, as a sentence that says what to do. */
function missing() {
  const [major, minor] = process.versions.node.split('.').map(Number)
  if (major < 20 || (major === 20 && minor < 19)) {
    return `Node ${process.versions.node} is too old: install Node 20.19 or newer`
  }
  for (const name of ['commander', 'better-sqlite3', 'tsx']) {
    if (!installed(name)) return `npm packages are missing: run \`npm install\` in ${root}`
  }
  if (!existsSync(join(root, 'src/native/build/Release/holdfast.node'))) {
    return `the native addon is not built: run \`npm start\` (or \`npm run build\`) in ${root}`
  }
  return undefined
}

/** As Node resolves it: in this package's node_modules or in those of whoever installed it. */
function installed(name) {
  for (let directory = root; ; directory = dirname(directory)) {
    if (existsSync(join(directory, 'node_modules', name))) return true
    if (directory === dirname(directory)) return false
  }
}

async function load(program, entry) {
  try {
    // Traces that name the sources cost every start some milliseconds.
    if (process.env.HOLDFAST_DEBUG) process.setSourceMapsEnabled(true)
    const file = await compiled(root, entry)
    if (file !== undefined) return await import(pathToFileURL(file).href)
    // Nowhere to keep the compiled program (a checkout of somebody else's): run the source.
    const { register } = await import('tsx/esm/api')
    register()
    return await import(pathToFileURL(join(root, entry)).href)
  } catch (error) {
    const reason = process.env.HOLDFAST_DEBUG ? error.stack : error.message
    process.stderr.write(`${program}: cannot start: ${reason}\n`)
    process.exit(1)
  }
}
