/**
 * How a person names memory: a file or a node, an instance of a region that lies in a file
 * (`FILE#dax0.1`), or the targets of a mapped device, separated by commas.
 */
import { existsSync } from 'node:fs'
import type { ByteRange } from './bad-ranges.ts'

export interface RegionName {
  readonly path: string
  readonly instance?: InstanceName
}

/** dax0.1 is instance 1 of region 0. */
export interface InstanceName {
  readonly region: number
  readonly id: number
}

const INSTANCE = /^dax(0|[1-9]\d{0,8})\.(0|[1-9]\d{0,8})$/

/** What exists under the whole text is meant by it, whatever characters are in its name. */
export function parseName(text: string): RegionName {
  const hash = text.lastIndexOf('#')
  const instance = hash > 0 ? parseInstance(text.slice(hash + 1)) : undefined
  if (instance === undefined || existsSync(text)) return { path: text }
  return { path: text.slice(0, hash), instance }
}

/** Undefined for what is no name of an instance. */
export function parseInstance(text: string): InstanceName | undefined {
  const match = INSTANCE.exec(text)
  return match === null ? undefined : { region: Number(match[1]), id: Number(match[2]) }
}

export function instanceName({ region, id }: InstanceName): string {
  return `dax${region}.${id}`
}

/** The names of the targets; one for everything that is no mapped device. */
export function targetsOf(text: string): string[] {
  if (!text.includes(',') || existsSync(text)) return [text]
  return text.split(',').filter((name) => name !== '')
}

/** The same for every target, put together again. */
export function mapName(text: string, change: (path: string) => string): string {
  return targetsOf(text)
    .map((target) => {
      const { path, instance } = parseName(target)
      return instance === undefined ? change(path) : `${change(path)}#${instanceName(instance)}`
    })
    .join(',')
}

/** Bytes of a region file that commands on the region lock; no instance covers them. */
export const REGION_LOCK: ByteRange = { offset: 0, length: 4096 }

/** The byte that stands for an instance, so that nobody need know its ranges to see it held. */
export function instanceLock(id: number): ByteRange {
  return { offset: (1 << 20) + id, length: 1 }
}
