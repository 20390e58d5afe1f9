/** The rules of the house that no formatter knows. Every offence is told as file:line. */
import { existsSync, readFileSync } from 'node:fs'
import { dirname, join, posix } from 'node:path'
import t from 'tap'
import {
  functionsOf,
  importsOf,
  isCode,
  isSource,
  linesOf,
  mentionsOf,
  projectFiles,
  ROOT,
  textOf,
} from './support/sources.ts'

const FILE_LINES = 400
const FILE_LINES_WARN = 300
/** A test file is one process: few and large ones start faster. */
const TEST_FILE_LINES = 800
const FUNCTION_LINES = 70
const COLUMNS = 100
/** A sentence or SQL in the line: the formatter may not break it. */
const HAS_TEXT = /['"`].{12,}|\b(NOT NULL|SELECT|FROM)\b|\$\{|^\s*\/.*\/,?$/

const files = projectFiles()
const known = new Set(files)
const sources = files.filter(isSource)

/** Lower layers have lower numbers; imports go to a lower or the same directory. */
const LAYERS: Record<string, number> = {
  'src/native': 0,
  'src/dax': 1,
  'src/media': 2,
  'src/bus': 3,
  'src/index': 3,
  'src/journal': 3,
  'src/fs': 4,
  'src/fuse': 5,
  'src/control': 6,
  'src/cli': 7,
  mkfs: 7,
  tools: 7,
  test: 8,
}
const PROGRAMS = 7

function layerOf(path: string): string {
  const [top, second] = path.split('/')
  return top === 'src' ? `src/${second}` : top!
}

/** Offences, one for each line for which `tell` says something. */
function eachLine(paths: readonly string[], tell: (line: string) => string | undefined): string[] {
  return paths.flatMap((path) =>
    linesOf(path).flatMap((line, at) => {
      const offence = tell(line)
      return offence === undefined ? [] : [`${path}:${at + 1}: ${offence}`]
    }),
  )
}

t.test('layers: imports go down only', async (t) => {
  const offences: string[] = []
  for (const path of sources) {
    const from = layerOf(path)
    const rank = LAYERS[from]
    if (rank === undefined) offences.push(`${path}:1: ${from} is no layer`)
    for (const { target, line } of importsOf(path)) {
      if (target === undefined || rank === undefined) continue
      const to = layerOf(target)
      const below = (LAYERS[to] ?? Number.POSITIVE_INFINITY) < rank
      if (to !== from && !below && rank !== PROGRAMS) {
        offences.push(`${path}:${line}: ${from} must not import ${target}`)
      }
      if (rank === PROGRAMS && to === 'test') {
        offences.push(`${path}:${line}: a program must not import ${target}`)
      }
    }
  }
  t.same(offences, [])
})

t.test('relative imports name the file, and it exists', async (t) => {
  const offences: string[] = []
  for (const path of sources) {
    for (const { specifier, target, line } of importsOf(path)) {
      if (target === undefined) continue
      if (!/\.(ts|mjs|json)$/.test(specifier)) {
        offences.push(`${path}:${line}: '${specifier}' must end in .ts`)
      } else if (!existsSync(join(ROOT, target))) {
        offences.push(`${path}:${line}: ${target} does not exist`)
      }
    }
  }
  t.same(offences, [])
})

t.test('types are said: no any, no check switched off without a reason', async (t) => {
  const loose = /(?:[:<(,|&]|\bas)\s*any\b(?!\s*[a-z])/
  const ignored = new RegExp(`@ts-(?:${'ignore'}|nocheck)`)
  const expected = new RegExp(`@ts-${'expect-error'}(?!:? \\S.{9})`)
  const lint = new RegExp(`biome-${'ignore'}(?!(?:-\\w+)? \\S+: \\S.{9})`)
  const offences = eachLine(sources, (line) => {
    const code = line.replace(/(['"`]).*?\1|\/[^/]+\/[a-z]*\.|\/\/.*|^\s*\/?\*.*/g, '')
    if (loose.test(code)) return 'any'
    if (ignored.test(line)) return 'a type error is ignored'
    if (expected.test(line)) return 'expects a type error without saying why'
    return lint.test(line) ? 'ignores a lint rule without saying why' : undefined
  })
  t.same(offences, [])
})

t.test('nothing is left for later', async (t) => {
  const later = new RegExp(`\\b(?:${['TO' + 'DO', 'FIX' + 'ME', 'XX' + 'X'].join('|')})\\b`)
  t.same(
    eachLine(files.filter(isCode), (line) => later.exec(line)?.[0]),
    [],
  )
})

t.test('text is clean UTF-8', async (t) => {
  const offences: string[] = []
  const control = '\\u0000-\\u0008\\u000b-\\u001f\\u007f-\\u009f\\ufffd'
  const invisible = '\\u00ad\\u200b-\\u200f\\u2028-\\u202e\\u2060-\\u2069\\ufeff'
  const strange = new RegExp(`[${control}${invisible}]`)
  for (const path of files) {
    const bytes = readFileSync(join(ROOT, path))
    if (/\.(png|db|bin|img)$/.test(path)) continue
    try {
      new TextDecoder('utf-8', { fatal: true }).decode(bytes)
    } catch {
      offences.push(`${path}:1: not UTF-8`)
      continue
    }
    if (bytes.length > 0 && bytes.at(-1) !== 10) offences.push(`${path}: no newline at the end`)
    offences.push(
      ...eachLine([path], (line) => {
        if (strange.test(line)) return 'an invisible or control character'
        return /[ \t]$/.test(line) ? 'white space at the end' : undefined
      }),
    )
  }
  t.same(offences, [])
})

t.test('files, functions and lines are short enough to read', async (t) => {
  const offences: string[] = []
  for (const path of files.filter(isCode)) {
    const { length } = linesOf(path)
    const limit = path.startsWith('test/') ? TEST_FILE_LINES : FILE_LINES
    if (length > limit) offences.push(`${path}:${limit}: ${length} lines, at most ${limit}`)
    else if (length > FILE_LINES_WARN && limit === FILE_LINES) {
      t.comment(`${path} has ${length} lines`)
    }
    for (const { name, line, lines } of functionsOf(path)) {
      if (lines <= FUNCTION_LINES) continue
      offences.push(`${path}:${line}: ${name} has ${lines} lines, at most ${FUNCTION_LINES}`)
    }
  }
  const wide = eachLine(sources, (line) =>
    [...line].length > COLUMNS && !HAS_TEXT.test(line)
      ? `${[...line].length} columns, at most ${COLUMNS}`
      : undefined,
  )
  t.same([...offences, ...wide], [])
})

t.test('no file names a package registry', async (t) => {
  const hosts = [
    `registry\\.[\\w.]+\\.(?:org|com|io)`,
    `npm${'js'}\\.(?:org|com)`,
    `deb\\.${'debian'}\\.org`,
    `snapshot\\.${'debian'}\\.org`,
  ]
  const host = new RegExp(hosts.join('|'))
  t.same(
    eachLine(files, (line) => host.exec(line)?.[0]),
    [],
  )
})

t.test('the top level holds what it should and nothing else', async (t) => {
  const allowed = new Set([
    ...['src', 'mkfs', 'tools', 'test', 'docs'],
    ...['package.json', 'package-lock.json', 'README.md', 'LICENSE', 'CHANGELOG.md'],
    ...['tsconfig.json', 'biome.json'],
  ])
  const found = new Set(files.map((path) => path.split('/')[0]!))
  t.same(
    [...found].filter((entry) => !allowed.has(entry) && !entry.startsWith('.')),
    [],
  )
})

t.test('no dead files: everything is reached from a program or a test', async (t) => {
  const manifest = JSON.parse(textOf('package.json')) as {
    bin: Record<string, string>
    scripts: Record<string, string>
  }
  const scripts = Object.values(manifest.scripts).flatMap((script) => script.split(/\s+/))
  const tests = files.filter((path) => path.endsWith('.test.ts'))
  const queue = [...Object.values(manifest.bin), ...scripts, ...tests].filter((path) =>
    known.has(path),
  )
  const reached = new Set(queue)
  for (let path = queue.pop(); path !== undefined; path = queue.pop()) {
    const targets = importsOf(path).map(({ target }) => target)
    for (const target of [...targets, ...mentionsOf(path, known)]) {
      if (target === undefined || !known.has(target) || reached.has(target)) continue
      reached.add(target)
      queue.push(target)
    }
  }
  t.same(
    sources.filter((path) => !reached.has(path)),
    [],
  )
})

t.test('every C file is compiled, every header included', async (t) => {
  const native = files.filter((path) => path.startsWith('src/native/'))
  const built = textOf('src/native/binding.gyp')
  const code = native.filter((path) => /\.[ch]$/.test(path)).map(textOf)
  const dead = native.filter((path) => {
    const name = posix.basename(path)
    if (path.endsWith('.c')) return !built.includes(`'${name}'`) && !built.includes(`"${name}"`)
    return path.endsWith('.h') && !code.some((text) => text.includes(`"${name}"`))
  })
  t.same(dead, [])
})

t.test('every relative link in the documents leads somewhere', async (t) => {
  const offences: string[] = []
  for (const path of files.filter((name) => name.endsWith('.md'))) {
    linesOf(path).forEach((line, at) => {
      for (const [, link] of line.matchAll(/\]\(([^)\s]+)\)/g)) {
        if (/^(?:[a-z]+:|#)/.test(link!)) continue
        const target = join(ROOT, dirname(path), link!.replace(/#.*/, ''))
        if (!existsSync(target)) offences.push(`${path}:${at + 1}: ${link} does not exist`)
      }
    })
  }
  t.same(offences, [])
})
