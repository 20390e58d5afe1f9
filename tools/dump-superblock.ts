/** Both superblocks, field by field, in the order and with the words of the layout table. */
import { type Memory, MemoryFailure } from '../src/dax/memory.ts'
import { MediaError } from '../src/media/errors.ts'
import { BLOCK_SIZE } from '../src/media/geometry.ts'
import { compileLayout } from '../src/media/layout.ts'
import { readSuperblocks, type SuperblockCopy } from '../src/media/superblock.ts'
import { superblockCodec } from '../src/media/superblock-codec.ts'
import { BLOCK_RANGE, type RawSuperblock, SUPERBLOCK } from '../src/media/superblock-layout.ts'

type Value = string | number | { block: number; blocks: number }[]

export interface DumpedSuperblock {
  copy: 'primary' | 'backup'
  /** Region offset, bytes. */
  offset: number
  /** Why a mount would not use it; undefined for a good copy. */
  problem?: string
  /** Absent when the bytes cannot be read or make no sense at all. */
  fields?: Record<string, Value>
}

const range = compileLayout('block range', BLOCK_RANGE)

/** Which count says how many of a list's entries are used. */
const COUNTS = { slot0: 'slotCount0', slot1: 'slotCount1', poison: 'poisonCount' } as const

export function dumpSuperblocks(memory: Memory): DumpedSuperblock[] {
  const { primary, backup } = readSuperblocks(memory)
  const end = memory.size - (memory.size % BLOCK_SIZE) - BLOCK_SIZE
  const place = backup instanceof Error ? backupPlace(primary, backup, end) : backup.geometry.backup
  return [dumpCopy(memory, 'primary', 0, primary), dumpCopy(memory, 'backup', place, backup)]
}

/** Where the backup would be: the primary knows; else where the error was met; else at the end. */
function backupPlace(primary: SuperblockCopy, backup: Error, end: number): number {
  if (!(primary instanceof Error)) return primary.geometry.backup
  if (backup instanceof MediaError || backup instanceof MemoryFailure) {
    return backup.offset - (backup.offset % BLOCK_SIZE)
  }
  return end
}

function dumpCopy(
  memory: Memory,
  copy: 'primary' | 'backup',
  offset: number,
  found: SuperblockCopy,
): DumpedSuperblock {
  const fields = rawFields(memory, offset)
  return {
    copy,
    offset,
    ...(found instanceof Error ? { problem: found.message } : {}),
    ...(fields === undefined ? {} : { fields }),
  }
}

function rawFields(memory: Memory, offset: number): Record<string, Value> | undefined {
  try {
    const bytes = new Uint8Array(BLOCK_SIZE)
    memory.read(offset, bytes, 0, BLOCK_SIZE)
    const raw = superblockCodec.decode(bytes, 0, offset)
    const fields: Record<string, Value> = {}
    for (const [name, type] of SUPERBLOCK) {
      if (!type.startsWith('reserved')) fields[name] = fieldValue(raw, name as keyof RawSuperblock)
    }
    return fields
  } catch (error) {
    if (error instanceof MediaError || error instanceof MemoryFailure) return undefined
    throw error
  }
}

function fieldValue(raw: RawSuperblock, name: keyof RawSuperblock): Value {
  const value = raw[name]
  if (!(value instanceof Uint8Array)) return value
  const count = raw[COUNTS[name as keyof typeof COUNTS]]
  const used = Math.min(count, value.length / range.size)
  return Array.from({ length: used }, (_, i) => range.decode(value, i * range.size))
}

/** One line per field: name, value, meaning. */
export function superblockLines(dumped: DumpedSuperblock): string[] {
  const lines = [`${dumped.copy} superblock at ${dumped.offset}`]
  if (dumped.problem !== undefined) lines.push(`  not usable: ${dumped.problem}`)
  for (const [name, , meaning] of SUPERBLOCK) {
    const value = dumped.fields?.[name]
    if (value === undefined) continue
    lines.push(`  ${name.padEnd(19)} ${show(name, value).padEnd(37)} ${meaning}`)
  }
  return lines
}

function show(name: string, value: Value): string {
  if (typeof value === 'object') {
    return value.map(({ block, blocks }) => `${block}+${blocks}`).join(' ') || '-'
  }
  if (name === 'crc' || name === 'imageCrc') return `0x${value.toString(16).padStart(8, '0')}`
  return value === '' ? '-' : String(value)
}
