/** Makes regions the targets of one mapped device. */
import { randomUUID } from 'node:crypto'
import { unlinkSync } from 'node:fs'
import { secondCopyFor } from '../src/bus/copies.ts'
import { eraseLabel, type SetLabel, storeLabel, type TargetShare } from '../src/bus/label.ts'
import { MAX_TARGETS, type SetKind } from '../src/bus/label-layout.ts'
import { requireMappings } from '../src/bus/open-set.ts'
import { eraseRegion } from '../src/bus/region-copies.ts'
import { fromTarget, mappedSize } from '../src/bus/translate.ts'
import { CliError } from '../src/cli/errors.ts'
import { formatSize } from '../src/cli/sizes.ts'
import { BadRanges } from '../src/dax/bad-ranges.ts'
import type { DaxDevice } from '../src/dax/device.ts'
import { fsPutDax } from '../src/dax/holder.ts'
import type { Memory } from '../src/dax/memory.ts'
import { geometryFor, UNIT_SIZE } from '../src/media/geometry.ts'
import { eraseSuperblocks } from '../src/media/superblock.ts'
import { requireUsable } from './bad-memory.ts'
import { type Candidate, findTarget, type Target, type TargetOptions } from './target.ts'

export interface SetOptions extends TargetOptions {
  readonly kind: SetKind
  /** Bytes; 0 for a linear device. */
  readonly chunk: number
}

export interface MadeSet {
  /** By which the mapped device is opened. */
  readonly name: string
  /** Takes the files away that were made. */
  undo(): void
}

/** Labels the regions. Every refusal comes before the first change of one that was there. */
export function makeSet(paths: readonly string[], options: SetOptions): MadeSet {
  if (paths.length > MAX_TARGETS) {
    throw new CliError(`a mapped device has at most ${MAX_TARGETS} targets, not ${paths.length}`)
  }
  const odd = paths.find((path) => path.includes(','))
  if (odd !== undefined) throw new CliError(`${odd}: names of targets may not have a comma in them`)
  const twice = paths.find((path, at) => paths.indexOf(path) !== at)
  if (twice !== undefined) throw new CliError(`${twice} is named twice: name different regions`)
  const candidates: Candidate[] = []
  const targets: Target[] = []
  const undo = () => {
    paths.forEach((path, at) => {
      if (targets[at]?.created) unlinkSync(path)
    })
  }
  try {
    for (const path of paths) candidates.push(findTarget(path, options))
    const plan = planSet(paths, candidates, options)
    // A file that was made can be taken away again.
    for (const isNew of [true, false]) {
      candidates.forEach((candidate, at) => {
        if (candidate.isNew === isNew) targets[at] = candidate.take()
      })
    }
    label(
      targets.map(({ device }) => device),
      plan,
    )
  } catch (error) {
    undo()
    throw error
  } finally {
    candidates.forEach((candidate, at) => {
      const target = targets[at]
      if (target === undefined) candidate.leave()
      else letGo(target)
    })
  }
  return { name: paths.join(','), undo }
}

function letGo({ device, holder }: Target): void {
  fsPutDax(device, holder)
  device.close()
}

interface Plan {
  readonly set: SetLabel
  /** Where the share of each target begins. */
  readonly start: number
}

function planSet(
  paths: readonly string[],
  candidates: readonly Candidate[],
  { kind, chunk }: SetOptions,
): Plan {
  const start = Math.max(UNIT_SIZE, ...candidates.map(({ align }) => align))
  if (kind === 'striped' && (chunk < start || chunk % start !== 0)) {
    throw new CliError(`--chunk must be a multiple of ${formatSize(start).replace('.0', '')}`)
  }
  const shares = sharesOf(paths, candidates, start, kind === 'striped' ? chunk : start)
  const smallest = Math.min(...shares)
  const chunks = kind === 'striped' ? (smallest / chunk) * shares.length : shares.length
  requireMappings(paths.join(','), chunks)
  const targets: TargetShare[] = shares.map((length) => {
    return { uuid: randomUUID(), length: kind === 'striped' ? smallest : length }
  })
  const set: SetLabel = { set: randomUUID(), kind, chunk, targets }
  requireUsableSet(set, candidates, start)
  return { set, start }
}

function label(devices: readonly DaxDevice[], { set, start }: Plan): void {
  for (const { memory } of devices) {
    eraseParts(memory)
    eraseFilesystem(memory)
  }
  devices.forEach(({ memory }, position) => {
    const place = { start, secondCopy: secondCopyFor(memory.size) }
    storeLabel(memory, { ...set, sequence: 1, position, ...place })
  })
}

/** A filesystem is made there next: what would refuse it then refuses the labels now. */
export function requireUsableSet(
  set: SetLabel,
  devices: readonly Pick<DaxDevice, 'badRanges'>[],
  start: number,
): void {
  const bad = new BadRanges()
  devices.forEach(({ badRanges }, target) => {
    for (const { offset, length } of badRanges.list()) {
      const from = Math.max(offset, start) - start
      const share = { target, offset: from, length: offset + length - start - from }
      for (const range of fromTarget(set, share)) bad.add(range.offset, range.length)
    }
  })
  requireUsable(mappedSize(set), bad.list())
}

/** What each target can give: what lies between the copies of its label, in whole pieces. */
function sharesOf(
  paths: readonly string[],
  candidates: readonly Candidate[],
  start: number,
  piece: number,
): number[] {
  return candidates.map(({ size }, at) => {
    const room = secondCopyFor(size) - start
    const share = room - (room % piece)
    if (share > 0) return share
    throw new CliError(`${paths[at]} is too small for a chunk of ${formatSize(piece)}`)
  })
}

/** What makes a memory a region of instances or a target of a mapped device. */
export function eraseParts(memory: Memory): void {
  eraseRegion(memory)
  eraseLabel(memory)
}

export function eraseFilesystem(memory: Memory): void {
  eraseSuperblocks(memory, geometryFor(memory.size))
}
