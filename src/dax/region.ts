/**
 * What a path leads to: a plain file or a device-dax node, with its size, and its one true name.
 */
import {
  type BigIntStats,
  closeSync,
  constants as fsConstants,
  fstatSync,
  openSync,
  readFileSync,
  readlinkSync,
  statSync,
} from 'node:fs'
import { constants } from 'node:os'
import { basename } from 'node:path'
import type { ByteRange } from './bad-ranges.ts'
import { DaxError } from './errors.ts'
import type { FilePiece } from './mapped-memory.ts'
import { PAGE_SIZE } from './memory.ts'
import { type InstanceName, instanceName, parseName, targetsOf } from './name.ts'

const { EACCES, EINVAL, EISDIR, ENODEV, ENOENT, EOPNOTSUPP, EPERM, EROFS } = constants.errno

export interface Region {
  readonly fd: number
  readonly path: string
  readonly kind: 'file' | 'device-dax'
  readonly name: string
  /** Bytes that can be mapped: a multiple of align. */
  readonly size: number
  readonly align: number
  readonly readOnly: boolean
  /** The same whatever path or hard link leads to the region. */
  readonly key: string
  /** Where its bytes lie; undefined: in the open file, from its start. */
  readonly pieces?: readonly FilePiece[]
  /** The bytes of the open file that a claim locks; undefined: all. */
  readonly locks?: readonly ByteRange[]
  /** Called with the locks held: throws when it is not any more what was opened. */
  readonly verify?: () => void
  /** False: an instance of a region that no driver is bound to. */
  readonly enabled?: boolean
  /** Where its attributes are looked up; undefined: /sys. */
  readonly sysfs?: string
}

/** `sysfs` is where sysfs is mounted; tests put a made-up one there. */
export function openRegion(path: string, readOnly: boolean, sysfs = '/sys'): Region {
  const before = statRegion(path)
  refuseOtherTypes(path, before)
  // A device in the wrong mode is told as such, not as whatever open(2) makes of it.
  if (before.isCharacterDevice()) inspectDevice(path, before, sysfs)
  const fd = openPath(path, readOnly)
  try {
    // The path may lead elsewhere by now: from here on only the open file counts.
    const stats = fstatSync(fd, { bigint: true })
    refuseOtherTypes(path, stats)
    const common = { fd, path, readOnly, key: keyOf(stats), sysfs }
    if (stats.isFile()) {
      const size = fileSize(path, stats)
      return { ...common, kind: 'file', name: basename(path), size, align: PAGE_SIZE }
    }
    return { ...common, kind: 'device-dax', ...inspectDevice(path, stats, sysfs) }
  } catch (error) {
    closeSync(fd)
    throw error
  }
}

/** Names the region a name leads to, without opening it. */
export function regionKey(name: string): string {
  const [first = '', ...others] = targetsOf(name)
  const { path, instance } = parseName(first)
  const stats = statRegion(path)
  refuseOtherTypes(path, stats)
  const key = keyOf(stats, instance)
  return others.length === 0 ? key : setKey(key)
}

/** The key of a mapped device, by that of its first target. */
export function setKey(first: string): string {
  return `${first}-set`
}

export function keyOf(stats: BigIntStats, instance?: InstanceName): string {
  const suffix = instance === undefined ? '' : `-${instanceName(instance)}`
  if (!stats.isCharacterDevice()) return `file-${stats.dev.toString(16)}-${stats.ino}${suffix}`
  const { major, minor } = deviceNumber(stats.rdev)
  return `dax-${major}-${minor}${suffix}`
}

/** The key of the file or node that an instance lies in; every other key as it is. */
export function wholeKey(key: string): string {
  return key.replace(/-dax\d+\.\d+$/, '')
}

export function isRegionKey(text: string): boolean {
  return /^(?:file-[0-9a-f]+|dax-\d+)-\d+(?:-dax\d+\.\d+)?(?:-set)?$/.test(text)
}

function statRegion(path: string): BigIntStats {
  try {
    return statSync(path, { bigint: true })
  } catch (error) {
    throw openingError(path, error as NodeJS.ErrnoException, true)
  }
}

function openPath(path: string, readOnly: boolean): number {
  const { O_RDONLY, O_RDWR, O_NONBLOCK } = fsConstants
  try {
    return openSync(path, (readOnly ? O_RDONLY : O_RDWR) | O_NONBLOCK)
  } catch (error) {
    throw openingError(path, error as NodeJS.ErrnoException, readOnly)
  }
}

/** A device that is not there is no file to be made; throws nothing for other names. */
export function refuseMissingDevice(path: string): void {
  if (!/^\/dev\/dax\d+\.\d+$/.test(path)) return
  const sentence = `${path} is gone, or never was: daxctl list shows the devices there are`
  throw new DaxError(ENODEV, sentence)
}

function openingError(path: string, cause: NodeJS.ErrnoException, readOnly: boolean): DaxError {
  const errno = Math.abs(cause.errno ?? EINVAL)
  if (errno === ENOENT) refuseMissingDevice(path)
  const wish = readOnly ? 'read' : 'read and write'
  const advice = new Map([
    [ENOENT, `${path} does not exist: make a region first, for example truncate -s 1G ${path}`],
    [EACCES, `no permission to ${wish} ${path}: run as root, or have its owner grant it`],
    [EPERM, `not permitted to ${wish} ${path}: is it immutable (lsattr), or are you not root?`],
    [EROFS, `${path} is on a read-only filesystem: mount it read-only (-o ro) or remount that`],
  ])
  return new DaxError(errno, advice.get(errno) ?? `cannot open ${path}: ${cause.message}`, {
    cause,
  })
}

function refuseOtherTypes(path: string, stats: BigIntStats): void {
  if (stats.isFile() || stats.isCharacterDevice()) return
  if (stats.isDirectory()) {
    throw new DaxError(
      EISDIR,
      `${path} is a directory: name a file or a device such as /dev/dax0.0`,
    )
  }
  if (stats.isBlockDevice()) {
    throw new DaxError(
      EOPNOTSUPP,
      `${path} is a block device: holdfast needs the memory itself; for a namespace, run ` +
        'ndctl create-namespace -f -e NAMESPACE --mode=devdax and use its /dev/daxX.Y',
    )
  }
  throw new DaxError(EINVAL, `${path} is neither a plain file nor a DAX device`)
}

/** Whole pages only: what lies behind the end of a file in its last page is never stored. */
function fileSize(path: string, stats: BigIntStats): number {
  const size = Number(stats.size - (stats.size % BigInt(PAGE_SIZE)))
  if (size === 0) {
    throw new DaxError(EINVAL, `${path} is too small: give it a size, truncate -s 1G ${path}`)
  }
  if (!Number.isSafeInteger(size)) throw new DaxError(EINVAL, `${path} is too large`)
  return size
}

function inspectDevice(
  path: string,
  stats: BigIntStats,
  sysfs: string,
): { name: string; size: number; align: number } {
  const { major, minor } = deviceNumber(stats.rdev)
  const node = `${sysfs}/dev/char/${major}:${minor}`
  const name = linkName(node)
  if (name === undefined) {
    throw new DaxError(ENODEV, `${path} leads nowhere: there is no device ${major}:${minor} (now)`)
  }
  if (linkName(`${node}/subsystem`) !== 'dax') {
    throw new DaxError(EINVAL, `${path} is a character device, but not a DAX device`)
  }
  const driver = linkName(`${node}/driver`)
  if (driver === undefined) {
    throw new DaxError(
      ENODEV,
      `${path} has no driver: run daxctl enable-device ${name}, ` +
        `or daxctl reconfigure-device --mode=devdax ${name}`,
    )
  }
  if (driver !== 'device_dax') {
    throw new DaxError(
      EOPNOTSUPP,
      `${path} is in ${modeOf(driver)} mode (driver ${driver}), which cannot be mapped: ` +
        `run daxctl reconfigure-device --mode=devdax ${name}`,
    )
  }
  const align = attribute(node, 'align') ?? 2 << 20
  const size = attribute(node, 'size') ?? 0
  const mapped = size - (size % align)
  if (mapped === 0)
    throw new DaxError(ENODEV, `${path} has no memory: its size in sysfs is ${size}`)
  return { name, size: mapped, align }
}

function modeOf(driver: string): string {
  if (driver === 'kmem') return 'system-ram'
  return driver === 'fsdev_dax' ? 'fsdev' : 'another'
}

function linkName(link: string): string | undefined {
  try {
    return basename(readlinkSync(link))
  } catch {
    return undefined
  }
}

function attribute(node: string, name: string): number | undefined {
  try {
    const value = Number(readFileSync(`${node}/${name}`, 'utf8').trim())
    return Number.isSafeInteger(value) && value > 0 ? value : undefined
  } catch {
    return undefined
  }
}

/** The C library's packing of a device number. */
export function deviceNumber(rdev: bigint): { major: number; minor: number } {
  return {
    major: Number(((rdev >> 8n) & 0xfffn) | ((rdev >> 32n) & 0xfffff000n)),
    minor: Number((rdev & 0xffn) | ((rdev >> 12n) & 0xffffff00n)),
  }
}
