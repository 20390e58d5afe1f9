/** holdfast umount: takes a mount away and waits until its region is clean and free. */
import type { Command } from 'commander'
import type { Target } from '../../control/target.ts'
import { CliError, codeOf, sentenceOf } from '../errors.ts'
import { print } from '../output.ts'
import { placeOf } from './context.ts'

const PAUSE_MS = 20

/** Whoever waits longer than that is told what for. */
const SILENCE_MS = 3000

/** After a lazy unmount of a mount that nobody uses the daemon is gone well before that. */
const LAZY_PATIENCE_MS = 1000

export function addUmount(program: Command): void {
  program
    .command('umount')
    .alias('unmount')
    .argument('<mountpoint>', 'mountpoint, or the region')
    .option('-l, --lazy', 'detach now, finish when the last user has let go')
    .summary('unmount, and wait until the region is clean')
    .description(
      'Unmount, and wait until the daemon has written its checkpoint and released the region.',
    )
    .action(umount)
}

async function umount(text: string, options: { lazy?: boolean }): Promise<void> {
  const { resolveTarget } = await import('../../control/target.ts')
  const target = resolveTarget(text)
  const lazy = options.lazy ?? false
  if (target.mount !== undefined) await detachMount(target, lazy)
  else await requireLeaving(target)
  const released = await waitForRelease(target, lazy ? LAZY_PATIENCE_MS : Number.POSITIVE_INFINITY)
  if (released) await requireClean(target)
  else print(`${placeOf(target)} is detached; its daemon goes on until the last user has let go`)
}

/** The daemon cannot tell us any more how it ended, but the region can. */
async function requireClean({ region, key, mount, holder }: Target): Promise<void> {
  // Of a dead daemon or a read-only one nothing was to be expected.
  if (mount === undefined || holder === undefined || mount.options.includes('ro')) return
  const { whoHolds } = await import('../../dax/claim.ts')
  const state = await stateOf(region)
  if (state === undefined || whoHolds(key) !== undefined) return
  if (state === 'dirty') {
    throw new CliError(
      `${mount.mountpoint} is unmounted, but its daemon did not finish (its log says why); ` +
        'nothing durable is lost: the next mount replays the journal',
    )
  }
  if (state === 'shutdown') {
    print(`${region} was shut down: fsck.holdfast --repair ${region}`)
  }
}

/** Undefined when the region is not to be seen from here. */
async function stateOf(region: string): Promise<string | undefined> {
  const { openByName } = await import('../../bus/open.ts')
  const { readSuperblocks, requireSuperblock } = await import('../../media/superblock.ts')
  try {
    const device = openByName(region, { readOnly: true })
    try {
      return requireSuperblock(readSuperblocks(device.memory)).state
    } finally {
      device.close()
    }
  } catch {
    return undefined
  }
}

/** There is nothing to detach: the daemon must be on its way out, or in a place of its own. */
async function requireLeaving({ region, holder }: Target): Promise<void> {
  if (holder?.purpose !== 'mount') throw new CliError(`${region} is not mounted`)
  const { mountsSeenBy } = await import('../../control/mountinfo.ts')
  const { pid, mountpoint } = holder
  if (!mountsSeenBy(pid).some((mount) => mount.mountpoint === mountpoint)) return
  throw new CliError(
    `${region} is mounted in another mount namespace: nsenter -t ${pid} -m umount ${mountpoint}`,
  )
}

async function detachMount({ mount }: Target, lazy: boolean): Promise<void> {
  if (mount === undefined) return
  const { detach } = await import('../detach.ts')
  try {
    await detach(mount.mountpoint, lazy)
  } catch (error) {
    const { mountpoint } = mount
    if (codeOf(error) !== 'EBUSY') {
      throw new CliError(`cannot unmount ${mountpoint}: ${sentenceOf(error)}`, 1, { cause: error })
    }
    const { nameUsers } = await import('../busy.ts')
    const whose = (await nameUsers(mount)) ?? 'a process that you may not see'
    throw new CliError(`${mountpoint} is busy: used by ${whose}; umount -l detaches it anyway`)
  }
}

/** False when the time is over. Another process than before means that the region was released. */
async function waitForRelease(
  { key, region, holder }: Target,
  milliseconds: number,
): Promise<boolean> {
  if (holder === undefined) return true
  const { isHeld, whoHolds } = await import('../../dax/claim.ts')
  const held = () => {
    const now = whoHolds(key)
    // Of another user's daemon root sees the lock only.
    return now === undefined ? isHeld(region) : now.pid === holder.pid
  }
  const started = performance.now()
  for (let told = false; held(); ) {
    const waited = performance.now() - started
    if (waited > milliseconds) return false
    if (waited > SILENCE_MS && !told) {
      told = true
      process.stderr.write(
        `holdfast: waiting for pid ${holder.pid}: it writes its checkpoint, ` +
          'or another mount namespace still has the mount\n',
      )
    }
    await new Promise((resolve) => setTimeout(resolve, PAUSE_MS))
  }
  return true
}
