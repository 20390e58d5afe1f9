/** The who-holds-it record of a region: for people and messages; the locks are what excludes. */
import { chmodSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Holder, Purpose } from './holder.ts'
import { bootId, hostname, processAlive, processStartTime } from './identity.ts'
import { wholeKey } from './region.ts'
import { isRoot, runtimeDirectory, trustedDirectories } from './runtime-directory.ts'

export interface HolderRecord {
  readonly pid: number
  readonly host: string
  readonly bootId: string
  readonly purpose: Purpose
  /** ISO 8601. */
  readonly since: string
  /** The path by which the region was opened. */
  readonly path: string
  readonly mountpoint?: string
  /** Key of the mapped device that this one is a target of: its record and socket are the ones. */
  readonly through?: string
  /** Clock ticks after boot; tells a process from a later one of the same number. */
  readonly startTime?: number
}

export function makeRecord(path: string, holder: Holder, since: string): HolderRecord {
  const startTime = processStartTime(process.pid)
  return {
    pid: process.pid,
    host: hostname(),
    bootId: bootId(),
    purpose: holder.purpose,
    since,
    path,
    ...(holder.mountpoint === undefined ? {} : { mountpoint: holder.mountpoint }),
    ...(holder.through === undefined ? {} : { through: holder.through }),
    ...(startTime === undefined ? {} : { startTime }),
  }
}

/** Readers see the old record or the new one, never half of one. */
export function writeRecord(key: string, record: HolderRecord): void {
  const path = join(runtimeDirectory(), `${key}.json`)
  const temporary = `${path}.${process.pid}`
  writeFileSync(temporary, `${JSON.stringify(record)}\n`, { mode: 0o600 })
  if (isRoot()) chmodSync(temporary, 0o644)
  renameSync(temporary, path)
}

export function removeRecord(key: string): void {
  rmSync(join(runtimeDirectory(), `${key}.json`), { force: true })
}

/** The record of a process that is alive, from root's directory or ours. */
export function readRecord(key: string): HolderRecord | undefined {
  for (const directory of trustedDirectories()) {
    const record = parseRecord(join(directory, `${key}.json`))
    if (record !== undefined && holderAlive(record)) return record
  }
  return undefined
}

/** Who holds the file that this instance lies in, or an instance in this file. */
export function overlappingRecord(key: string): HolderRecord | undefined {
  const whole = wholeKey(key)
  if (whole !== key) return readRecord(whole)
  return instanceKeys(key)
    .map(readRecord)
    .find((record) => record !== undefined)
}

/** The instances in a file that have a holder, or had one that crashed. */
export function instanceKeys(fileKey: string): string[] {
  return trustedDirectories()
    .flatMap((directory) => readdirSync(directory))
    .filter((name) => name.startsWith(`${fileKey}-dax`) && name.endsWith('.json'))
    .map((name) => name.slice(0, -'.json'.length))
}

/** "mounted on /mnt by pid 7 on host h since …": the middle of a sentence. */
export function describeRecord(record: HolderRecord): string {
  const doing =
    record.purpose !== 'mount'
      ? `${record.purpose} is at work on it, run`
      : record.mountpoint === undefined
        ? 'being mounted'
        : `mounted on ${record.mountpoint}`
  return `${doing} by pid ${record.pid} on host ${record.host} since ${record.since}`
}

/** The boot id alone tells hosts apart: a host may be renamed while it runs. */
function holderAlive(record: HolderRecord): boolean {
  return record.bootId === bootId() && processAlive(record.pid, record.startTime)
}

function parseRecord(path: string): HolderRecord | undefined {
  try {
    const value: unknown = JSON.parse(readFileSync(path, 'utf8'))
    return isRecord(value) ? value : undefined
  } catch {
    return undefined
  }
}

function isRecord(value: unknown): value is HolderRecord {
  if (typeof value !== 'object' || value === null) return false
  const record = value as Partial<Record<keyof HolderRecord, unknown>>
  return (
    Number.isSafeInteger(record.pid) &&
    (record.pid as number) > 0 &&
    typeof record.host === 'string' &&
    typeof record.bootId === 'string' &&
    typeof record.since === 'string' &&
    typeof record.path === 'string' &&
    (record.purpose === 'mount' || record.purpose === 'mkfs' || record.purpose === 'fsck') &&
    (record.mountpoint === undefined || typeof record.mountpoint === 'string') &&
    (record.through === undefined || typeof record.through === 'string') &&
    (record.startTime === undefined || Number.isSafeInteger(record.startTime))
  )
}
