/**
 * The judgement over one mutated region: fsck, mount, use, unmount, repair. Throws Offence with a
 * sentence for everything a stranger's region must not be able to do.
 */
import { openSimulated } from '../../src/dax/device.ts'
import { fsDaxGet } from '../../src/dax/holder.ts'
import { bootId } from '../../src/dax/identity.ts'
import type { SimulatedMemory } from '../../src/dax/simulated-memory.ts'
import { checkIndex } from '../../src/fs/check/check.ts'
import { type Examination, examine } from '../../src/fs/check/examine.ts'
import { isDamage } from '../../src/fs/check/salvage.ts'
import { Filesystem } from '../../src/fs/filesystem.ts'
import { needsRepair, repairRegion } from '../../src/fs/repair/repair.ts'
import { silent } from '../support/core.ts'
import { copyOf } from './bases.ts'
import { Exercise } from './exercise.ts'
import { WatchedMemory } from './watched-memory.ts'

export class Offence extends Error {}

/** What became of an image; counted for the figure at the end. */
export interface Outcome {
  /** fsck's word. */
  readonly clean: boolean
  readonly mounted: boolean
  /** The filesystem shut itself down while it was used. */
  readonly shutdown: boolean
  readonly repaired: boolean
}

const NOW = 1_700_000_100

/** `bad`: some of the memory cannot be read, which nobody knows yet. */
export async function judge(memory: SimulatedMemory, bad: boolean): Promise<Outcome> {
  const found = look(memory, 'fsck')
  const clean = found.problems.length === 0
  closeIndex(found)
  const used = copyOf(memory, 'used')
  const use = await mountAndUse(used, clean && !found.pair.readOnly, bad)
  const repaired =
    found.superblock !== undefined && !found.pair.readOnly && (await repair(memory, bad))
  return { clean, ...use, repaired }
}

const TIMES = { commitSeconds: 24 * 3600, noatime: false } as const

async function mountAndUse(
  inner: SimulatedMemory,
  clean: boolean,
  bad: boolean,
): Promise<Pick<Outcome, 'mounted' | 'shutdown'>> {
  const memory = new WatchedMemory(inner)
  const device = openSimulated(memory)
  fsDaxGet(device, { purpose: 'mount' })
  let fs: Filesystem
  try {
    const options = { ...TIMES, readOnly: false, onFailure: 'handles', logger: silent } as const
    fs = Filesystem.mount(device, options)
  } catch (error) {
    requireInside(memory)
    if (!isDamage(error)) throw offence('the mount failed strangely', error)
    if (clean) throw offence('fsck calls it clean, and it cannot be mounted', error)
    return { mounted: false, shutdown: false }
  }
  if (clean) requireSound(fs, 'as mounted')
  const exercise = new Exercise(fs)
  await exercise.run()
  requireInside(memory)
  const [strange] = exercise.strange
  if (strange !== undefined) throw offence('an operation failed strangely', strange)
  const shutdown = fs.volume.shutdown !== undefined
  // Bad memory that nobody knew of may be under metadata.
  if (clean && shutdown && !bad) {
    throw new Offence(`fsck calls it clean, and it shut down: ${fs.volume.shutdown?.reason}`)
  }
  if (clean) requireSound(fs, 'after use')
  await unmount(fs)
  requireInside(memory)
  const after = look(inner, 'fsck after use')
  closeIndex(after)
  if (clean && !bad && after.problems.length > 0) {
    throw new Offence(`clean before use, and afterwards: ${after.problems[0]!.message}`)
  }
  return { mounted: true, shutdown }
}

async function unmount(fs: Filesystem): Promise<void> {
  try {
    await fs.unmount()
  } catch (error) {
    // What cannot be written any more stays as after a crash.
    const { errno } = error as { errno?: number }
    if (!isDamage(error) && errno === undefined)
      throw offence('the unmount failed strangely', error)
  }
}

async function repair(memory: SimulatedMemory, bad: boolean): Promise<boolean> {
  const watched = new WatchedMemory(memory)
  const before = look(memory, 'fsck')
  if (!needsRepair(watched, before)) {
    closeIndex(before)
    return false
  }
  try {
    repairRegion(watched, before, { now: NOW })
  } catch (error) {
    requireInside(watched)
    if (!isDamage(error)) throw offence('the repair failed strangely', error)
    return false
  } finally {
    closeIndex(before)
  }
  requireInside(watched)
  const after = look(memory, 'fsck after repair')
  const left = after.problems.find((problem) => problem.fixable)
  const again = needsRepair(watched, after)
  closeIndex(after)
  if (left !== undefined) throw new Offence(`the repair left ${left.code}: ${left.message}`)
  if (again) throw new Offence('a second repair has something to do')
  if (after.problems.length > 0) return false
  await mountAndUse(memory, true, bad)
  return true
}

function look(memory: SimulatedMemory, who: string): Examination {
  const watched = new WatchedMemory(memory)
  try {
    const stages = examine(watched, { bootId: bootId() })
    for (;;) {
      const next = stages.next()
      if (next.done) return next.value
    }
  } catch (error) {
    throw offence(`${who} failed`, error)
  } finally {
    requireInside(watched)
  }
}

function closeIndex({ salvaged }: Examination): void {
  salvaged?.index.close()
}

function requireSound({ volume }: Filesystem, when: string): void {
  const { index, geometry, superblock, journal } = volume
  const options = { sequence: journal.lastSequence, limit: 1 }
  const [problem] = checkIndex(index.database, geometry, superblock, options)
  if (problem !== undefined) throw new Offence(`fsck calls it clean; ${when}: ${problem.message}`)
}

function requireInside(memory: WatchedMemory): void {
  const [first] = memory.outside
  if (first !== undefined) throw new Offence(`a touch outside the region: ${first}`)
}

function offence(what: string, error: unknown): Offence {
  const { stack, message } = error as Error
  const place = stack?.split('\n').slice(1, 7).join('\n') ?? ''
  return new Offence(`${what}: ${message}\n${place}`)
}
