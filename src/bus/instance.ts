/** Opening one instance of a region that lies in a file. */
import { closeSync } from 'node:fs'
import { constants } from 'node:os'
import { DaxError } from '../dax/errors.ts'
import { MappedMemory } from '../dax/mapped-memory.ts'
import { type InstanceName, instanceLock, instanceName } from '../dax/name.ts'
import { openRegion, type Region } from '../dax/region.ts'
import { loadRegion } from './region-copies.ts'
import { type Instance, sizeOf } from './region-state.ts'
import { instanceOf } from './verbs.ts'

const { ENODEV, EOPNOTSUPP } = constants.errno

/** The instance as a region of its own; nobody need have it enabled only to look at it. */
export function openInstance(path: string, wanted: InstanceName, readOnly: boolean): Region {
  const file = openRegion(path, readOnly)
  try {
    const name = `${path}#${instanceName(wanted)}`
    const instance = readInstance(file, wanted)
    const size = sizeOf(instance)
    if (size === 0) {
      const remedy = `holdfast region resize '${name}' SIZE, then region enable`
      throw new DaxError(EOPNOTSUPP, `${name} has no memory and is not enabled: ${remedy}`)
    }
    return {
      ...file,
      path: name,
      name: instanceName(wanted),
      size,
      align: Math.max(instance.align, file.align),
      key: `${file.key}-${instanceName(wanted)}`,
      pieces: instance.ranges.map((range) => ({ fd: file.fd, ...range })),
      locks: [instanceLock(wanted.id), ...instance.ranges],
      enabled: instance.enabled,
      verify: () => requireUnchanged(name, instance, readInstance(file, wanted)),
    }
  } catch (error) {
    closeSync(file.fd)
    throw error
  }
}

function readInstance(file: Region, wanted: InstanceName): Instance {
  const memory = new MappedMemory({ ...file, readOnly: true })
  try {
    const { state } = loadRegion(memory)
    if (state.id !== wanted.region) {
      const sentence = `${file.path} is region ${state.id}: name its instances dax${state.id}.0 ...`
      throw new DaxError(ENODEV, sentence)
    }
    return instanceOf(state, wanted.id, ENODEV)
  } finally {
    memory.close()
  }
}

/** A command may have changed it between our look at it and our claim. */
function requireUnchanged(name: string, before: Instance, now: Instance): void {
  if (JSON.stringify(before) === JSON.stringify(now)) return
  throw new DaxError(ENODEV, `${name} was changed while it was being opened: try again`)
}
