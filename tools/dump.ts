/**
 * holdfast dump: what lies in a region, readable. Reads only, and believes nothing; a mounted
 * region changes while it is read, so there the answer is the best that can be had.
 */
import { writeFileSync } from 'node:fs'
import { openByName } from '../src/bus/open.ts'
import { print, printJson } from '../src/cli/output.ts'
import { isHeld } from '../src/dax/claim.ts'
import type { DaxDevice } from '../src/dax/device.ts'
import { bootId } from '../src/dax/identity.ts'
import type { Memory } from '../src/dax/memory.ts'
import { findIndex } from '../src/fs/check/find-index.ts'
import { mountError } from '../src/fs/mount.ts'
import { readSuperblocks, requireSuperblock } from '../src/media/superblock.ts'
import { dumpJournal, journalLines } from './dump-journal.ts'
import { dumpSuperblocks, superblockLines } from './dump-superblock.ts'

export interface DumpOptions {
  /** The records of the journal as well. */
  readonly journal?: boolean | undefined
  /** Where to write the index as a database file. */
  readonly index?: string | undefined
  readonly json?: boolean | undefined
}

/** Throws a sentence when what was asked for cannot be had; damage that can be shown is shown. */
export function dump(region: string, options: DumpOptions = {}): void {
  const device = openByName(region, { readOnly: true })
  try {
    const { memory } = device
    if (options.json) printJson(toJson(memory, options))
    else printLines(memory, options)
    if (options.index !== undefined) writeIndex(device, options.index, options.json ?? false)
  } catch (error) {
    // What is mounted changes while it is read: it need not be damaged.
    throw isHeld(region) ? error : mountError(device, error, 0)
  } finally {
    device.close()
  }
}

function toJson(memory: Memory, options: DumpOptions) {
  const superblocks = dumpSuperblocks(memory)
  if (!options.journal) return { superblocks }
  return { superblocks, journal: [...dumpJournal(memory, readable(memory))] }
}

/** Line by line as it is found: a journal may hold millions of records. */
function printLines(memory: Memory, options: DumpOptions): void {
  for (const dumped of dumpSuperblocks(memory)) print(superblockLines(dumped).join('\n'))
  if (!options.journal) return
  for (const record of dumpJournal(memory, readable(memory))) {
    print(journalLines(record).join('\n'))
  }
}

function readable(memory: Memory) {
  return requireSuperblock(readSuperblocks(memory))
}

/** The index as the next mount would see it, or as much of it as can be had. */
function writeIndex(device: DaxDevice, path: string, quiet: boolean): void {
  const { memory } = device
  const pair = readSuperblocks(memory)
  const superblock = requireSuperblock(pair)
  const findings = { problems: [], notices: [] }
  const options = { bootId: bootId(), mounted: false }
  const found = findIndex(memory, pair, superblock, options, findings)
  if (found === undefined) throw new Error(noIndex(device, findings.problems))
  const { index, sequence, damage } = found.salvaged
  try {
    // Never over something else; private, for it names every file.
    writeFileSync(path, index.serialize(), { flag: 'wx', mode: 0o600 })
  } finally {
    index.close()
  }
  if (damage !== undefined) process.stderr.write(`journal: ${damage.message}\n`)
  if (!quiet) print(`index up to sequence ${sequence} written to ${path}`)
}

function noIndex({ path }: DaxDevice, problems: readonly { message: string }[]): string {
  const why = problems.map(({ message }) => message).join('; ')
  const remedy = isHeld(path) ? 'unmount it, and try again' : `run fsck.holdfast --repair ${path}`
  return `there is no index to be had: ${why}; ${remedy}`
}
