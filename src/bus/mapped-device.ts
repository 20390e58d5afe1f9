/**
 * Mapped devices: one memory over the shares of several targets. The mapped device is the holder of
 * every target. What fails in a target is told to it by that target, translated, and told to its
 * own holder, as deep as they are stacked.
 */
import { constants } from 'node:os'
import { watchBusErrors } from '../dax/bus-errors.ts'
import { DaxDevice, type LowerDevices, type LowerPart } from '../dax/device.ts'
import {
  type ClaimHooks,
  fsDaxGet,
  fsPutDax,
  type Holder,
  type HolderOperations,
  MF_MEM_PRE_REMOVE,
  notifyFailure,
  updateHolder,
} from '../dax/holder.ts'
import { makeRecord, removeRecord, writeRecord } from '../dax/holder-record.ts'
import type { Memory } from '../dax/memory.ts'
import type { TargetLabel } from './label.ts'
import { fromTarget, toTargets } from './translate.ts'

const { EOPNOTSUPP } = constants.errno

export interface MappedParts {
  /** The names of the targets, separated by commas. */
  readonly path: string
  readonly key: string
  /** In the order of their positions; the mapped device closes them. */
  readonly targets: readonly DaxDevice[]
  readonly labels: readonly TargetLabel[]
  /** The shares of the targets, mapped into one range of addresses. */
  readonly memory: Memory
}

export function makeMappedDevice(parts: MappedParts): DaxDevice {
  const { path, key, targets, memory } = parts
  const [first] = targets
  const claim = new SetClaim(parts)
  const device = new DaxDevice({
    name: `${parts.labels[0]!.kind}-${parts.labels[0]!.set}`,
    path,
    kind: first!.kind,
    align: Math.max(...targets.map(({ align }) => align)),
    readOnly: first!.readOnly,
    memory,
    key,
    claim,
    below: belowOf(parts, () => device),
    onClose: () => {
      for (const target of targets) target.close()
    },
  })
  claim.mapped = device
  for (const range of knownBad(parts)) device.badRanges.add(range.offset, range.length)
  return device
}

/** Failures that are told of the mapped device go down first: the targets refuse the memory, too. */
function belowOf({ targets, labels }: MappedParts, device: () => DaxDevice): LowerDevices {
  const [set] = labels as [TargetLabel]
  const parts = (offset: number, length: number): LowerPart[] => {
    let at = offset
    return toTargets(set, offset, length).map((part) => {
      const place = labels[part.target]!.start + part.offset
      const found = { device: targets[part.target]!, offset: place, length: part.length, at }
      at += part.length
      return found
    })
  }
  return {
    targets,
    parts,
    memoryFailure(offset, length, flags) {
      // Nobody holds the targets, so they tell nobody.
      if (device().holder === undefined) device().badRanges.add(offset, length)
      const answers = parts(offset, length).map((part) =>
        part.device.memoryFailure(part.offset, part.length, flags),
      )
      return worst(answers)
    },
    markHealed(offset, length) {
      for (const part of parts(offset, length)) part.device.markHealed(part.offset, part.length)
    },
  }
}

/** What the targets know to be bad when they are opened. */
function knownBad({ targets, labels }: MappedParts) {
  return targets.flatMap((target, at) => {
    const { start } = labels[at]!
    return target.badRanges
      .list()
      .flatMap(({ offset, length }) => translate(labels[at]!, offset - start, length))
  })
}

/** The part of [offset, offset + length) of a share that is in it, as the mapped device counts. */
function translate(label: TargetLabel, offset: number, length: number) {
  const from = Math.max(0, offset)
  return fromTarget(label, {
    target: label.position,
    offset: from,
    length: Math.max(0, offset + length - from),
  })
}

/** The claim on a mapped device is one on every target, and is known under a key of its own. */
class SetClaim implements ClaimHooks {
  mapped: DaxDevice | undefined
  readonly #parts: MappedParts
  readonly #since = new Date().toISOString()
  #own: Holder | undefined
  #unwatch: (() => void)[] = []
  #recorded = false

  constructor(parts: MappedParts) {
    this.#parts = parts
  }

  take(holder: Holder): void {
    const { targets, key } = this.#parts
    this.#own = { ...holder, through: key }
    try {
      targets.forEach((target, at) => {
        fsDaxGet(target, this.#own!, this.#operationsOf(at))
      })
      this.#record(holder)
      this.#unwatch = targets.map((target) => watchBusErrors(target))
    } catch (error) {
      this.release()
      throw error
    }
  }

  update(holder: Holder): void {
    if (this.#own === undefined) return
    for (const target of this.#parts.targets) updateHolder(target, holder.mountpoint ?? '')
    this.#record(holder)
  }

  release(): void {
    const own = this.#own
    if (own === undefined) return
    this.#own = undefined
    for (const unwatch of this.#unwatch.splice(0)) unwatch()
    // Before anything is claimed the record is somebody else's.
    if (this.#recorded) removeRecord(this.#parts.key)
    this.#recorded = false
    for (const target of this.#parts.targets) if (target.holder === own) fsPutDax(target, own)
  }

  #record(holder: Holder): void {
    const { key, path } = this.#parts
    writeRecord(key, makeRecord(path, holder, this.#since))
    this.#recorded = true
  }

  #operationsOf(at: number): HolderOperations {
    const label = this.#parts.labels[at]!
    return {
      notifyFailure: (_target, offset, length, flags) => {
        const mapped = this.mapped
        if (mapped === undefined) return -EOPNOTSUPP
        const ranges = translate(label, offset - label.start, length)
        // A failure in a label concerns nobody above: the other copy is still there.
        if (ranges.length === 0) return 0
        if ((flags & MF_MEM_PRE_REMOVE) !== 0) return removed(mapped, ranges, flags)
        return worst(ranges.map((range) => mapped.failed(range.offset, range.length, flags)))
      },
    }
  }
}

/**
 * A target goes away. That is told once, over all that lies between its first byte and its last: of
 * a stripe set nothing whole is left in between, and the first notice already shuts down.
 */
function removed(
  mapped: DaxDevice,
  ranges: readonly { offset: number; length: number }[],
  flags: number,
): number {
  const start = ranges[0]!.offset
  const last = ranges.at(-1)!
  return notifyFailure(mapped, start, last.offset + last.length - start, flags)
}

/** The first answer that is not 0. */
function worst(answers: readonly number[]): number {
  return answers.find((answer) => answer !== 0) ?? 0
}
