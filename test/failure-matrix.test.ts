/**
 * A slice of the failure matrix, run as users run it, on real mounts. Every cell:
 * node tools/failure-matrix.mjs.
 */
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { allCells, BLOCKS, METHODS, OPERATIONS, quickCells } from '../tools/failure-matrix/cells.ts'
import type { Played } from '../tools/failure-matrix/main.ts'
import { isDeviceDax } from '../tools/failure-matrix/region.ts'
import { cannotMount, ROOT, run, scratch } from './support/mounts.ts'
import { M, makeRegion, makeTargets, openRegionFile } from './support/regions.ts'

const skip = cannotMount()

function tool(name: string, args: readonly string[]) {
  const command = [process.execPath, join(ROOT, name), ...args]
  return run(command, { timeoutMs: 150_000 })
}

t.test('the slice meets every block and every operation', async (t) => {
  const cells = quickCells()
  t.same(new Set(cells.map(({ block }) => block)), new Set(BLOCKS))
  t.same(new Set(cells.map(({ operation }) => operation)), new Set(OPERATIONS))
  t.equal(allCells(METHODS).length, BLOCKS.length * OPERATIONS.length * METHODS.length)
})

t.test('failure-matrix --quick: every cell as docs/FAILURE.md says', { skip }, async (t) => {
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
  const of = (method: string) => cells.filter((cell) => cell.method === method).length
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
  const cells = [...text.matchAll(/^\| ([^|]+) \| (soft|sigbus) \|/gm)]
  t.same(new Set(cells.map(([, block]) => block)), new Set(BLOCKS), 'every block has its rows')
})
