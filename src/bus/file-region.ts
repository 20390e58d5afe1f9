/** A region in a file (or in one device-dax node): its state lies in the region itself. */
import { closeSync, constants as fsConstants, openSync } from 'node:fs'
import { constants } from 'node:os'
import type { ByteRange } from '../dax/bad-ranges.ts'
import { whoHolds } from '../dax/claim.ts'
import { DaxError } from '../dax/errors.ts'
import { describeRecord } from '../dax/holder-record.ts'
import { MappedMemory } from '../dax/mapped-memory.ts'
import type { Memory } from '../dax/memory.ts'
import { instanceLock, REGION_LOCK } from '../dax/name.ts'
import { openRegion, type Region } from '../dax/region.ts'
import { native } from '../native/binding.ts'
import type { DaxRegion, RegionInfo } from './dax-region.ts'
import { loadRegion, storeRegion } from './region-copies.ts'
import { availableSize, type Instance, type RegionState, sizeOf } from './region-state.ts'
import * as verbs from './verbs.ts'

const { EBUSY } = constants.errno

/** Commands on one region wait for each other this long. */
const PATIENCE_MS = 10_000
/** Whoever only looks at a lock has it for microseconds. */
const GLANCE_MS = 100
const PAUSE_MS = 5

export class FileRegion implements DaxRegion {
  readonly #region: Region
  readonly #memory: Memory

  constructor(path: string, readOnly = false) {
    this.#region = openRegion(path, readOnly)
    try {
      this.#memory = new MappedMemory(this.#region)
    } catch (error) {
      closeSync(this.#region.fd)
      throw error
    }
  }

  /** The newest state; throws MediaError when there is none that can be believed. */
  state(): RegionState {
    return loadRegion(this.#memory).state
  }

  info(): RegionInfo {
    return infoOf(this.#region.path, this.state())
  }

  createDevice(): string {
    const state = this.#change(verbs.createDevice)
    return verbs.nameOf(state, state.youngest ?? 0)
  }

  resize(id: number, size: number): void {
    this.#change((state) => verbs.resize(state, id, size), id)
  }

  addMapping(id: number, { offset, length }: ByteRange): void {
    this.#change((state) => verbs.addMapping(state, id, offset, length), id)
  }

  setAlign(id: number, align: number): void {
    this.#change((state) => verbs.setAlign(state, id, align), id)
  }

  enable(id: number): void {
    this.#change((state) => verbs.enable(state, id))
  }

  disable(id: number): void {
    this.#change((state) => verbs.disable(state, id), id)
  }

  deleteDevice(id: number): void {
    this.#change((state) => verbs.deleteDevice(state, id), id)
  }

  close(): void {
    this.#memory.close()
    closeSync(this.#region.fd)
  }

  /**
   * One change of the state, no other in between. With `idle`, that instance must have no holder,
   * and gets none meanwhile: who claims it reads the state again once the claim is there.
   */
  #change(verb: (state: RegionState) => RegionState, idle?: number): RegionState {
    // Locks belong to an open file: a descriptor of its own lets go of all of them at once.
    const fd = openSync(`/proc/self/fd/${this.#region.fd}`, fsConstants.O_RDWR)
    try {
      this.#lock(fd, REGION_LOCK, PATIENCE_MS, () => 'a command on it takes too long')
      const { state, offsets } = loadRegion(this.#memory)
      const after = verb(state)
      if (idle !== undefined) {
        this.#lock(fd, instanceLock(idle), GLANCE_MS, () => this.#whoUses(state, idle))
      }
      if (after !== state) storeRegion(this.#memory, after, offsets)
      return after
    } finally {
      closeSync(fd)
    }
  }

  #lock(fd: number, range: ByteRange, patience: number, why: () => string): void {
    const deadline = performance.now() + patience
    while (!native.lockRange(fd, range.offset, range.length, true)) {
      if (performance.now() > deadline) {
        throw new DaxError(EBUSY, `${this.#region.path} is busy: ${this.#holder() ?? why()}`)
      }
      Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, PAUSE_MS)
    }
  }

  /** Somebody who has the whole file. */
  #holder(): string | undefined {
    const record = whoHolds(this.#region.path)
    return record === undefined ? undefined : describeRecord(record)
  }

  #whoUses(state: RegionState, id: number): string {
    const name = verbs.nameOf(state, id)
    const record = whoHolds(`${this.#region.path}#${name}`)
    return `${name} is in use${record === undefined ? '' : `, ${describeRecord(record)}`}`
  }
}

function infoOf(region: string, state: RegionState): RegionInfo {
  const named = (id: number | undefined) => (id === undefined ? null : verbs.nameOf(state, id))
  return {
    region,
    id: state.id,
    kind: 'file',
    static: state.isStatic,
    size: state.length,
    align: state.align,
    available_size: availableSize(state),
    seed: named(state.seed),
    youngest: named(state.youngest),
    devices: state.instances.map((instance) => ({
      name: verbs.nameOf(state, instance.id),
      size: sizeOf(instance),
      align: instance.align,
      enabled: instance.enabled,
      driver: instance.enabled ? 'holdfast' : null,
      mappings: mappingsOf(instance),
    })),
  }
}

function mappingsOf({ ranges }: Instance) {
  let page_offset = 0
  return ranges.map(({ offset, length }) => {
    const mapping = { page_offset, start: offset, length }
    page_offset += length / 4096
    return mapping
  })
}
