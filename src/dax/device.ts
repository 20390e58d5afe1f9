/** A DAX device: byte-addressable memory, its holder, and the ranges of it that are bad. */
import { closeSync } from 'node:fs'
import { constants } from 'node:os'
import { BadRanges, type ByteRange } from './bad-ranges.ts'
import { listedBad } from './badblocks.ts'
import { RegionClaim } from './claim.ts'
import { FencedMemory } from './fenced-memory.ts'
import {
  type ClaimHooks,
  type Holder,
  type HolderOperations,
  MF_ACTION_REQUIRED,
  notifyFailure,
} from './holder.ts'
import { MappedMemory } from './mapped-memory.ts'
import { type Memory, PAGE_SIZE } from './memory.ts'
import { openRegion, type Region } from './region.ts'

const { ENXIO } = constants.errno

export type DeviceKind = 'file' | 'device-dax' | 'simulated'

export interface DeviceOptions {
  readonly name: string
  readonly path: string
  readonly kind: DeviceKind
  readonly align: number
  readonly readOnly: boolean
  readonly memory: Memory
  /** Names the region itself, whatever path leads to it; undefined when only we can see it. */
  readonly key?: string
  readonly claim?: ClaimHooks
  /** Called once after the memory is closed. */
  readonly onClose?: () => void
  /** False while a bus instance is not bound to a driver that a filesystem can use. */
  readonly enabled?: boolean
  /** The devices this one is stacked on; they hear of a failure first and tell us theirs. */
  readonly below?: LowerDevices
  /** What the memory is mapped from; undefined when it has none of its own. */
  readonly region?: Region
}

/** Bytes of a device below. */
export interface LowerPart extends ByteRange {
  readonly device: DaxDevice
  /** Where they lie in the device above. */
  readonly at: number
}

export interface LowerDevices {
  readonly targets: readonly DaxDevice[]
  /** In which parts of which devices the range lies, in its own order. */
  parts(offset: number, length: number): LowerPart[]
  /** Tells every device below that has a part of the range; each calls back with failed(). */
  memoryFailure(offset: number, length: number, flags: number): number
  markHealed(offset: number, length: number): void
}

export class DaxDevice {
  readonly name: string
  readonly path: string
  readonly kind: DeviceKind
  /** Bytes. */
  readonly size: number
  /** Granularity of mapping, bytes. */
  readonly align: number
  readonly readOnly: boolean
  /** Refuses badRanges by itself: the kernel forgets poison on device-dax after one signal. */
  readonly memory: Memory
  readonly badRanges = new BadRanges()
  readonly key: string | undefined
  readonly claim: ClaimHooks | undefined
  alive = true
  /** False while a bus instance is not bound to a driver that a filesystem can use. */
  enabled: boolean
  holder: Holder | undefined
  holderOps: HolderOperations | undefined
  #closed = false
  readonly #onClose: (() => void) | undefined
  readonly below: LowerDevices | undefined
  readonly region: Region | undefined

  constructor(options: DeviceOptions) {
    this.name = options.name
    this.path = options.path
    this.kind = options.kind
    this.size = options.memory.size
    this.align = options.align
    this.readOnly = options.readOnly
    this.memory = new FencedMemory(options.memory, this.badRanges)
    this.key = options.key
    this.claim = options.claim
    this.enabled = options.enabled ?? true
    this.#onClose = options.onClose
    this.below = options.below
    this.region = options.region
  }

  /**
   * The entry of every failure report (pgmap->ops->memory_failure). The range is widened to whole
   * pages, cut to the device, remembered, and then told to the holder. Returns the holder's answer;
   * -ENXIO for a range outside the device.
   */
  memoryFailure(offset: number, length: number, flags: number = MF_ACTION_REQUIRED): number {
    const start = Math.max(0, offset - (offset % PAGE_SIZE))
    const end = Math.min(this.size, Math.ceil((offset + length) / PAGE_SIZE) * PAGE_SIZE)
    if (length <= 0 || start >= end) return -ENXIO
    if (this.below !== undefined) return this.below.memoryFailure(start, end - start, flags)
    return this.failed(start, end - start, flags)
  }

  /** Whole pages of this device have failed: remembered, then told. */
  failed(offset: number, length: number, flags: number): number {
    this.badRanges.add(offset, length)
    return notifyFailure(this, offset, length, flags)
  }

  /** The memory works again (cleared, or the injection was withdrawn). */
  markHealed(offset: number, length: number): void {
    this.badRanges.remove(offset, length)
    this.below?.markHealed(offset, length)
  }

  /** Releases the claim and the memory. A second close is no error. */
  close(): void {
    if (this.#closed) return
    this.#closed = true
    this.alive = false
    this.holder = undefined
    this.holderOps = undefined
    // The mapping goes first: whoever gets the claim next must not meet our stores.
    try {
      this.memory.close()
    } finally {
      this.claim?.release()
      this.#onClose?.()
    }
  }
}

/** Opens a region: a plain file, or a device-dax character device. Takes no claim. */
export function openDevice(path: string, options: { readOnly?: boolean } = {}): DaxDevice {
  return deviceOver(openRegion(path, options.readOnly ?? false))
}

/** The device of an open region, whose descriptor it takes over. */
export function deviceOver(region: Region): DaxDevice {
  try {
    const device = new DaxDevice({
      name: region.name,
      path: region.path,
      kind: region.kind,
      align: region.align,
      readOnly: region.readOnly,
      memory: new MappedMemory(region),
      key: region.key,
      claim: new RegionClaim(region),
      onClose: () => closeSync(region.fd),
      enabled: region.enabled ?? true,
      region,
    })
    // Whoever touches it first would be the one to find out.
    for (const { offset, length } of listedBad(region, device.memory)) {
      device.badRanges.add(offset, length)
    }
    return device
  } catch (error) {
    closeSync(region.fd)
    throw error
  }
}

/** A device over memory that only this process sees, for tests. */
export function openSimulated(memory: Memory, name = 'simulated'): DaxDevice {
  return new DaxDevice({
    name,
    path: name,
    kind: 'simulated',
    align: PAGE_SIZE,
    readOnly: false,
    memory,
  })
}
