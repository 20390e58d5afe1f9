import { readFileSync } from 'node:fs'
import t from 'tap'
import { LABEL, LABEL_MAGIC, SET_KINDS, TARGET } from '../src/bus/label-layout.ts'
import { INSTANCE, INSTANCE_RANGE, REGION, REGION_MAGIC } from '../src/bus/region-layout.ts'
import * as changes from '../src/media/change-layout.ts'
import { fieldSize, type Layout } from '../src/media/layout.ts'
import { RECORD_HEADER, RECORD_MAGIC } from '../src/media/record.ts'
import {
  BLOCK_RANGE,
  SHUTDOWN_REASONS,
  STATES,
  SUPERBLOCK,
  SUPERBLOCK_MAGIC,
} from '../src/media/superblock-layout.ts'

const SPEC = readFileSync(new URL('../docs/SPEC.md', import.meta.url), 'utf8')

const LAYOUTS: Record<string, Layout> = {
  superblock: SUPERBLOCK,
  'block range': BLOCK_RANGE,
  'journal record': RECORD_HEADER,
  change: changes.CHANGE_HEADER,
  'inode change': changes.INODE_BODY,
  'inode key': changes.INO_BODY,
  'dirent change': changes.DIRENT_BODY,
  'directory key': changes.PARENT_BODY,
  'extent change': changes.EXTENT_BODY,
  'extent removal': changes.EXTENT_KEY_BODY,
  'range change': changes.RANGE_BODY,
  'region of instances': REGION,
  instance: INSTANCE,
  'instance range': INSTANCE_RANGE,
  'target label': LABEL,
  target: TARGET,
}

/** Tables by the heading above them; a table is a list of rows of trimmed cells. */
function tables(): Map<string, string[][]> {
  const found = new Map<string, string[][]>()
  let heading = ''
  for (const line of SPEC.split('\n')) {
    if (line.startsWith('#')) heading = line.replace(/^#+ /, '')
    if (!line.startsWith('|')) continue
    const cells = line.split('|').slice(1, -1)
    const rows = found.get(heading) ?? []
    rows.push(cells.map((cell) => cell.trim()))
    found.set(heading, rows)
  }
  return found
}

function expected(layout: Layout): string[][] {
  let offset = 0
  return layout.map(([name, type, meaning]) => {
    const row = [name, String(offset), String(fieldSize(type)), type, meaning]
    offset += fieldSize(type)
    return row
  })
}

t.test('every struct has its table', async (t) => {
  const found = tables()
  for (const [name, layout] of Object.entries(LAYOUTS)) {
    const rows = (found.get(name) ?? []).slice(2).filter((row) => row[1] !== undefined)
    t.same(rows.slice(0, layout.length), expected(layout), name)
    t.same(found.get(name)?.[0], ['name', 'offset', 'size', 'type', 'meaning'])
  }
  for (const heading of found.keys()) t.ok(heading in LAYOUTS, `${heading} is a struct of the code`)
})

t.test('codes', async (t) => {
  const rows = tables().get('change') ?? []
  const start = rows.findIndex(([first]) => first === 'code')
  const codes = rows.slice(start + 2).map(([code, name]) => [name, Number(code)])
  t.same(Object.fromEntries(codes), changes.CHANGE_TYPES)
  for (const [, , fields] of rows.slice(start + 2)) t.ok(fields! in LAYOUTS, `${fields}`)
  const flat = SPEC.replace(/\s+/g, ' ')
  const listed = (words: readonly string[]) =>
    words.map((word, at) => `${at} \`${word}\``).join(', ')
  t.ok(flat.includes(`States: ${listed(STATES)}.`))
  t.ok(flat.includes(`Kinds: ${listed(SET_KINDS)}.`))
  t.ok(flat.includes(`Shutdown reasons: ${listed(SHUTDOWN_REASONS)}.`))
  for (const magic of [SUPERBLOCK_MAGIC, REGION_MAGIC, LABEL_MAGIC])
    t.ok(flat.includes(magic), magic)
  const magic = Buffer.alloc(4)
  magic.writeUInt32LE(RECORD_MAGIC)
  t.ok(flat.includes(`0x${RECORD_MAGIC.toString(16)}, ${magic.toString()}`))
})
