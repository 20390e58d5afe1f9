/** What the daemon and fsck do first, in this process, so that memory can fail in the midst of it. */
import { type DaxDevice, openDevice } from '../../src/dax/device.ts'
import { fsDaxGet, fsPutDax, type Holder } from '../../src/dax/holder.ts'
import { bootId } from '../../src/dax/identity.ts'
import { examine } from '../../src/fs/check/examine.ts'
import { Filesystem } from '../../src/fs/filesystem.ts'
import { readSuperblocks, requireSuperblock } from '../../src/media/superblock.ts'
import { silent } from '../support/core.ts'
import { DEVICE } from './device.ts'

const PAGE = 4096

/** Hands over the device, claimed, and where its current checkpoint begins. */
export async function withCheckpoint(
  body: (device: DaxDevice, place: number) => Promise<void> | void,
): Promise<void> {
  const holder: Holder = { purpose: 'fsck' }
  const device = openDevice(DEVICE)
  try {
    fsDaxGet(device, holder)
    const { slots, checkpoint } = requireSuperblock(readSuperblocks(device.memory))
    await body(device, slots[checkpoint.slot][0]!.block * PAGE)
  } finally {
    fsPutDax(device, holder)
    device.close()
  }
}

/** As the daemon mounts; throws what it would say. */
export function mountHere(device: DaxDevice): void {
  const options = { commitSeconds: 1, onFailure: 'handles', logger: silent } as const
  Filesystem.mount(device, { readOnly: false, ...options })
}

/** What fsck finds. */
export function problemsHere(device: DaxDevice): readonly unknown[] {
  const stages = examine(device.memory, { bootId: bootId(), mounted: false })
  let step = stages.next()
  while (!step.done) step = stages.next()
  step.value.salvaged?.index.close()
  return step.value.problems
}
