/**
 * How this process learns of failed memory without having touched it: bus errors outside a guard
 * (early notices of poison) and the list of bad blocks. Both by device.
 */
import { native } from '../native/binding.ts'
import type { ByteRange } from './bad-ranges.ts'
import { Badblocks } from './badblocks.ts'
import type { DaxDevice } from './device.ts'
import { FailureReports, failedUnit } from './failure-reports.ts'
import { MF_ACTION_REQUIRED } from './holder.ts'
import { lookForRemoval } from './removal.ts'

interface Watched {
  readonly device: DaxDevice
  readonly reports: FailureReports
}

/** By the number of the mapping. */
const watched = new Map<number, Watched>()
let installed = false

/** Makes everything that is told of the memory of `dev` its memoryFailure; returns how to stop. */
export function watchBusErrors(dev: DaxDevice): () => void {
  const { mapId } = dev.memory
  if (mapId === undefined) return () => {}
  const badblocks = Badblocks.of(dev.region, dev.memory)
  const reports = new FailureReports(dev, badblocks)
  watched.set(mapId, { device: dev, reports })
  if (!installed) {
    native.onBusError(({ map, offset, length, actionRequired }) => {
      const device = watched.get(map)?.device
      const flags = actionRequired ? MF_ACTION_REQUIRED : 0
      if (device !== undefined) unitFailed(device, { offset, length }, flags)
    })
    installed = true
  }
  const unwatch = badblocks && watchList(badblocks, () => reports.listed())
  return () => {
    unwatch?.()
    badblocks?.close()
    // The number of a mapping is used again once it is unmapped.
    if (watched.get(mapId)?.reports === reports) watched.delete(mapId)
  }
}

/** A list that cannot be waited for is still read when a signal comes. */
function watchList(badblocks: Badblocks, changed: () => void): () => void {
  try {
    return badblocks.watch(changed)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'EPERM') return () => {}
    throw error
  }
}

/** A guarded call failed at `offset` of a device, which did not refuse it by itself. */
export function touchFailed(dev: DaxDevice, offset: number, length: number): void {
  if (lookForRemoval(dev)) return
  if (reportsOf(dev) === undefined) {
    dev.memoryFailure(offset, length)
    return
  }
  const unit = failedUnit(offset)
  const range = unit.length > length ? unit : { offset, length }
  unitFailed(dev, range, MF_ACTION_REQUIRED, true)
}

/**
 * A unit of the memory of a device that the kernel named. Of a mapped device it is a target that
 * has failed: the list of that target narrows the unit down, and the failure comes up from there.
 */
export function unitFailed(dev: DaxDevice, unit: ByteRange, flags: number, touched = false): void {
  if (dev.below !== undefined && dev.holder !== undefined) {
    for (const { device, offset, length } of dev.below.parts(unit.offset, unit.length)) {
      unitFailed(device, { offset, length }, flags, touched)
    }
    return
  }
  const reports = reportsOf(dev)
  if (reports === undefined) dev.memoryFailure(unit.offset, unit.length, flags)
  else reports.unit(unit, flags, touched)
}

function reportsOf({ memory }: DaxDevice): FailureReports | undefined {
  return memory.mapId === undefined ? undefined : watched.get(memory.mapId)?.reports
}
