/**
 * What a person means by TARGET: a mountpoint (or a directory below it), a region by its path, or
 * a region by its key. Finds the region, who holds it, and the socket of its daemon.
 */
import { existsSync, lstatSync, readdirSync, readFileSync, realpathSync, statSync } from 'node:fs'
import { constants } from 'node:os'
import { basename, dirname, join, resolve } from 'node:path'
import { openByName } from '../bus/open.ts'
import { type HolderRecord, isHeld, whoHolds } from '../dax/claim.ts'
import { DaxError } from '../dax/errors.ts'
import { mapName, targetsOf } from '../dax/name.ts'
import { isRegionKey, regionKey } from '../dax/region.ts'
import {
  findSocket,
  isRoot,
  SYSTEM_DIRECTORY,
  trustedDirectories,
} from '../dax/runtime-directory.ts'
import { ControlClient } from './client.ts'
import { isHoldfast, type Mount, mountAt, mountOfDevice, readMounts } from './mountinfo.ts'
import { ControlError } from './protocol.ts'

const { ENODEV, ENOENT, ENOTCONN, EXDEV } = constants.errno

export interface Target {
  /** Path of the region. */
  readonly region: string
  readonly key: string
  /** Undefined when nobody has the region mounted, or nobody we may see. */
  readonly mount: Mount | undefined
  readonly holder: HolderRecord | undefined
  readonly socket: string | undefined
}

/** Throws DaxError or ControlError with a sentence when `text` leads to no region. */
export function resolveTarget(text: string): Target {
  const mounts = readMounts()
  if (isRegionKey(text) && !existsSync(text)) return byKey(text, mounts)
  const path = canonicalRegion(text)
  const mount = holdfastMountOf(path, mounts)
  if (mount !== undefined) return byMount(mount, mounts)
  const key = keyOf(path)
  return byRegion(path, key, whoHolds(path), mounts)
}

/** A mapped device is known by its first target; the others may still say which one is missing. */
function keyOf(path: string): string {
  try {
    return regionKey(path)
  } catch (error) {
    if (targetsOf(path).length > 1) openByName(path, { readOnly: true }).close()
    throw error
  }
}

/**
 * Absolute and free of links. realpath(3) reads links and touches nothing else, so it gets through
 * a mountpoint whose daemon is dead.
 */
export function canonical(text: string): string {
  const path = resolve(text)
  try {
    return realpathSync.native(path)
  } catch {
    try {
      return join(realpathSync.native(dirname(path)), basename(path))
    } catch {
      return path
    }
  }
}

/** The same for the name of a region, each path in it. */
export function canonicalRegion(text: string): string {
  return mapName(text, canonical)
}

function holdfastMountOf(path: string, mounts: readonly Mount[]): Mount | undefined {
  const exact = mountAt(path, mounts)
  if (exact !== undefined && isHoldfast(exact)) return exact
  const stats = statSync(path, { bigint: true, throwIfNoEntry: false })
  // A plain file on one of our mounts may be a region itself.
  if (stats === undefined || !stats.isDirectory()) return undefined
  const around = mountOfDevice(stats.dev, mounts)
  if (around !== undefined && isHoldfast(around)) return around
  throw new ControlError(
    ENODEV,
    `${path} is neither a holdfast mount nor a region: \`holdfast status\` lists your mounts`,
  )
}

function byKey(key: string, mounts: readonly Mount[]): Target {
  const holder = whoHolds(key)
  if (holder === undefined) throw new ControlError(ENOENT, `nobody holds region ${key}`)
  return byRegion(holder.path, key, holder, mounts)
}

function byRegion(
  region: string,
  key: string,
  holder: HolderRecord | undefined,
  mounts: readonly Mount[],
): Target {
  // A target of a mapped device: whoever holds that has the socket.
  if (holder?.through !== undefined) return byKey(holder.through, mounts)
  const mountpoint = holder?.purpose === 'mount' ? holder.mountpoint : undefined
  const found =
    mountpoint === undefined
      ? mounts.findLast((mount) => isHoldfast(mount) && mount.source === region)
      : mountAt(mountpoint, mounts)
  const mount = found !== undefined && isHoldfast(found) ? found : undefined
  if (holder === undefined && mount !== undefined) {
    return { region, key, mount, ...ofAnotherUser(key, mount) }
  }
  return { region, key, mount, holder, socket: findSocket(key) }
}

/** The source of a mount is a path of its time: it may have been renamed or replaced since. */
function byMount(mount: Mount, mounts: readonly Mount[]): Target {
  const keys = [keyOrUndefined(mount.source), ...heldKeys(trustedDirectories())]
  for (const key of keys) {
    if (key === undefined) continue
    const holder = whoHolds(key)
    if (holder?.mountpoint === undefined) continue
    // A bind mount has another mountpoint, but the device of the first.
    const original = mountAt(holder.mountpoint, mounts)
    if (original?.device !== mount.device) continue
    return { region: holder.path, key, mount, holder, socket: findSocket(key) }
  }
  const key = keys[0] ?? ''
  return { region: mount.source, key, mount, ...ofAnotherUser(key, mount) }
}

function keyOrUndefined(path: string): string | undefined {
  try {
    return regionKey(path)
  } catch (error) {
    if (error instanceof DaxError) return undefined
    throw error
  }
}

function heldKeys(directories: readonly string[]): string[] {
  return directories
    .flatMap((directory) => readdirSync(directory))
    .filter((name) => name.endsWith('.json'))
    .map((name) => name.slice(0, -'.json'.length))
    .filter(isRegionKey)
}

type Daemon = Pick<Target, 'holder' | 'socket'>

/** Root finds the daemons of other users, too: the mount says whose it is. */
function ofAnotherUser(key: string, mount: Mount): Daemon {
  const user = mount.options
    .find((option) => option.startsWith('user_id='))
    ?.slice('user_id='.length)
  const nobody = { holder: undefined, socket: undefined }
  if (!isRoot() || user === undefined || user === '0' || !isHeld(mount.source)) return nobody
  for (const directory of [`/run/user/${user}/holdfast`, `/tmp/holdfast-${user}`]) {
    const stats = lstatSync(directory, { throwIfNoEntry: false })
    if (stats === undefined || !stats.isDirectory() || `${stats.uid}` !== user) continue
    const holder = readHolder(join(directory, `${key}.json`))
    if (holder !== undefined) return { holder, socket: join(directory, `${key}.sock`) }
  }
  return nobody
}

/** The record is another user's: good enough to say who, and nothing more is made of it. */
function readHolder(path: string): HolderRecord | undefined {
  try {
    const record = JSON.parse(readFileSync(path, 'utf8')) as HolderRecord
    return record.purpose === 'mount' && Number.isSafeInteger(record.pid) ? record : undefined
  } catch {
    return undefined
  }
}

/** Every region that this user has mounted, or is mounting. */
export function ownTargets(): Target[] {
  const mounts = readMounts()
  const directories = trustedDirectories().filter((path) => isRoot() || path !== SYSTEM_DIRECTORY)
  const targets: Target[] = []
  for (const key of new Set(heldKeys(directories))) {
    const holder = whoHolds(key)
    if (holder?.purpose !== 'mount' || holder.through !== undefined) continue
    targets.push(byRegion(holder.path, key, holder, mounts))
  }
  return targets
}

/** Connects to the daemon of a mounted target. */
export async function connectTo(target: Target): Promise<ControlClient> {
  const { mount, holder, socket, region } = target
  if (mount === undefined && holder === undefined) {
    throw new ControlError(
      ENOTCONN,
      `${region} is not mounted: holdfast mount ${region} MOUNTPOINT`,
    )
  }
  const where = mount?.mountpoint ?? holder?.mountpoint ?? region
  if (socket === undefined) {
    if (mount !== undefined && holder === undefined) throw deadDaemon(where)
    throw new ControlError(ENOTCONN, `${where} has no control socket that you may use: try as root`)
  }
  try {
    return await ControlClient.connect(socket)
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException
    if (code === 'ECONNREFUSED' || code === 'ENOENT') throw deadDaemon(where)
    throw new ControlError(ENOTCONN, `cannot talk to the daemon of ${where}: ${message}`)
  }
}

function deadDaemon(where: string): ControlError {
  return new ControlError(
    ENOTCONN,
    `the daemon of ${where} is gone: mount it again (that cleans up), or holdfast umount ${where}`,
  )
}

/** A file on a mount: its daemon's target and its inode number. The daemon never sees the path. */
export function resolveFile(path: string): { target: Target; inode: number } {
  const stats = statSync(path, { bigint: true })
  const mounts = readMounts()
  const mount = mountOfDevice(stats.dev, mounts)
  if (mount === undefined || !isHoldfast(mount)) {
    throw new ControlError(EXDEV, `${path} is not on a holdfast mount`)
  }
  return { target: byMount(mount, mounts), inode: Number(stats.ino) }
}
