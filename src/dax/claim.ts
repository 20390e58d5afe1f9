/**
 * The claim on a region: exclusive between processes (kernel locks) and between the mounts of this
 * process (a table). Taken by fsDaxGet, released by fsPutDax.
 */
import { constants } from 'node:os'
import { DaxError } from './errors.ts'
import type { ClaimHooks, Holder } from './holder.ts'
import {
  describeRecord,
  type HolderRecord,
  makeRecord,
  overlappingRecord,
  readRecord,
  removeRecord,
  writeRecord,
} from './holder-record.ts'
import { isRegionKey, type Region, regionKey } from './region.ts'
import { probeLock, RegionLock } from './region-lock.ts'
import { isRoot } from './runtime-directory.ts'

export type { HolderRecord } from './holder-record.ts'
export { regionKey } from './region.ts'
export { findSocket, socketPath } from './runtime-directory.ts'

const { EBUSY } = constants.errno

/**
 * How long a lock without a record is waited for: a look (isHeld) holds it for microseconds, a
 * claim writes its record a moment after it, a release removes its record first.
 */
const PATIENCE_MS = 1000
const PAUSE_MS = 5

interface HeldRegion {
  readonly holder: Holder
  readonly lock: RegionLock
  readonly since: string
  /** Devices of this process that stand on the claim. */
  users: number
}

/** What this process holds, by region key. */
const held = new Map<string, HeldRegion>()

export class RegionClaim implements ClaimHooks {
  readonly #region: Region
  #taken = false

  constructor(region: Region) {
    this.#region = region
  }

  take(holder: Holder): void {
    if (this.#taken) return
    const { key, path } = this.#region
    const mine = held.get(key)
    if (mine === undefined) {
      const lock = takeLock(this.#region)
      const since = new Date().toISOString()
      try {
        writeRecord(key, makeRecord(path, holder, since))
      } catch (error) {
        lock.release()
        throw error
      }
      held.set(key, { holder, lock, since, users: 1 })
    } else {
      if (mine.holder !== holder) throw busy(path, makeRecord(path, mine.holder, mine.since))
      mine.users++
    }
    this.#taken = true
  }

  update(holder: Holder): void {
    const { key, path } = this.#region
    const mine = held.get(key)
    if (this.#taken && mine !== undefined) writeRecord(key, makeRecord(path, holder, mine.since))
  }

  release(): void {
    if (!this.#taken) return
    this.#taken = false
    const mine = held.get(this.#region.key)
    if (mine === undefined || --mine.users > 0) return
    held.delete(this.#region.key)
    // While we have the lock the record is ours; afterwards it may be the next holder's.
    try {
      removeRecord(this.#region.key)
    } finally {
      mine.lock.release()
    }
  }
}

/**
 * Who holds the region now, by its path or its key; undefined when nobody does or nobody can say
 * (a holder of another user leaves its record where only that user can read it).
 */
export function whoHolds(pathOrKey: string): HolderRecord | undefined {
  const key = keyFor(pathOrKey)
  if (key === undefined) return undefined
  const record = readRecord(key)
  if (record === undefined || held.has(key)) return record
  const path = isRegionKey(pathOrKey) ? record.path : pathOrKey
  return probeLock(path, key) === false ? undefined : record
}

/** True while any process, this one included, holds the region. Takes nothing, breaks nothing. */
export function isHeld(path: string): boolean {
  const key = keyFor(path)
  if (key === undefined) return false
  if (held.has(key)) return true
  return probeLock(path, key) ?? readRecord(key) !== undefined
}

function keyFor(pathOrKey: string): string | undefined {
  if (isRegionKey(pathOrKey)) return pathOrKey
  try {
    return regionKey(pathOrKey)
  } catch (error) {
    if (error instanceof DaxError) return undefined
    throw error
  }
}

function takeLock(region: Region): RegionLock {
  const deadline = performance.now() + PATIENCE_MS
  for (;;) {
    const lock = RegionLock.tryTake(region)
    if (lock !== undefined) return verified(region, lock)
    const record = readRecord(region.key) ?? overlappingRecord(region.key)
    if (record !== undefined || performance.now() >= deadline) throw busy(region.path, record)
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, PAUSE_MS)
  }
}

function verified(region: Region, lock: RegionLock): RegionLock {
  try {
    region.verify?.()
    return lock
  } catch (error) {
    lock.release()
    throw error
  }
}

function busy(path: string, record: HolderRecord | undefined): DaxError {
  if (record === undefined) {
    const who = isRoot()
      ? `\`lsof ${path}\` names it`
      : 'ask root: holdfast status, or lsof on the region'
    return new DaxError(
      EBUSY,
      `${path} is in use by a process that left no record we may read; ${who}`,
    )
  }
  const advice =
    record.purpose !== 'mount'
      ? 'wait until it has finished'
      : `unmount it first (holdfast umount ${record.mountpoint ?? path})`
  return new DaxError(EBUSY, `${path} is in use: ${describeRecord(record)}; ${advice}`)
}
