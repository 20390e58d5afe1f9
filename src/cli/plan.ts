/**
 * A mount as it was asked for, its paths made absolute, and what can be refused before any work.
 */
import { existsSync, readFileSync, statSync } from 'node:fs'
import { openByName } from '../bus/open.ts'
import { canonical, canonicalRegion } from '../control/target.ts'
import { parseName, targetsOf } from '../dax/name.ts'
import { refuseMissingDevice } from '../dax/region.ts'
import { isBelow } from './busy.ts'
import { CliError, codeOf, MOUNT_FAILED, MOUNT_USAGE, sentenceOf } from './errors.ts'
import type { MountOptions } from './options.ts'

export interface MountPlan {
  readonly region: string
  readonly mountpoint: string
  readonly options: MountOptions
}

export function makePlan(region: string, mountpoint: string, options: MountOptions): MountPlan {
  return { region: canonicalRegion(region), mountpoint: canonical(mountpoint), options }
}

/** Sentences for what would fail later, or hang: the daemon must never use its own mount. */
export function checkPlan({ region, mountpoint, options }: MountPlan): void {
  requireDirectory(mountpoint)
  const paths = targetsOf(region).map((target) => parseName(target).path)
  for (const missing of paths.filter((path) => !existsSync(path))) {
    if (paths.length > 1) requireTargets(region)
    refuseMissingDevice(missing)
    throw new CliError(
      `there is no region ${missing}: make one with mkfs.holdfast --size 1G ${missing}`,
      MOUNT_FAILED,
    )
  }
  for (const [name, path] of [
    ['log', options.log],
    ['index_dir', options.indexDir],
  ] as const) {
    if (path === undefined || !isBelow(canonical(path), mountpoint)) continue
    throw new CliError(
      `${name}=${path} would lie on the mount itself: put it elsewhere`,
      MOUNT_USAGE,
    )
  }
  if (options.indexDir !== undefined) requireDirectory(options.indexDir, 'index_dir')
  if (options.allowOther) requireAllowOther()
}

/** The targets that are there know which one is not; one that is made anew is none of them. */
function requireTargets(region: string): void {
  try {
    openByName(region, { readOnly: true }).close()
  } catch (error) {
    throw new CliError(sentenceOf(error), MOUNT_FAILED)
  }
}

function requireDirectory(path: string, what = 'mountpoint'): void {
  let directory: boolean
  try {
    directory = statSync(path).isDirectory()
  } catch (error) {
    if (codeOf(error) === 'ENOENT') {
      throw new CliError(`${what} ${path} does not exist: mkdir -p ${path}`, MOUNT_FAILED)
    }
    throw new CliError(`${what} ${path}: ${sentenceOf(error)}`, MOUNT_FAILED)
  }
  if (!directory) throw new CliError(`${what} ${path} is not a directory`, MOUNT_FAILED)
}

/** fusermount3 says no as well, but not where to change that. */
function requireAllowOther(): void {
  if (process.geteuid?.() === 0) return
  const path = '/etc/fuse.conf'
  const configuration = existsSync(path) ? readFileSync(path, 'utf8') : ''
  if (/^\s*user_allow_other\s*$/m.test(configuration)) return
  throw new CliError(
    'allow_other needs the line user_allow_other in /etc/fuse.conf, or root',
    MOUNT_FAILED,
  )
}
