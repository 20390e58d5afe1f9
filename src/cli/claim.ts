/** Taking the region for a mount: a holder that is just leaving is waited for. */
import { setTimeout as sleep } from 'node:timers/promises'
import { mountsSeenBy } from '../control/mountinfo.ts'
import { whoHolds } from '../dax/claim.ts'
import type { DaxDevice } from '../dax/device.ts'
import { fsDaxGet, type Holder } from '../dax/holder.ts'
import { codeOf } from './errors.ts'

const PATIENCE_MS = 10_000
const PAUSE_MS = 50

/** Throws DaxError EBUSY, which names the holder, at once or after 10 s of an unmount. */
export async function claimRegion(
  device: DaxDevice,
  holder: Holder,
  say: (sentence: string) => void,
): Promise<void> {
  const deadline = performance.now() + PATIENCE_MS
  for (let attempt = 0; ; attempt++) {
    try {
      fsDaxGet(device, holder)
      return
    } catch (error) {
      if (codeOf(error) !== 'EBUSY' || performance.now() > deadline) throw error
      if (!isLeaving(device, attempt)) throw error
    }
    if (attempt === 1) say(`waiting for the last mount of ${device.path} to end`)
    await sleep(PAUSE_MS)
  }
}

/** Holds the region for a mount, but has none: it is being unmounted (or only just mounted). */
function isLeaving(device: DaxDevice, attempt: number): boolean {
  const holder = whoHolds(device.key ?? device.path)
  // Gone between the refusal and this look; or, if that goes on, of a user we cannot see.
  if (holder === undefined) return attempt < 3
  if (holder.purpose !== 'mount' || holder.pid === process.pid) return false
  const { mountpoint } = holder
  return (
    mountpoint === undefined || !mountsSeenBy(holder.pid).some((m) => m.mountpoint === mountpoint)
  )
}
