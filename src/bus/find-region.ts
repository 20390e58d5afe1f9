/** From what a person types to a region: in a file, or of the kernel's dax bus. */
import { existsSync, statSync } from 'node:fs'
import { constants } from 'node:os'
import { basename } from 'node:path'
import { DaxError } from '../dax/errors.ts'
import { type InstanceName, parseInstance, parseName } from '../dax/name.ts'
import type { DaxRegion, RegionInfo } from './dax-region.ts'
import { FileRegion } from './file-region.ts'
import { SysfsRegion } from './sysfs-region.ts'

const { EINVAL } = constants.errno

/** A region in a file by its path; one of the kernel by its name (dax0), or by a device of it. */
export function openDaxRegion(text: string, readOnly = false, sysfs = '/sys'): DaxRegion {
  const id = existsSync(text) && !isNode(text) ? undefined : regionId(text)
  if (id !== undefined) return SysfsRegion.open(id, sysfs)
  const region = new FileRegion(text, readOnly)
  try {
    region.state()
    return region
  } catch (error) {
    region.close()
    const why = error instanceof Error ? error.message : String(error)
    const remedy = `holdfast region create ${text} makes it one`
    throw new DaxError(EINVAL, `${text} is no region of instances: ${why}; ${remedy}`)
  }
}

/** dax0, dax0.1, /dev/dax0.1: a region of the kernel's, and what belongs to it. */
function regionId(text: string): number | undefined {
  const name = basename(text)
  const match = /^dax(\d{1,9})$/.exec(name)
  return match === null ? parseInstance(name)?.region : Number(match[1])
}

function isNode(path: string): boolean {
  return statSync(path).isCharacterDevice()
}

/** The region of a device, and its place there; undefined for what is no device. */
export function splitDevice(text: string): { region: string; name: InstanceName } | undefined {
  const { path, instance } = parseName(text)
  if (instance !== undefined) return { region: path, name: instance }
  const name = parseInstance(basename(text))
  return name === undefined ? undefined : { region: `dax${name.region}`, name }
}

/** The kernel's regions first, then those in the files. */
export function listRegions(files: readonly string[], sysfs = '/sys'): RegionInfo[] {
  const regions: DaxRegion[] = SysfsRegion.all(sysfs)
  const found = regions.map((region) => region.info())
  for (const file of files) {
    const region = openDaxRegion(file, true, sysfs)
    try {
      found.push(region.info())
    } finally {
      region.close()
    }
  }
  return found
}
