/** The records of both journal halves, in use or not, as they lie; their changes one per line. */

import type { Memory } from '../src/dax/memory.ts'
import { MemoryFailure } from '../src/dax/memory.ts'
import { nameOwner } from '../src/fs/check/space.ts'
import { type ListedRecord, listRecords } from '../src/journal/replay.ts'
import type { Change } from '../src/media/change.ts'
import { MediaError } from '../src/media/errors.ts'
import { RECORD_DURABLE_STORES, RECORD_MARK, RECORD_SWITCHED } from '../src/media/record.ts'
import type { Superblock } from '../src/media/superblock.ts'

export interface DumpedRecord {
  half: number
  /** Region offset, bytes. */
  offset: number
  length: number
  kind: 'transaction' | 'mark'
  flags: string[]
  epoch: number
  sequence: number
  /** The last sequence known durable when it was written. */
  durable: number
  /** False for what the checkpoint holds already. */
  afterCheckpoint: boolean
  changes: string[]
}

export function* dumpJournal(memory: Memory, superblock: Superblock): Generator<DumpedRecord> {
  for (const record of listRecords(memory, superblock)) {
    const { half, position, header } = record
    const flags: string[] = []
    if ((header.flags & RECORD_DURABLE_STORES) !== 0) flags.push('durable stores')
    if ((header.flags & RECORD_SWITCHED) !== 0) flags.push('switched')
    yield {
      half,
      offset: superblock.geometry.journal[half].offset + position,
      length: header.length,
      kind: header.kind === RECORD_MARK ? 'mark' : 'transaction',
      flags,
      epoch: header.epoch,
      sequence: header.sequence,
      durable: header.durable,
      afterCheckpoint: header.sequence > superblock.checkpoint.sequence,
      changes: header.kind === RECORD_MARK ? [] : changesOf(record),
    }
  }
}

function changesOf(record: ListedRecord): string[] {
  try {
    return record.changes().map(describe)
  } catch (error) {
    if (error instanceof MediaError || error instanceof MemoryFailure) return [error.message]
    throw error
  }
}

export function journalLines(record: DumpedRecord): string[] {
  const { half, offset, length, kind, flags, epoch, sequence, durable, changes } = record
  const state = record.afterCheckpoint ? '' : ' (in the checkpoint)'
  const head =
    `journal half ${half} at ${offset}: ${kind} ${sequence}, epoch ${epoch}, durable ${durable}, ` +
    `${length} bytes${flags.map((flag) => `, ${flag}`).join('')}${state}`
  return [head, ...changes.map((change) => `  ${change}`)]
}

function describe(change: Change): string {
  switch (change.type) {
    case 'putInode': {
      const { ino, mode, nlink, size, blocks, uid, gid, mtime, target } = change.inode
      const link = target === null ? '' : ` -> ${quote(target)}`
      const owner = `${uid}:${gid}`
      return `put inode ${ino}: mode ${mode.toString(8)} ${owner} links ${nlink} size ${size} blocks ${blocks} mtime ${mtime}${link}`
    }
    case 'removeInode':
      return `remove inode ${change.ino}`
    case 'putDirent':
      return `put entry ${quote(change.name)} in ${change.parent}: inode ${change.ino} type ${change.kind} cookie ${change.cookie}`
    case 'removeDirent':
      return `remove entry ${quote(change.name)} of ${change.parent}`
    case 'putXattr':
      return `put xattr ${quote(change.name)} of inode ${change.ino}: ${change.value.length} bytes`
    case 'removeXattr':
      return `remove xattr ${quote(change.name)} of inode ${change.ino}`
    case 'putExtent': {
      const { block, blocks, owner, fileBlock, flags } = change.extent
      const unwritten = flags === 0 ? '' : ` flags ${flags}`
      return `put extent ${block}+${blocks} of ${nameOwner(owner)} at file block ${fileBlock}${unwritten}`
    }
    case 'removeExtent':
      return `remove extent at ${change.block} of ${nameOwner(change.owner)}, file block ${change.fileBlock}`
    case 'allocate':
    case 'free':
      return `${change.type} ${change.block}+${change.blocks}`
    case 'putPoison':
      return `put poison ${change.block}+${change.blocks}`
    case 'removePoison':
      return `remove poison ${change.block}+${change.blocks}`
  }
}

/**
 * Names are bytes: what is not printable ASCII or valid UTF-8 is escaped, so a line stays a line.
 */
function quote(bytes: Uint8Array): string {
  const text = Buffer.from(bytes).toString('utf8')
  const faithful = Buffer.compare(Buffer.from(text), bytes) === 0
  return JSON.stringify(faithful ? text : Buffer.from(bytes).toString('latin1'))
}
