/** What kind of memory a region that somebody names is. */
import { statSync } from 'node:fs'
import { parseName, targetsOf } from '../../src/dax/name.ts'

/** A node of device-dax, an instance in one, or a mapped device over nothing else. */
export function isDeviceDax(name: string): boolean {
  return targetsOf(name).every((target) => {
    const { path } = parseName(target)
    return statSync(path, { throwIfNoEntry: false })?.isCharacterDevice() ?? false
  })
}
