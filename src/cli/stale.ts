/**
 * Mounts whose daemon died: the next mount on the same place, or of the same region, takes them
 * away first.
 */
import { isHoldfast, type Mount, mountAt, readMounts } from '../control/mountinfo.ts'
import { detach } from './detach.ts'
import { CliError, MOUNT_FAILED, sentenceOf } from './errors.ts'
import { checkPlan, type MountPlan } from './plan.ts'
import { probeMount } from './probe.ts'

const PATIENCE_MS = 10_000

/** All that can be put right or refused before a daemon starts. */
export async function prepare(plan: MountPlan, say: (sentence: string) => void): Promise<void> {
  // First: a dead mount on the mountpoint would fail every other check.
  await clearStaleMounts(plan, say)
  checkPlan(plan)
}

/** Throws when a live holdfast is on the mountpoint. Says what it took away. */
async function clearStaleMounts(
  { region, mountpoint }: MountPlan,
  say: (sentence: string) => void,
): Promise<void> {
  // There may be several, one upon the other.
  for (;;) {
    const mount = mountAt(mountpoint)
    if (mount === undefined || !isHoldfast(mount)) break
    if (!(await isDead(mount))) throw inUse(mount)
    await takeAway(mount, say)
  }
  for (const mount of readMounts().filter(isHoldfast)) {
    if (mount.source === region && (await isDead(mount))) await takeAway(mount, say)
  }
}

async function isDead(mount: Mount): Promise<boolean> {
  const answer = await probeMount(mount.mountpoint, PATIENCE_MS)
  return answer === 'dead' || answer === 'missing'
}

function inUse(mount: Mount): CliError {
  return new CliError(
    `${mount.mountpoint} is in use: ${mount.source} is mounted there; ` +
      `unmount it first (holdfast umount ${mount.mountpoint})`,
    MOUNT_FAILED,
  )
}

async function takeAway(mount: Mount, say: (sentence: string) => void): Promise<void> {
  try {
    await detach(mount.mountpoint, true)
  } catch (error) {
    throw new CliError(
      `${mount.mountpoint} is a mount whose daemon died, and it cannot be taken away: ` +
        `${sentenceOf(error)}; try as its owner or root`,
      MOUNT_FAILED,
    )
  }
  say(`took away the stale mount on ${mount.mountpoint}: its daemon had died`)
}
