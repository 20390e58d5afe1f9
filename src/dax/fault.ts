/** Memory failures on purpose. */
import { native } from '../native/binding.ts'
import type { DaxDevice } from './device.ts'
import { DaxError } from './errors.ts'

const EIO = 5
const EOPNOTSUPP = 95

/**
 * Emulated: the pages of a range really fault in this process (SIGBUS on a load, EFAULT from a
 * system call) until the fault is withdrawn.
 */
export function injectFault(device: DaxDevice, offset: number, length: number): string {
  const { mapId } = device.memory
  if (mapId === undefined) {
    throw new DaxError(EOPNOTSUPP, `${device.name} has no mapping that could fault`)
  }
  return native.poison(mapId, offset, length)
}

/**
 * The kernel's own injection (madvise MADV_HWPOISON, for CAP_SYS_ADMIN): the kernel takes the pages
 * for failed until it boots again, and tells this process with the signal of a machine check. The
 * device has been told when this returns.
 */
export function injectPoison(device: DaxDevice, offset: number, length: number): void {
  const { mapId } = device.memory
  if (mapId === undefined) {
    throw new DaxError(EOPNOTSUPP, `${device.name} has no mapping that could be poisoned`)
  }
  const told = callKernel(() => native.hwpoison(mapId, offset, length))
  native.deliverBusErrors()
  // Poisoned it is, even if the kernel found nobody to tell.
  if (!told) device.memoryFailure(offset, length)
}

/** No error when nothing was injected. */
export function withdrawFault(device: DaxDevice, offset: number, length: number): void {
  const { mapId } = device.memory
  if (mapId !== undefined) native.unpoison(mapId, offset, length)
}

function callKernel<T>(call: () => T): T {
  try {
    return call()
  } catch (error) {
    const { errno = EIO, code } = error as NodeJS.ErrnoException
    const reasons = new Map([
      ['EPERM', 'the daemon lacks CAP_SYS_ADMIN: mount as root'],
      ['EINVAL', 'this kernel is built without CONFIG_MEMORY_FAILURE'],
    ])
    const reason = reasons.get(code ?? '') ?? (error as Error).message
    throw new DaxError(errno, `the kernel does not poison the memory: ${reason}`, { cause: error })
  }
}
