/** The project's own files, for tests that read sources. */
import { execFileSync } from 'node:child_process'
import { existsSync, readFileSync } from 'node:fs'
import { dirname, join, posix } from 'node:path'
import { fileURLToPath } from 'node:url'

export const ROOT = join(dirname(fileURLToPath(import.meta.url)), '../..')

/** Paths below the root of all files that are, or would be, committed. */
export function projectFiles(): string[] {
  const args = ['ls-files', '-z', '--cached', '--others', '--exclude-standard']
  const listed = execFileSync('git', args, { cwd: ROOT, maxBuffer: 2 ** 26 }).toString()
  return [...new Set(listed.split('\0'))]
    .filter((path) => path && existsSync(join(ROOT, path)))
    .sort()
}

export function textOf(path: string): string {
  return readFileSync(join(ROOT, path), 'utf8')
}

export function linesOf(path: string): string[] {
  return textOf(path).replace(/\n$/, '').split('\n')
}

export const isSource = (path: string) => /\.(ts|mjs)$/.test(path)
export const isCode = (path: string) => /\.(ts|mjs|c|h)$/.test(path)

export interface Import {
  line: number
  /** As it is written. */
  specifier: string
  /** Path below the root, of relative ones. */
  target: string | undefined
}

const IMPORT = /(?:\bfrom\s*|\bimport\s*\(?\s*)(['"])([^'"\n]+)\1/g

/** Static and dynamic imports, and re-exports. */
export function importsOf(path: string): Import[] {
  const text = textOf(path)
  return [...text.matchAll(IMPORT)].map((match) => {
    const specifier = match[2]!
    const relative = specifier.startsWith('.')
    return {
      line: text.slice(0, match.index).split('\n').length,
      specifier,
      target: relative ? posix.join(posix.dirname(path), specifier) : undefined,
    }
  })
}

/** Every string in a file that names one of the project's: imports, workers, launched programs. */
export function mentionsOf(path: string, files: ReadonlySet<string>): string[] {
  const found: string[] = []
  for (const match of textOf(path).matchAll(/(['"`])([^'"`\n]+\.(?:ts|mjs|c|h))\1/g)) {
    const mentioned = match[2]!
    const places = [posix.join(posix.dirname(path), mentioned), posix.normalize(mentioned)]
    for (const place of places) if (files.has(place)) found.push(place)
  }
  return found
}

export interface FunctionSpan {
  name: string
  line: number
  lines: number
}

const HEADS = [
  /^(?:export )?(?:default )?(?:async )?function\*? ?(\w*)/,
  /^(?:(?:public|private|static|override|async|get|set|\*) ?)*([#\w]+)(?:<[^>]*>)?\(/,
  /^(?:export )?const (\w+)(?::[^=]+)? = (?:async )?(?:<[^>]*>)?\(/,
]
const NO_FUNCTION = /^(?:if|for|while|switch|catch|return|throw|await|new|else|do|try)\b/

/** Functions and methods of a formatted file: from the head to the brace in its column. */
export function functionsOf(path: string): FunctionSpan[] {
  const lines = linesOf(path)
  const spans: FunctionSpan[] = []
  lines.forEach((line, at) => {
    const name = path.endsWith('.ts') || path.endsWith('.mjs') ? headName(line) : cHeadName(line)
    if (name === undefined) return
    const indent = indentOf(line)
    const opens = opening(lines, at, indent)
    if (opens === undefined) return
    const end = lines.findIndex((text, index) => index > opens && closes(text, indent))
    if (end !== -1) spans.push({ name, line: at + 1, lines: end - at + 1 })
  })
  return spans
}

function headName(line: string): string | undefined {
  const text = line.trimStart()
  if (NO_FUNCTION.test(text)) return undefined
  for (const head of HEADS) {
    const match = head.exec(text)
    if (match) return match[1] || '(anonymous)'
  }
  return undefined
}

function cHeadName(line: string): string | undefined {
  return /^[a-z][\w *]*?(\w+)\(/.exec(line)?.[1]
}

const indentOf = (line: string) => line.length - line.trimStart().length

/** The line whose end opens the body; the head may take several lines. */
function opening(lines: readonly string[], at: number, indent: number): number | undefined {
  for (let index = at; index < Math.min(at + 30, lines.length); index++) {
    const line = lines[index]!
    const outermost = index === at || indentOf(line) === indent || line.startsWith('{')
    if (outermost && line.endsWith('{')) return index
    if (index > at && indentOf(line) <= indent && !/^[){]/.test(line.trimStart())) return undefined
  }
  return undefined
}

function closes(line: string, indent: number): boolean {
  return indentOf(line) === indent && line.trimStart().startsWith('}')
}
