/**
 * Emulated memory faults: the pages of a range really fault in this process (SIGBUS on a load,
 * EFAULT from a system call) until the fault is withdrawn.
 */
import { native } from '../native/binding.ts'
import type { DaxDevice } from './device.ts'
import { DaxError } from './errors.ts'

const EOPNOTSUPP = 95

export function injectFault(device: DaxDevice, offset: number, length: number): string {
  const { mapId } = device.memory
  if (mapId === undefined) {
    throw new DaxError(EOPNOTSUPP, `${device.name} has no mapping that could fault`)
  }
  return native.poison(mapId, offset, length)
}

/** No error when nothing was injected. */
export function withdrawFault(device: DaxDevice, offset: number, length: number): void {
  const { mapId } = device.memory
  if (mapId !== undefined && device.kind === 'file') native.unpoison(mapId, offset, length)
}
