/** Makes a region of instances in a file. */
import { unlinkSync } from 'node:fs'
import { formatRegion } from '../src/bus/region-copies.ts'
import { newRegion } from '../src/bus/region-state.ts'
import { fsPutDax } from '../src/dax/holder.ts'
import { eraseFilesystem } from './mapped.ts'
import { openTarget, type TargetOptions } from './target.ts'

export interface RegionOptions extends TargetOptions {
  /** Bytes: how the devices of the region must be aligned. */
  readonly align: number
  readonly isStatic: boolean
}

/** Every refusal comes before the first change. */
export function createRegion(path: string, options: RegionOptions): void {
  const target = openTarget(path, options, ({ size }) => void newRegion(size, options))
  const { device, holder } = target
  try {
    const state = newRegion(device.size, options)
    eraseFilesystem(device.memory)
    formatRegion(device.memory, state)
  } catch (error) {
    if (target.created) unlinkSync(path)
    throw error
  } finally {
    fsPutDax(device, holder)
    device.close()
  }
}
