/** Opens memory by whatever name a person gives it. */
import { constants } from 'node:os'
import { type DaxDevice, deviceOver } from '../dax/device.ts'
import { DaxError } from '../dax/errors.ts'
import { parseName, targetsOf } from '../dax/name.ts'
import { openRegion, type Region } from '../dax/region.ts'
import { openInstance } from './instance.ts'
import { isTarget, labelOrError, type TargetLabel } from './label.ts'
import { openSet } from './open-set.ts'
import { isRegion } from './region-copies.ts'

const { EINVAL } = constants.errno

export interface OpenOptions {
  readonly readOnly?: boolean
  /** The whole memory, also when it is split into instances or one part of a mapped device. */
  readonly whole?: boolean
}

/** A file, a device-dax node, an instance (`FILE#dax0.1`), or targets (`a,b`). Takes no claim. */
export function openByName(name: string, options: OpenOptions = {}): DaxDevice {
  const readOnly = options.readOnly ?? false
  const targets = targetsOf(name)
  if (targets.length > 1) return openSet(targets, (target) => regionOf(target, readOnly))
  const device = deviceOver(regionOf(name, readOnly))
  try {
    if (!options.whole) refuseParts(name, device)
    return device
  } catch (error) {
    device.close()
    throw error
  }
}

export function regionOf(name: string, readOnly: boolean): Region {
  const { path, instance } = parseName(name)
  return instance === undefined
    ? openRegion(path, readOnly)
    : openInstance(path, instance, readOnly)
}

function refuseParts(name: string, { memory }: DaxDevice): void {
  if (isTarget(memory)) refuseTarget(name, labelOrError(memory))
  if (!isRegion(memory)) return
  const sentence = `${name} is a region of instances: name one of them, '${name}#dax0.0'`
  throw new DaxError(EINVAL, `${sentence} (holdfast region show ${name})`)
}

function refuseTarget(name: string, label: TargetLabel | Error): never {
  if (label instanceof Error) {
    throw new DaxError(EINVAL, `${name} is a target of a mapped device: ${label.message}`)
  }
  const { position, targets, set } = label
  const others = targets.flatMap(({ uuid }, at) => (at === position ? [] : [`${at} is ${uuid}`]))
  const sentence = `${name} is target ${position} of ${targets.length} of mapped device ${set}`
  const remedy = `name all of them in order, separated by commas (target ${others.join(', ')})`
  throw new DaxError(EINVAL, `${sentence}: ${remedy}`)
}
