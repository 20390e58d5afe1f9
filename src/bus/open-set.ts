/** Opens a mapped device by the names of its targets, and says which of them are not right. */
import { readFileSync } from 'node:fs'
import { constants } from 'node:os'
import { type DaxDevice, deviceOver } from '../dax/device.ts'
import { DaxError } from '../dax/errors.ts'
import { type FilePiece, MappedMemory } from '../dax/mapped-memory.ts'
import { type Memory, MemoryFailure } from '../dax/memory.ts'
import { type Region, setKey } from '../dax/region.ts'
import { MediaError } from '../media/errors.ts'
import { UNIT_SIZE } from '../media/geometry.ts'
import { labelOrError, type TargetLabel } from './label.ts'
import { makeMappedDevice } from './mapped-device.ts'
import { mappedSize, toTargets } from './translate.ts'

const { EINVAL, ENODEV, ENOMEM } = constants.errno

/** Left for everything else that a process maps. */
const SPARE_MAPPINGS = 4096

const REMEDY =
  'name every target in its place, by the path where it is now, and make nothing new there, ' +
  'for that has none of its data'

interface Opened {
  readonly region: Region
  readonly device: DaxDevice
}

/** A name that leads to no memory. */
interface Unopened {
  readonly name: string
  /** Its place among the names. */
  readonly at: number
  readonly error: Error
}

/** `open` opens one target by its name. */
export function openSet(names: readonly string[], open: (name: string) => Region): DaxDevice {
  const opened: Opened[] = []
  const unopened: Unopened[] = []
  try {
    names.forEach((name, at) => {
      const result = tryToOpen(name, open)
      if (result instanceof Error) unopened.push({ name, at, error: result })
      else opened.push(result)
    })
    const regions = opened.map(({ region }) => region)
    const targets = opened.map(({ device }) => device)
    const labels = checkTargets(opened, unopened)
    const path = regions.map((region) => region.path).join(',')
    const key = setKey(regions[0]!.key)
    return makeMappedDevice({ path, key, targets, labels, memory: mapSet(path, regions, labels) })
  } catch (error) {
    for (const { device } of opened) device.close()
    throw error
  }
}

/** The others may still say what is missing, so an error is kept; whatever is no such is thrown. */
function tryToOpen(name: string, open: (name: string) => Region): Opened | Error {
  try {
    const region = open(name)
    // From here on the device closes what the region opened.
    return { region, device: deviceOver(region) }
  } catch (error) {
    const known = [DaxError, MediaError, MemoryFailure].some((kind) => error instanceof kind)
    if (known) return error as Error
    throw error
  }
}

/** The labels, in order, when these are all targets of one mapped device, each in its place. */
function checkTargets(opened: readonly Opened[], unopened: readonly Unopened[]): TargetLabel[] {
  const regions = opened.map(({ region }) => region)
  const found = opened.map(({ device }) => labelOf(device))
  const first = found.find((label): label is TargetLabel => !(label instanceof Error))
  // Nothing here speaks of a mapped device: the memory that is not there is all there is to say.
  if (first === undefined && unopened.length > 0) throw unopened[0]!.error
  requireAlike(regions)
  if (first === undefined) {
    const sentence = `${regions[0]!.path}: ${(found[0] as Error).message}`
    throw new DaxError(EINVAL, `these are no targets of a mapped device: ${sentence}`)
  }
  const mine = found.filter(
    (label): label is TargetLabel => !(label instanceof Error) && label.set === first.set,
  )
  const problems = [
    ...describeMissing(first, mine, unopened),
    ...found.flatMap((label, at) => describeStranger(regions[at]!.path, label, first)),
  ]
  if (problems.length > 0) {
    const [cause] = unopened.map(({ error }) => error)
    const sentence = `mapped device ${first.set}: ${problems.join('; ')}: ${REMEDY}`
    throw new DaxError(errnoOf(cause), sentence, { cause })
  }
  requireOrder(regions, mine)
  return mine
}

/** Its own file may have been cut to less than the place of a label. */
function labelOf({ memory, size }: DaxDevice): TargetLabel | Error {
  if (size < UNIT_SIZE) return new Error(`${size} bytes have no place for a label`)
  return labelOrError(memory)
}

/** Which targets are not there, and what came of the names that lead to no memory. */
function describeMissing(
  { targets }: TargetLabel,
  mine: readonly TargetLabel[],
  unopened: readonly Unopened[],
): string[] {
  const isMissing = (at: number) => at < targets.length && !mine.some((l) => l.position === at)
  const missing = targets.flatMap(({ uuid }, position) => {
    if (!isMissing(position)) return []
    const sentence = `target ${position} (uuid ${uuid}) is missing`
    const named = unopened.find(({ at }) => at === position)
    return [named === undefined ? sentence : `${sentence}, ${reasonOf(named)}`]
  })
  const others = unopened.filter(({ at }) => !isMissing(at))
  return [...missing, ...others.map((one) => `${reasonOf(one)} (named as target ${one.at})`)]
}

/** Why it could not be opened, without the advice: that is for whoever wants a new region. */
function reasonOf({ name, error: { message } }: Unopened): string {
  const at = message.indexOf(name)
  const end = message.indexOf(': ', at === -1 ? 0 : at + name.length)
  // "cannot map FILE: ..." has its reason, not its advice, behind the colon.
  return end === -1 || message.startsWith('cannot ') ? message : message.slice(0, end)
}

/** To a mapped device a target of the wrong size is one that is not there. */
function errnoOf(cause: Error | undefined): number {
  return cause instanceof DaxError && cause.errno !== EINVAL ? cause.errno : ENODEV
}

function describeStranger(path: string, label: TargetLabel | Error, first: TargetLabel): string[] {
  if (label instanceof Error) return [`${path} is no target: ${label.message}`]
  if (label.set === first.set) return []
  const { uuid } = label.targets[label.position]!
  return [
    `${path} (uuid ${uuid}) is target ${label.position} of another mapped device, ${label.set}`,
  ]
}

function requireOrder(regions: readonly Region[], labels: readonly TargetLabel[]): void {
  const swapped = labels.flatMap((label, at) => {
    if (label.position === at) return []
    const { uuid } = label.targets[label.position]!
    return [`${regions[at]!.path} (uuid ${uuid}) is target ${label.position}, not ${at}`]
  })
  if (swapped.length === 0) return
  const order = labels.map((label, at) => ({ path: regions[at]!.path, at: label.position }))
  const right = order.sort((a, b) => a.at - b.at).map(({ path }) => path)
  const sentence = `mapped device ${labels[0]!.set}: ${swapped.join('; ')}`
  throw new DaxError(EINVAL, `${sentence}: name them in their order, ${right.join(',')}`)
}

function requireAlike(regions: readonly Region[]): void {
  regions.forEach(({ key, path, kind }, at) => {
    const same = regions.findIndex((region) => region.key === key)
    if (same !== at) throw new DaxError(EINVAL, `${path} is named twice`)
    if (kind === regions[0]!.kind) return
    const sentence = `${path} is a ${kind}, ${regions[0]!.path} is a ${regions[0]!.kind}`
    throw new DaxError(EINVAL, `${sentence}: all targets must be of one kind`)
  })
}

/** Maps the shares, chunk by chunk, into one range of addresses. */
function mapSet(path: string, regions: readonly Region[], labels: readonly TargetLabel[]): Memory {
  const [set] = labels as [TargetLabel]
  const size = mappedSize(set)
  const pieces = toTargets(set, 0, size).flatMap(({ target, offset, length }) =>
    piecesOf(regions[target]!, labels[target]!.start + offset, length),
  )
  requireMappings(path, pieces.length)
  const { fd, kind, readOnly } = regions[0]!
  return new MappedMemory({ fd, path, size, kind, readOnly, pieces })
}

/** Where the bytes of a target lie in its file: an instance has several ranges. */
function piecesOf({ fd, size, pieces }: Region, offset: number, length: number): FilePiece[] {
  const found: FilePiece[] = []
  let start = 0
  for (const piece of pieces ?? [{ fd, offset: 0, length: size }]) {
    const from = Math.max(offset, start)
    const to = Math.min(offset + length, start + piece.length)
    if (from < to)
      found.push({ fd: piece.fd, offset: piece.offset + from - start, length: to - from })
    start += piece.length
  }
  return found
}

/** Each chunk is a mapping of its own, and the kernel has a limit for these. */
export function requireMappings(path: string, count: number): void {
  const limit = Number(readFileSync('/proc/sys/vm/max_map_count', 'utf8'))
  if (count + SPARE_MAPPINGS <= limit) return
  const sentence = `${path} has ${count} chunks, each a mapping, and the kernel allows ${limit}`
  const remedy = `a larger --chunk, or sysctl vm.max_map_count=${count + 2 * SPARE_MAPPINGS}`
  throw new DaxError(ENOMEM, `${sentence}: ${remedy}`)
}
