/**
 * What can be done to a region: the stores to its attributes in drivers/dax/bus.c, as functions
 * from one state to the next. They throw DaxError with the kernel's errno, in its order of checks.
 */
import { constants } from 'node:os'
import { DaxError } from '../dax/errors.ts'
import { instanceName } from '../dax/name.ts'
import { grow, request, shrink } from './ranges.ts'
import { MAX_INSTANCES, MAX_RANGES } from './region-layout.ts'
import {
  availableSize,
  granuleOf,
  type Instance,
  type RegionState,
  requireAlign,
  sizeOf,
} from './region-state.ts'

const { EACCES, EBUSY, EINVAL, ENODEV, ENOSPC, ENXIO } = constants.errno

/** create_store: a new instance without memory; the first one not yet enabled is the seed. */
export function createDevice(state: RegionState): RegionState {
  requireDynamic(state)
  if (availableSize(state) === 0) {
    throw new DaxError(ENOSPC, 'the region has no memory left for a new instance')
  }
  const taken = new Set(state.instances.map(({ id }) => id))
  let id = 0
  while (taken.has(id)) id++
  if (id >= MAX_INSTANCES) {
    throw new DaxError(ENOSPC, `a region has room for ${MAX_INSTANCES} instances: delete one`)
  }
  const made: Instance = { id, align: state.align, enabled: false, ranges: [] }
  const instances = [...state.instances, made].sort((a, b) => a.id - b.id)
  return next(state, { instances, youngest: id, seed: state.seed ?? id })
}

/** size_store: the instance gets more memory, in new ranges where it must, or gives some back. */
export function resize(state: RegionState, id: number, size: number): RegionState {
  const instance = instanceOf(state, id, ENXIO)
  const name = nameOf(state, id)
  // Nobody may write to the attribute: it is read-only.
  if (state.isStatic) throw new DaxError(EACCES, `${name} is static: its size cannot be changed`)
  const granule = granuleOf(instance)
  if (size % granule !== 0) {
    throw new DaxError(EINVAL, `the size of ${name} must be a multiple of ${granule} bytes`)
  }
  requireIdle(state, instance)
  const wanted = size - sizeOf(instance)
  const available = availableSize(state)
  if (wanted > available) {
    const sentence = `${name} would need ${wanted} bytes more, the region has ${available} left`
    throw new DaxError(ENOSPC, sentence)
  }
  if (wanted === 0) return state
  const ranges = wanted < 0 ? shrink(instance.ranges, -wanted) : grow(state, instance, wanted)
  return replace(state, { ...instance, ranges })
}

/** mapping_store: gives the instance these very bytes of the region, behind what it has. */
export function addMapping(
  state: RegionState,
  id: number,
  start: number,
  length: number,
): RegionState {
  const instance = instanceOf(state, id, ENXIO)
  const name = nameOf(state, id)
  if (state.isStatic) throw new DaxError(EINVAL, `${name} is static: it has the whole region`)
  // The kernel does not ask; memory that is in use would change its size.
  requireIdle(state, instance)
  const granule = granuleOf(instance)
  if (length <= 0 || length % granule !== 0 || start % granule !== 0) {
    throw new DaxError(ENXIO, `a range of ${name} must be in multiples of ${granule} bytes`)
  }
  const ranges = [...instance.ranges, request(state, { offset: start, length })]
  return replace(state, { ...instance, ranges })
}

/** align_store. */
export function setAlign(state: RegionState, id: number, align: number): RegionState {
  const instance = instanceOf(state, id, ENXIO)
  const name = nameOf(state, id)
  if (state.isStatic) throw new DaxError(EACCES, `${name} is static: its alignment is fixed`)
  requireAlign(align)
  requireIdle(state, instance)
  const granule = granuleOf({ align })
  if (instance.ranges.some(({ length }) => length % granule !== 0)) {
    throw new DaxError(EINVAL, `${name} has a range that is no multiple of ${granule} bytes`)
  }
  return replace(state, { ...instance, align })
}

/** Binding the driver, dax_bus_probe: the seed moves on once its probe has succeeded. */
export function enable(state: RegionState, id: number): RegionState {
  const instance = instanceOf(state, id, ENODEV)
  const name = nameOf(state, id)
  if (instance.enabled) throw new DaxError(EBUSY, `${name} is enabled already`)
  if (sizeOf(instance) === 0) {
    throw new DaxError(ENXIO, `${name} has no memory: give it some with holdfast region resize`)
  }
  const seed = state.seed === id ? undefined : state.seed
  return next(replace(state, { ...instance, enabled: true }), { seed })
}

/** Unbinding the driver. That nobody holds the instance is the caller's to see to. */
export function disable(state: RegionState, id: number): RegionState {
  const instance = instanceOf(state, id, ENODEV)
  if (!instance.enabled) throw new DaxError(ENODEV, `${nameOf(state, id)} is not enabled`)
  return replace(state, { ...instance, enabled: false })
}

/** delete_store. */
export function deleteDevice(state: RegionState, id: number): RegionState {
  requireDynamic(state)
  const instance = instanceOf(state, id, ENXIO)
  const name = nameOf(state, id)
  requireIdle(state, instance)
  if (sizeOf(instance) > 0) {
    throw new DaxError(EBUSY, `${name} still has memory: take it away, region resize ${name} 0`)
  }
  if (id === 0) throw new DaxError(EBUSY, `${name} always stays: a region has an instance 0`)
  const gone = (other: number | undefined) => (other === id ? undefined : other)
  const instances = state.instances.filter((other) => other.id !== id)
  return next(state, { instances, seed: gone(state.seed), youngest: gone(state.youngest) })
}

/** Throws DaxError with this errno for an instance that does not exist. */
export function instanceOf(state: RegionState, id: number, errno: number): Instance {
  const found = state.instances.find((instance) => instance.id === id)
  if (found !== undefined) return found
  throw new DaxError(errno, `the region has no instance ${nameOf(state, id)}`)
}

export function nameOf({ id: region }: RegionState, id: number): string {
  return instanceName({ region, id })
}

function requireDynamic(state: RegionState): void {
  if (!state.isStatic) return
  throw new DaxError(EINVAL, 'the region is static: it has one instance, which is all of it')
}

function requireIdle(state: RegionState, { id, enabled }: Instance): void {
  if (!enabled) return
  const name = nameOf(state, id)
  throw new DaxError(EBUSY, `${name} is enabled: disable it first, holdfast region disable`)
}

function replace(state: RegionState, changed: Instance): RegionState {
  const instances = state.instances.map((old) => (old.id === changed.id ? changed : old))
  const count = instances.reduce((sum, { ranges }) => sum + ranges.length, 0)
  if (count > MAX_RANGES) {
    throw new DaxError(ENOSPC, `the memory of the region is in too many pieces (${MAX_RANGES})`)
  }
  return next(state, { instances })
}

function next(state: RegionState, change: Partial<RegionState>): RegionState {
  return { ...state, ...change, sequence: state.sequence + 1 }
}
