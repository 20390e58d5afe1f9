/** Bus errors that reach this process outside a guard (early notices of poison), by device. */
import { native } from '../native/binding.ts'
import type { DaxDevice } from './device.ts'
import { MF_ACTION_REQUIRED } from './holder.ts'

const watched = new Map<number, DaxDevice>()
let installed = false

/** Makes every bus error in the mapping of `dev` a memoryFailure of it; returns how to stop. */
export function watchBusErrors(dev: DaxDevice): () => void {
  const { mapId } = dev.memory
  if (mapId === undefined) return () => {}
  watched.set(mapId, dev)
  if (!installed) {
    native.onBusError(({ map, offset, length, actionRequired }) => {
      watched.get(map)?.memoryFailure(offset, length, actionRequired ? MF_ACTION_REQUIRED : 0)
    })
    installed = true
  }
  return () => {
    // The number of a mapping is used again once it is unmapped.
    if (watched.get(mapId) === dev) watched.delete(mapId)
  }
}
