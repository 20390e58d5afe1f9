/** holdfast getmap and rmap: where a file is, and whose a range is. */
import type { Command } from 'commander'
import type { FileMap, RmapRow } from '../../fs/administration.ts'
import { offline } from '../offline.ts'
import { type Column, print, printJson, printTable } from '../output.ts'
import { formatSize } from '../sizes.ts'
import { jsonOption, sizeArgument, withDaemon } from './context.ts'

/** Rows asked for at a time. */
const PAGE = 4096

export function addGetmap(program: Command): void {
  jsonOption(program.command('getmap'))
    .argument('<file>', 'a file on a mounted holdfast')
    .summary('show where in the region a file lies')
    .description('Show the extents of a file: which bytes of it lie where in the region.')
    .action(async (path: string, options: { json?: boolean }) => {
      const { resolveFile } = await import('../../control/target.ts')
      const { target, inode } = resolveFile(path)
      const map = await withDaemon(target, (client) => client.call('getmap', { inode }))
      if (options.json) printJson(map)
      else await printMap(path, map)
    })
}

async function printMap(path: string, map: FileMap): Promise<void> {
  print(`${path}: inode ${map.inode}, ${map.size} bytes`)
  const columns: Column[] = [
    { head: 'FILE OFFSET', right: true },
    { head: 'REGION OFFSET', right: true },
    { head: 'LENGTH', right: true },
    { head: 'FLAGS' },
  ]
  const rows = map.extents.map((extent) => [
    `${extent.fileOffset}`,
    `${extent.regionOffset}`,
    `${extent.length}`,
    extent.flags.join(','),
  ])
  await printTable(columns, rows, 'no extents: the file is empty or all hole')
}

interface RmapOptions {
  offset?: number
  length?: number
  json?: boolean
}

export function addRmap(program: Command): void {
  jsonOption(program.command('rmap'))
    .argument('<target>', 'mountpoint or region, mounted or not')
    .option('--offset <size>', 'first byte of the region to ask about', sizeArgument)
    .option('--length <size>', 'how many bytes (default: to the end)', sizeArgument)
    .summary('show who owns the bytes of a region')
    .description('Show who owns which bytes of the region: the reverse map.')
    .action(async (text: string, options: RmapOptions) => {
      const { resolveTarget } = await import('../../control/target.ts')
      const target = resolveTarget(text)
      const offset = options.offset ?? 0
      let rows: RmapRow[]
      if (target.holder?.purpose === 'mount') {
        rows = await withDaemon(target, async (client) => {
          const { regionSize } = await client.call('status', {})
          const end = endOf(offset, options.length, regionSize)
          return pages(offset, end, (at, length) =>
            client.call('rmap', { offset: at, length, limit: PAGE }),
          )
        })
      } else {
        rows = await offline(target.region, (inspection, size) =>
          inspection.rmap(
            offset,
            endOf(offset, options.length, size) - offset,
            Number.MAX_SAFE_INTEGER,
          ),
        )
      }
      if (options.json) printJson(rows)
      else await printRows(rows)
    })
}

function endOf(offset: number, length: number | undefined, size: number): number {
  return length === undefined ? Math.max(size, offset + 1) : offset + length
}

/** Goes on where the last row ended until the range is covered. */
async function pages(
  start: number,
  end: number,
  ask: (offset: number, length: number) => Promise<RmapRow[]>,
): Promise<RmapRow[]> {
  const rows: RmapRow[] = []
  let offset = start
  while (offset < end) {
    const page = await ask(offset, end - offset)
    rows.push(...page)
    const last = page.at(-1)
    if (last === undefined || page.length < PAGE) break
    offset = Math.max(offset + 1, last.regionOffset + last.length)
  }
  return rows
}

async function printRows(rows: readonly RmapRow[]): Promise<void> {
  const columns: Column[] = [
    { head: 'REGION OFFSET', right: true },
    { head: 'LENGTH', right: true },
    { head: 'SIZE', right: true },
    { head: 'OWNER' },
    { head: 'FILE OFFSET', right: true },
    { head: 'PATH' },
  ]
  const cells = rows.map((row) => [
    `${row.regionOffset}`,
    `${row.length}`,
    formatSize(row.length),
    typeof row.owner === 'number' ? `inode ${row.owner}` : row.owner,
    `${row.fileOffset ?? ''}`,
    row.path ?? '',
  ])
  await printTable(columns, cells, 'nothing there')
}
