/**
 * The holder of a device: who may use its memory, and who is told when memory fails. The order of
 * the checks and the return codes are those of drivers/dax/super.c.
 */
import { constants } from 'node:os'
import type { DaxDevice } from './device.ts'
import { DaxError } from './errors.ts'

const { EBUSY, ENODEV, ENXIO, EOPNOTSUPP } = constants.errno

/** Flags of a failure report, with the kernel's names and values (include/linux/mm.h). */
export const MF_COUNT_INCREASED = 1 << 0
/** The failing access is waiting for the answer (a machine check in the accessing thread). */
export const MF_ACTION_REQUIRED = 1 << 1
export const MF_MUST_KILL = 1 << 2
export const MF_SOFT_OFFLINE = 1 << 3
export const MF_UNPOISON = 1 << 4
/** The failure was injected; the memory itself is sound. */
export const MF_SW_SIMULATED = 1 << 5
export const MF_NO_RETRY = 1 << 6
/** The memory is about to be taken away; it is still readable now. */
export const MF_MEM_PRE_REMOVE = 1 << 7

export type Purpose = 'mount' | 'mkfs' | 'fsck'

/** Compared by identity: the same object is the same holder. */
export interface Holder {
  readonly purpose: Purpose
  mountpoint?: string
  /** Key of the mapped device that holds this one for somebody. */
  readonly through?: string
}

export interface HolderOperations {
  /** Bytes [offset, offset + length) of `dev` have failed. Returns 0 or a negative errno. */
  notifyFailure(dev: DaxDevice, offset: number, length: number, flags: number): number
}

/** How a device makes its claim known outside this object: to other mounts and other processes. */
export interface ClaimHooks {
  /** Throws DaxError EBUSY when another holder has the region. */
  take(holder: Holder): void
  /** Publishes what changed in the holder (its mountpoint). */
  update(holder: Holder): void
  /** No error when nothing was taken. */
  release(): void
}

/** Makes `holder` the only user of the device: fs_dax_get. Claiming again is no error. */
export function fsDaxGet(dev: DaxDevice, holder: Holder, ops?: HolderOperations): void {
  if (!dev.alive) throw new DaxError(ENODEV, `${dev.path} is gone: the device is dead or closed`)
  if (!dev.enabled) {
    const remedy = `holdfast region enable '${dev.path}'`
    throw new DaxError(EOPNOTSUPP, `${dev.path} is not enabled for use by a filesystem: ${remedy}`)
  }
  if (dev.holder !== undefined && dev.holder !== holder) {
    throw new DaxError(EBUSY, `${dev.path} is in use by another ${dev.holder.purpose}`)
  }
  if (dev.holder === undefined) dev.claim?.take(holder)
  dev.holder = holder
  dev.holderOps = ops
}

/**
 * Gives the device back: fs_put_dax. After killDax there is nobody to clear, which is fine. Unlike
 * the kernel, which clears the operations of whoever holds the device and then warns, a stranger's
 * call changes nothing.
 */
export function fsPutDax(dev: DaxDevice, holder: Holder): void {
  if (dev.holder !== undefined && dev.holder !== holder) {
    process.emitWarning(`fsPutDax of ${dev.path} by a ${holder.purpose} that does not hold it`)
    return
  }
  dev.holderOps = undefined
  dev.holder = undefined
  dev.claim?.release()
}

/** Tells the holder what is only known after the claim: where it is mounted. */
export function updateHolder(dev: DaxDevice, mountpoint: string): void {
  if (dev.holder === undefined) return
  dev.holder.mountpoint = mountpoint
  dev.claim?.update(dev.holder)
}

/** dax_holder_notify_failure: -ENXIO if dead, -EOPNOTSUPP without operations, else their answer. */
export function notifyFailure(
  dev: DaxDevice,
  offset: number,
  length: number,
  flags: number,
): number {
  if (!dev.alive) return -ENXIO
  const ops = dev.holderOps
  if (ops === undefined) return -EOPNOTSUPP
  return ops.notifyFailure(dev, offset, length, flags)
}

/**
 * The device goes away: the holder hears of the whole range while the device is still alive, its
 * answer is ignored, then the device is dead. The claim on the region outlives it until fsPutDax
 * or close, for the holder may still be unwinding.
 */
export function killDax(dev: DaxDevice): void {
  try {
    if (dev.holder !== undefined) notifyFailure(dev, 0, dev.size, MF_MEM_PRE_REMOVE)
  } finally {
    dev.alive = false
    dev.holderOps = undefined
    dev.holder = undefined
  }
}
