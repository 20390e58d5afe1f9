/** Regions of instances, and targets of mapped devices, in files, for tests. */
import { truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Test } from 'tap'
import { makeSet } from '../../mkfs/mapped.ts'
import { createRegion } from '../../mkfs/region.ts'
import { FileRegion } from '../../src/bus/file-region.ts'
import type { SetKind } from '../../src/bus/label-layout.ts'
import { DaxError } from '../../src/dax/errors.ts'
import { scratch } from './mounts.ts'

export const M = 1 << 20
export const SIZE = 256 * M
/** Without the unit at each end that holds the state. */
export const USABLE = SIZE - 4 * M

export function makeRegion(
  options: { align?: number; isStatic?: boolean; size?: number } = {},
): string {
  const path = join(scratch(), 'region')
  const { align = 2 * M, isStatic = false, size = SIZE } = options
  createRegion(path, { size, align, isStatic, force: false })
  return path
}

export function openRegionFile(t: Test, path = makeRegion()): FileRegion {
  const region = new FileRegion(path)
  t.teardown(() => region.close())
  return region
}

/** Fresh files, made into targets. */
export function makeTargets(kind: SetKind, sizes: readonly number[], chunk = 2 * M): string[] {
  const directory = scratch('memory')
  const paths = sizes.map((size, at) => {
    const path = join(directory, `target${at}`)
    writeFileSync(path, '')
    truncateSync(path, size)
    return path
  })
  const common = { size: undefined, force: false }
  makeSet(paths, { ...common, kind, chunk: kind === 'striped' ? chunk : 0 })
  return paths
}

/** The errno of what it throws, as its name. */
export function codeOf(body: () => unknown): string {
  try {
    body()
  } catch (error) {
    if (error instanceof DaxError) return error.code
    throw error
  }
  return 'none'
}
