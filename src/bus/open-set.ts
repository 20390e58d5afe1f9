/** Opens a mapped device by the names of its targets, and says which of them are not right. */
import { readFileSync } from 'node:fs'
import { constants } from 'node:os'
import { type DaxDevice, deviceOver } from '../dax/device.ts'
import { DaxError } from '../dax/errors.ts'
import { type FilePiece, MappedMemory } from '../dax/mapped-memory.ts'
import type { Memory } from '../dax/memory.ts'
import { type Region, setKey } from '../dax/region.ts'
import { labelOrError, type TargetLabel } from './label.ts'
import { makeMappedDevice } from './mapped-device.ts'
import { mappedSize, toTargets } from './translate.ts'

const { EINVAL, ENODEV, ENOMEM } = constants.errno

/** Left for everything else that a process maps. */
const SPARE_MAPPINGS = 4096

/** `open` opens one target by its name. */
export function openSet(names: readonly string[], open: (name: string) => Region): DaxDevice {
  const regions: Region[] = []
  const targets: DaxDevice[] = []
  try {
    for (const name of names) {
      const region = open(name)
      // From here on the device closes what the region opened.
      targets.push(deviceOver(region))
      regions.push(region)
    }
    const labels = checkTargets(regions, targets)
    const path = regions.map((region) => region.path).join(',')
    const key = setKey(regions[0]!.key)
    return makeMappedDevice({ path, key, targets, labels, memory: mapSet(path, regions, labels) })
  } catch (error) {
    for (const target of targets) target.close()
    throw error
  }
}

/** The labels, in order, when these are all targets of one mapped device, each in its place. */
function checkTargets(regions: readonly Region[], targets: readonly DaxDevice[]): TargetLabel[] {
  requireAlike(regions)
  const found = targets.map((target) => labelOrError(target.memory))
  const first = found.find((label): label is TargetLabel => !(label instanceof Error))
  if (first === undefined) {
    const sentence = `${regions[0]!.path}: ${(found[0] as Error).message}`
    throw new DaxError(EINVAL, `these are no targets of a mapped device: ${sentence}`)
  }
  const mine = found.map((label) =>
    label instanceof Error || label.set !== first.set ? undefined : label,
  )
  const strangers = found.flatMap((label, at) => describeStranger(regions[at]!.path, label, first))
  const missing = first.targets.flatMap(({ uuid }, position) =>
    mine.some((label) => label?.position === position)
      ? []
      : [`target ${position} (uuid ${uuid}) is missing`],
  )
  if (strangers.length + missing.length > 0) {
    const problems = [...missing, ...strangers].join('; ')
    throw new DaxError(ENODEV, `mapped device ${first.set}: ${problems}`)
  }
  const labels = mine as TargetLabel[]
  requireOrder(regions, labels)
  return labels
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
