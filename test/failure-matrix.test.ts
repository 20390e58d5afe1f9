/**
 * A slice of the failure matrix, run as users run it, on real mounts. Every cell:
 * node tools/failure-matrix.mjs.
 */
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import {
  allCells,
  BLOCKS,
  type Cell,
  expected,
  METHODS,
  needsFreshMount,
  OPERATIONS,
  type Operation,
  type Outcome,
  quickCells,
} from '../tools/failure-matrix/cells.ts'
import type { Played } from '../tools/failure-matrix/main.ts'
import { isDeviceDax } from '../tools/failure-matrix/region.ts'
import { cannotMount, ROOT, run, scratch } from './support/mounts.ts'
import { M, makeRegion, makeTargets, openRegionFile } from './support/regions.ts'

const skip = cannotMount()
/** The methods that work on every region. */
const BOTH = ['soft', 'sigbus'] as const

function tool(name: string, args: readonly string[]) {
  const command = [process.execPath, join(ROOT, name), ...args]
  return run(command, { timeoutMs: 240_000 })
}

t.test('the slice meets every row of the table and every operation', async (t) => {
  const cells = quickCells()
  const rows = new Set(cells.map(({ block, method }) => `${block}, ${method}`))
  t.same(rows, new Set(allCells(BOTH).map(({ block, method }) => `${block}, ${method}`)))
  t.same(new Set(cells.map(({ operation }) => operation)), new Set(OPERATIONS))
  t.equal(allCells(METHODS).length, BLOCKS.length * OPERATIONS.length * METHODS.length)
})

t.test('failure-matrix --quick: a slice of the cells, all as expected', { skip }, async (t) => {
  const { stdout, stderr, status } = await tool('tools/failure-matrix.mjs', [
    '--quick',
    '--json',
    '--directory',
    scratch('memory'),
  ])
  const played = JSON.parse(stdout || '[]') as Played[]
  t.equal(played.length, quickCells().length, stderr)
  for (const { cell, differences } of played) {
    t.same(differences, [], `${cell.method}: ${cell.block}, ${cell.operation}`)
  }
  t.equal(status, 0)
  // Each cell is told when it has been played, not when the mount it shares is taken down.
  const told = stderr.split('\n').filter((line) => /^ *\d+\/\d+ |the next mount/.test(line))
  const shared = quickCells().filter((cell) => !needsFreshMount(cell)).length
  t.equal(told.length, played.length + 1, stderr)
  t.match(told[shared - 1], `${shared}/${played.length} ok`)
  t.match(told[shared], `ok     the next mount after ${shared} cells`)
})

t.test('failure-matrix on an instance and on a stripe set', { skip }, async (t) => {
  const region = makeRegion({ size: 128 * M })
  const instances = openRegionFile(t, region)
  instances.resize(0, 96 * M)
  instances.enable(0)
  const names = [`${region}#dax0.0`, makeTargets('striped', [68 * M, 68 * M]).join(',')]
  for (const name of names) {
    // A file that is hit, by either method, and a structure in use.
    const which = ['--quick', '--operation', 'mmap load', '--json']
    const where = ['--region', name, '--force', '--directory', scratch('memory')]
    const { stdout, stderr, status } = await tool('tools/failure-matrix.mjs', [...which, ...where])
    t.equal(status, 0, stderr)
    const played = JSON.parse(stdout || '[]') as Played[]
    const blocks = new Set(played.map(({ cell }) => cell.block))
    t.same(blocks, new Set(['data of an open file', 'journal, active']))
    for (const { differences } of played) t.same(differences, [])
  }
})

t.test('hwpoison has the cells of soft, and only device-dax has hwpoison', async (t) => {
  const cells = quickCells(METHODS)
  const of = (method: string) =>
    cells.filter((cell) => cell.method === method && cell.block !== 'superblock, backup').length
  t.equal(of('hwpoison'), of('soft'))
  t.same(new Set(quickCells().map(({ method }) => method)), new Set(['soft', 'sigbus']))
  const plain = join(scratch(), 'plain')
  writeFileSync(plain, '')
  t.equal(isDeviceDax('/dev/null'), true, 'a node: whether it is one of DAX, its opening will tell')
  t.equal(isDeviceDax(plain), false)
  t.equal(isDeviceDax(`/dev/null,${plain}`), false)
  t.equal(isDeviceDax('/dev/dax99.0'), false, 'not there')
})

t.test('wrong usage is exit 2, and touches nothing', async (t) => {
  const plain = join(scratch(), 'plain')
  writeFileSync(plain, 'something')
  for (const [name, args] of [
    ['tools/failure-matrix.mjs', ['--method', 'axe']],
    ['tools/failure-matrix.mjs', ['--method', 'hwpoison']],
    ['tools/failure-matrix.mjs', ['--method', 'hwpoison', '--region', plain, '--force']],
    ['tools/failure-matrix.mjs', ['--region', '/dev/null']],
  ] as const) {
    const { status, stderr } = await tool(name, args)
    t.equal(status, 2, stderr)
  }
  t.equal(readFileSync(plain, 'utf8'), 'something')
})

t.test('docs/FAILURE.md names a test for each sentence, and they exist', async (t) => {
  const text = readFileSync(join(ROOT, 'docs/FAILURE.md'), 'utf8')
  const named = [...text.matchAll(/`((?:devdax\/)?\w[\w-]*(?:\.test)?\.ts): ([^`]+)`/g)]
  t.ok(named.length > 40, `${named.length} sentences`)
  for (const [, file, title] of named) {
    const path = join(ROOT, 'test', file!)
    t.equal(existsSync(path), true, path)
    const source = existsSync(path) ? readFileSync(path, 'utf8') : ''
    t.equal(source.includes(title!), true, `${file}: ${title}`)
  }
})

/** The words of the table in docs/FAILURE.md. */
const ENDS: Record<string, string> = { 'go on': 'ok', EIO: 'EIO', SIGBUS: 'SIGBUS' }
const BYTES: Record<string, string> = { EIO: 'EIO', zeros: 'ok', whole: 'ok', 'no file': 'no file' }
const FATES: Record<string, Pick<Outcome, 'report' | 'state' | 'next'>> = {
  'handles killed': { report: 'data: handles killed', state: 'mounted', next: 'mounts' },
  quarantined: { report: 'free: quarantined', state: 'mounted', next: 'mounts' },
  'not met': { report: 'none', state: 'mounted', next: 'mounts' },
  'not met, repair': { report: 'none', state: 'mounted', next: 'repair' },
  'shut down, repair': { report: 'metadata: shutdown', state: 'shutdown', next: 'repair' },
}

/** Of `EIO; truncate, fsync: go on` what it says of one operation; `undefined`: not readable. */
function said(
  text: string,
  operation: Operation,
  column: readonly string[] = OPERATIONS,
): string | undefined {
  const [rule, ...exceptions] = text.split('; ')
  const lists = exceptions.map((exception) => exception.split(': '))
  const known = (name: string) => column.includes(name)
  if (!lists.every(([names, word]) => word && names!.split(', ').every(known))) return undefined
  return lists.find(([names]) => names!.split(', ').includes(operation))?.[1] ?? rule
}

/** What a row says of an operation, in the words of cells.ts. */
function inWords(header: readonly string[], row: readonly string[], operation: Operation): Outcome {
  const meaning = (words: Record<string, string>, text: string | undefined) =>
    text?.split(' or ').map((word) => words[word] ?? `what is "${word}"?`)
  const column = header.findIndex((names) => names.split(', ').includes(operation))
  const inColumn = header[column]?.split(', ')
  const end = inColumn ? meaning(ENDS, said(row[column]!, operation, inColumn)) : ['ok']
  const [handle, bytes, becomes] = row.slice(-3).map((text) => said(text, operation))
  const fate = FATES[becomes ?? ''] ?? { report: `what is "${becomes}"?`, state: '', next: '' }
  const dead = end?.[0] === 'SIGBUS' ? 'dead process' : 'EIO'
  const isDown = fate.state === 'shutdown'
  const hasFile = row[0]!.startsWith('data') || row[0] === 'unwritten extent'
  const isGone = operation === 'unlink' && hasFile && row[0] !== 'data of a closed file'
  return {
    operation: String(end?.join('|')),
    handle: { dead, good: 'ok' }[handle ?? ''] ?? `what is "${handle}"?`,
    reopened: isDown ? 'EIO' : operation === 'unlink' ? 'ENOENT' : 'ok',
    hit: isGone ? 'ENOENT' : String(meaning(BYTES, bytes)?.join('|')),
    bystander: isDown ? 'EIO' : 'ok',
    ...fate,
  }
}

t.test('the table of docs/FAILURE.md is what is expected, cell by cell', async (t) => {
  const text = readFileSync(join(ROOT, 'docs/FAILURE.md'), 'utf8')
  const lines = text.split('\n').filter((line) => line.startsWith('| '))
  const table = lines.map((line) => line.slice(2, -2).split(' | '))
  const header = table.find(([first]) => first === 'memory that fails') ?? []
  const operations = header.slice(2, -3).flatMap((names) => names.split(', '))
  t.same(new Set([...operations, 'none']), new Set(OPERATIONS), 'each has its column')
  const rows = table.filter(([, method]) => method === 'soft' || method === 'sigbus')
  const names = rows.map(([block, method]) => `${block}, ${method}`)
  t.equal(new Set(names).size, rows.length, 'no row twice')
  t.equal(rows.length, BLOCKS.length * BOTH.length)
  const cells = allCells(BOTH)
  t.equal(cells.length, 220)
  for (const cell of cells) {
    const name = `${cell.method}: ${cell.block}, ${cell.operation}`
    const row = rows.find(([block, method]) => block === cell.block && method === cell.method)
    t.same(row && inWords(header, row, cell.operation), expected(cell), name)
    // As the doc says: the kernel's own injection is as the notice.
    const poison: Cell = { ...cell, method: 'hwpoison' }
    if (cell.method === 'soft') t.same(expected(poison), expected(cell), `hwpoison as ${name}`)
  }
})
