/** The device formatted and mounted, as every suite needs it. */
import assert from 'node:assert/strict'
import { runProgram } from '../../tools/quickstart/programs.ts'
import { type MountedRegion, type MountOptions, mountRegion } from '../support/mounts.ts'
import { DEVICE } from './device.ts'
import { stopHolders } from './victims.ts'

export async function format(...options: string[]): Promise<void> {
  const { status, stderr } = await runProgram('mkfs.holdfast', ['--force', ...options, DEVICE])
  assert.equal(status, 0, stderr)
}

/** Formats the device anew and mounts it. */
export async function freshMount(options: MountOptions = {}): Promise<MountedRegion> {
  await format()
  return mountRegion({ ...options, region: DEVICE })
}

/** The region is whole: fsck looks at everything and finds nothing. */
export async function checkClean(): Promise<void> {
  const { status, stdout, stderr } = await runProgram('fsck.holdfast', ['-n', '-f', DEVICE])
  assert.equal(status, 0, `fsck: ${stdout}${stderr}`)
}

/** Whatever became of the mount, it is gone; a shut down one is no error. */
export async function dismount(mounted: MountedRegion): Promise<void> {
  await stopHolders()
  const { status, stderr } = await runProgram('holdfast', ['umount', mounted.mountpoint])
  assert.equal(status, 0, stderr)
}

/** Whatever a failed check left mounted is no more; nothing was is no error. */
export async function release(mounted: MountedRegion): Promise<void> {
  await stopHolders()
  await runProgram('holdfast', ['umount', '-l', mounted.mountpoint])
}

/** Unmounts, and starts over with an empty filesystem at the same place. */
export async function startOver(mounted: MountedRegion): Promise<MountedRegion> {
  await dismount(mounted)
  await format()
  return mounted.mountAgain()
}
