/**
 * How this process learns of failed memory without having touched it: bus errors outside a guard
 * (early notices of poison) and the list of bad blocks. Both by device.
 */
import { native } from '../native/binding.ts'
import { Badblocks } from './badblocks.ts'
import type { DaxDevice } from './device.ts'
import { FailureReports, failedUnit } from './failure-reports.ts'
import { MF_ACTION_REQUIRED } from './holder.ts'
import { lookForRemoval } from './removal.ts'

const watched = new Map<number, FailureReports>()
let installed = false

/** Makes everything that is told of the memory of `dev` its memoryFailure; returns how to stop. */
export function watchBusErrors(dev: DaxDevice): () => void {
  const { mapId } = dev.memory
  if (mapId === undefined) return () => {}
  const badblocks = Badblocks.open(dev.key)
  const reports = new FailureReports(dev, badblocks)
  watched.set(mapId, reports)
  if (!installed) {
    native.onBusError(({ map, offset, length, actionRequired }) => {
      watched.get(map)?.unit({ offset, length }, actionRequired ? MF_ACTION_REQUIRED : 0)
    })
    installed = true
  }
  const unwatch = badblocks?.watch(() => reports.listed())
  return () => {
    unwatch?.()
    badblocks?.close()
    // The number of a mapping is used again once it is unmapped.
    if (watched.get(mapId) === reports) watched.delete(mapId)
  }
}

/** A guarded call failed at `offset` of a device, which did not refuse it by itself. */
export function touchFailed(dev: DaxDevice, offset: number, length: number): void {
  if (lookForRemoval(dev)) return
  const reports = dev.memory.mapId === undefined ? undefined : watched.get(dev.memory.mapId)
  if (reports === undefined) {
    dev.memoryFailure(offset, length)
    return
  }
  const unit = failedUnit(offset)
  reports.unit(unit.length > length ? unit : { offset, length }, MF_ACTION_REQUIRED)
}
