/** What mkfs may write to: every refusal comes before the first change. */
import {
  accessSync,
  closeSync,
  constants,
  fchmodSync,
  ftruncateSync,
  openSync,
  readSync,
  type Stats,
  statSync,
  truncateSync,
  unlinkSync,
} from 'node:fs'
import { isTarget } from '../src/bus/label.ts'
import { openByName } from '../src/bus/open.ts'
import { isRegion } from '../src/bus/region-copies.ts'
import { CliError } from '../src/cli/errors.ts'
import { formatSize } from '../src/cli/sizes.ts'
import { BadRanges } from '../src/dax/bad-ranges.ts'
import type { DaxDevice } from '../src/dax/device.ts'
import { fsDaxGet, type Holder } from '../src/dax/holder.ts'
import { MemoryFailure, PAGE_SIZE } from '../src/dax/memory.ts'
import { parseName, targetsOf } from '../src/dax/name.ts'
import { refuseMissingDevice } from '../src/dax/region.ts'
import { BLOCK_SIZE, geometryFor, MIN_REGION_SIZE } from '../src/media/geometry.ts'
import { superblockCodec } from '../src/media/superblock-codec.ts'
import { SUPERBLOCK_MAGIC } from '../src/media/superblock-layout.ts'
import { requireUsable } from './bad-memory.ts'
import { askBlkid, findSignature, type ReadAt } from './signatures.ts'

export interface TargetOptions {
  /** Bytes, as given with --size. */
  readonly size: number | undefined
  readonly force: boolean
  /** Opens what is there already; tests open memory that is bad. */
  readonly open?: (path: string) => DaxDevice
}

/** What may be written to, while it is still as it was. */
export interface Candidate {
  /** Bytes that it will have. */
  readonly size: number
  readonly align: number
  /** Below that size. What a file gets anew is not known to be bad. */
  readonly badRanges: BadRanges
  /** It will be made. */
  readonly isNew: boolean
  /** Makes the file, or gives it its size. The caller closes the device. */
  take(): Target
  /** Instead of take(), or after one that failed. */
  leave(): void
}

export interface Target {
  readonly device: DaxDevice
  readonly holder: Holder
  /** True when mkfs made the file. */
  readonly created: boolean
}

/**
 * Opens and claims the region, made or resized if --size says so; `check` refuses it before that.
 * The caller closes the device.
 */
export function openTarget(
  path: string,
  options: TargetOptions,
  check: (candidate: Candidate) => void = requireMemory,
): Target {
  const candidate = findTarget(path, options)
  try {
    check(candidate)
  } catch (error) {
    candidate.leave()
    throw error
  }
  return candidate.take()
}

/** A filesystem is to be made there. */
function requireMemory({ size, badRanges }: Candidate): void {
  requireUsable(size, badRanges.list())
}

/** Claims what is there, and changes nothing. */
export function findTarget(path: string, options: TargetOptions): Candidate {
  const made = parseName(path).instance !== undefined || targetsOf(path).length > 1
  if (made) return presentNode(path, options)
  const found = statSync(path, { throwIfNoEntry: false })
  if (found === undefined) {
    refuseMissingDevice(path)
    return newFile(path, options)
  }
  requireKind(path, found)
  return found.isFile() ? presentFile(path, found.size, options) : presentNode(path, options)
}

function requireKind(path: string, found: Stats): void {
  const instead = 'give a file, or a device-dax node such as /dev/dax0.0'
  if (found.isDirectory()) throw new CliError(`${path} is a directory: ${instead}`)
  if (found.isBlockDevice()) {
    throw new CliError(`${path} is a block device, not memory: ${instead}`)
  }
  if (!found.isFile() && !found.isCharacterDevice()) {
    throw new CliError(`${path} is neither a file nor a device: ${instead}`)
  }
}

function requireSize(path: string, size: number, advice: string): void {
  if (size >= MIN_REGION_SIZE) return
  const minimum = formatSize(MIN_REGION_SIZE).replace('.0', '')
  throw new CliError(
    `${path}: ${formatSize(size)} is too small, the minimum is ${minimum}${advice}`,
  )
}

function newFile(path: string, { size }: TargetOptions): Candidate {
  if (size === undefined) {
    throw new CliError(`${path} does not exist: give its size, for example --size 1G`)
  }
  requireSize(path, size, '')
  return {
    ...fileOf(size),
    badRanges: new BadRanges(),
    isNew: true,
    take: () => createFile(path, size),
    leave() {},
  }
}

/** Whole pages of a file can be mapped. */
function fileOf(size: number): Pick<Candidate, 'size' | 'align'> {
  return { size: size - (size % PAGE_SIZE), align: PAGE_SIZE }
}

function createFile(path: string, size: number): Target {
  const fd = openSync(path, 'wx', 0o600)
  try {
    // The umask may have taken the owner's bits away.
    fchmodSync(fd, 0o600)
    ftruncateSync(fd, size)
    return { ...claim(path), created: true }
  } catch (error) {
    unlinkSync(path)
    throw error
  } finally {
    closeSync(fd)
  }
}

function presentFile(path: string, present: number, options: TargetOptions): Candidate {
  const wanted = options.size ?? present
  requireSize(path, wanted, ': give more with --size')
  if (wanted < present && !options.force) {
    const sizes = `${formatSize(wanted)}, it has ${formatSize(present)}`
    throw new CliError(
      `${path}: will not shrink the file to ${sizes}: use --force if that is right`,
    )
  }
  // An empty file cannot be mapped, and there is nothing in it to protect.
  if (present === 0) return emptyFile(path, wanted)
  const target = claim(path, options.open)
  return guarded(target, ({ device }) => {
    const read = readerOf(device.region!.fd)
    if (!options.force) refuseContents(path, target, read, true)
    return {
      ...fileOf(wanted),
      badRanges: below(wanted, device),
      isNew: false,
      take: () => (wanted === present ? target : guarded(target, () => resize(target, wanted))),
      leave: () => device.close(),
    }
  })
}

function emptyFile(path: string, size: number): Candidate {
  accessSync(path, constants.R_OK | constants.W_OK)
  return {
    ...fileOf(size),
    badRanges: new BadRanges(),
    isNew: false,
    take() {
      truncateSync(path, size)
      return claim(path)
    },
    leave() {},
  }
}

/** The claim is not let go of in between: nobody's mount loses its memory. */
function resize({ device, holder }: Target, size: number): Target {
  ftruncateSync(device.region!.fd, size)
  const resized = claim(device.path, openWhole, holder)
  device.close()
  return resized
}

function below(size: number, { badRanges }: DaxDevice): BadRanges {
  const found = new BadRanges()
  for (const { offset, length } of badRanges.within(0, size)) found.add(offset, length)
  return found
}

function presentNode(path: string, options: TargetOptions): Candidate {
  const target = claim(path, options.open)
  return guarded(target, ({ device }) => {
    const { size, align, memory, badRanges } = device
    if (options.size !== undefined && options.size !== size) {
      const sentence = `${path} has ${formatSize(size)}: --size is for files, leave it out`
      throw new CliError(sentence)
    }
    requireSize(path, size, '')
    const read: ReadAt = (offset, length) => {
      const bytes = new Uint8Array(length)
      memory.read(offset, bytes, 0, length)
      return bytes
    }
    if (!options.force) refuseContents(path, target, read, false)
    const whole = { size, align, badRanges, isNew: false }
    return { ...whole, take: () => target, leave: () => device.close() }
  })
}

function openWhole(path: string): DaxDevice {
  return openByName(path, { whole: true })
}

function claim(path: string, open = openWhole, holder: Holder = { purpose: 'mkfs' }): Target {
  const device = open(path)
  return guarded({ device, holder, created: false }, (target) => {
    fsDaxGet(device, holder)
    return target
  })
}

/** Closes the device, and with it the claim, when `body` refuses. */
function guarded<T>(target: Target, body: (target: Target) => T): T {
  try {
    return body(target)
  } catch (error) {
    target.device.close()
    throw error
  }
}

function readerOf(fd: number): ReadAt {
  return (offset, length) => {
    const bytes = new Uint8Array(length)
    readSync(fd, bytes, 0, length, offset)
    return bytes
  }
}

function refuseContents(path: string, { device }: Target, read: ReadAt, isFile: boolean): void {
  const { memory, size } = device
  const found =
    (isRegion(memory) ? 'a region of instances' : undefined) ??
    (isTarget(memory) ? 'a target of a mapped device' : undefined) ??
    holdfastIn(read, size) ??
    tolerant(() => findSignature(read, size)) ??
    (isFile ? askBlkid(path) : undefined)
  if (found === undefined) return
  throw new CliError(`${path} holds ${found}: use --force to destroy it`)
}

/** Our own magic in either copy is enough: a damaged filesystem is still somebody's. */
function holdfastIn(read: ReadAt, size: number): string | undefined {
  const magic = Buffer.from(SUPERBLOCK_MAGIC, 'latin1')
  const places = [0]
  if (size >= MIN_REGION_SIZE) places.push(geometryFor(size).backup)
  for (const place of places) {
    if (place + BLOCK_SIZE > size) continue
    const at = place + superblockCodec.offsets.magic!
    const bytes = tolerant(() => read(at, magic.length))
    if (bytes !== undefined && magic.equals(bytes)) return 'a holdfast filesystem'
  }
  return undefined
}

/** Memory that cannot be read shows no signature. */
function tolerant<T>(body: () => T): T | undefined {
  try {
    return body()
  } catch (error) {
    if (error instanceof MemoryFailure) return undefined
    throw error
  }
}
