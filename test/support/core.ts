/** A filesystem core over simulated memory, for tests that need no kernel. */
import { format } from '../../mkfs/format.ts'
import { type DaxDevice, openSimulated } from '../../src/dax/device.ts'
import { fsDaxGet, type Holder } from '../../src/dax/holder.ts'
import { SimulatedMemory } from '../../src/dax/simulated-memory.ts'
import { isNoSpace } from '../../src/fs/errors.ts'
import { Filesystem } from '../../src/fs/filesystem.ts'

export const silent = { info() {}, warn() {}, error() {} }

export interface Scratch {
  fs: Filesystem
  memory: SimulatedMemory
  device: DaxDevice
}

/** Formats and mounts `size` bytes of simulated memory. */
export function scratchFilesystem(size: number, mode: 'cacheline' | 'page'): Scratch {
  const memory = new SimulatedMemory(size, mode)
  format(memory, { label: 'test', uid: 0, gid: 0, now: 1_700_000_000 })
  const device = openSimulated(memory)
  return { fs: mountDevice(device), memory, device }
}

export function remount(memory: SimulatedMemory): Filesystem {
  return mountDevice(openSimulated(memory))
}

export function mountDevice(device: DaxDevice, holder: Holder = { purpose: 'mount' }): Filesystem {
  fsDaxGet(device, holder)
  return Filesystem.mount(device, {
    readOnly: false,
    commitSeconds: 1,
    onFailure: 'handles',
    logger: silent,
  })
}

/** Did it fail with ENOSPC? Any other error goes on. */
export function isFull(operation: () => unknown): boolean {
  try {
    operation()
    return false
  } catch (error) {
    if (isNoSpace(error)) return true
    throw error
  }
}
