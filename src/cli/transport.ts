/** The transports a daemon can serve through, behind one shape. */
import type { DaxDevice } from '../dax/device.ts'
import type { Filesystem } from '../fs/filesystem.ts'
import { CliError, MOUNT_FAILED } from './errors.ts'
import type { LineLogger } from './logger.ts'
import type { MountPlan } from './plan.ts'

export interface Transport {
  /** Resolves when the kernel has let go. */
  readonly closed: Promise<void>
  /** Rejects with code EBUSY when the mount is in use and `lazy` is false. */
  unmount(lazy: boolean): Promise<void>
}

export function startTransport(
  plan: MountPlan,
  fs: Filesystem,
  device: DaxDevice,
  logger: LineLogger,
): Promise<Transport> {
  return plan.options.transport === 'kernel'
    ? startKernel(plan, fs, device, logger)
    : startFuseNative(plan, fs, logger)
}

async function startKernel(
  { mountpoint, region, options }: MountPlan,
  fs: Filesystem,
  device: DaxDevice,
  logger: LineLogger,
): Promise<Transport> {
  const { mountKernel } = await import('../fuse/kernel.ts')
  return mountKernel(fs, device.memory, mountpoint, {
    cache: options.cache,
    writeback: options.writeback,
    allowOther: options.allowOther,
    readOnly: options.readOnly,
    flags: [...options.flags],
    fsname: region,
    logger,
    ...(options.debug ? { debug: (line: string) => logger.debug(line) } : {}),
  })
}

async function startFuseNative(
  { mountpoint, region, options }: MountPlan,
  fs: Filesystem,
  logger: LineLogger,
): Promise<Transport> {
  if (options.writeback) {
    throw new CliError('transport=fuse-native has no writeback: leave it out', MOUNT_FAILED)
  }
  const { mountFuseNative } = await import('../fuse/fuse-native.ts')
  return mountFuseNative(fs, mountpoint, {
    allowOther: options.allowOther,
    readOnly: options.readOnly,
    flags: [...options.flags],
    fsname: region,
    directIo: options.cache === 'none',
    logger,
  })
}
