/** fsck.holdfast: checks a region, and repairs it when told to. */
import { constants } from 'node:os'
import { CommanderError } from 'commander'
import { openByName } from '../src/bus/open.ts'
import { complain } from '../src/cli/errors.ts'
import { whoHolds } from '../src/dax/claim.ts'
import type { DaxDevice } from '../src/dax/device.ts'
import { DaxError } from '../src/dax/errors.ts'
import { fsDaxGet, fsPutDax, type Holder } from '../src/dax/holder.ts'
import { bootId } from '../src/dax/identity.ts'
import { type Examination, examine, STAGES } from '../src/fs/check/examine.ts'
import { isDamage } from '../src/fs/check/salvage.ts'
import { copiesAgree, isForeign } from '../src/fs/check/superblocks.ts'
import type { Action } from '../src/fs/repair/actions.ts'
import { onlySafe } from '../src/fs/repair/policy.ts'
import { needsRepair, planRepair, repairRegion } from '../src/fs/repair/repair.ts'
import { loadImage } from '../src/journal/checkpoint.ts'
import { readSuperblocks } from '../src/media/superblock.ts'
import {
  EXIT_CANCELED,
  EXIT_CLEAN,
  EXIT_CORRECTED,
  EXIT_OPERATIONAL,
  EXIT_UNCORRECTED,
  EXIT_USAGE,
  type FsckOptions,
  makeCommand,
  readOptions,
} from './fsck-options.ts'
import { Progress } from './fsck-progress.ts'
import { report } from './fsck-report.ts'

/** Looks at a mounted region before what is seen is believed. */
const MOUNTED_TRIES = 3

/** The person at the terminal has had enough. Nothing half done is left: writing is not asked. */
class Cancelled extends Error {}

/** What came of it, for the report. */
export interface Outcome {
  /** The filesystem as it is now. */
  examination: Examination | undefined
  mounted: boolean
  /** Problems met, before anything was corrected. */
  found: Examination['problems']
  actions: Action[]
  /** With -n: what --repair would do. */
  plan: Action[]
  exitCode: number
}

export async function main(program: string, args: readonly string[]): Promise<number> {
  try {
    const command = makeCommand(program)
    command.parse([...args], { from: 'user' })
    return await run(readOptions(command))
  } catch (error) {
    // commander has already said what is wrong.
    if (error instanceof CommanderError) return error.exitCode === 0 ? EXIT_CLEAN : EXIT_USAGE
    complain(program, error)
    if (error instanceof Cancelled) return EXIT_CANCELED
    return error instanceof RangeError ? EXIT_USAGE : EXIT_OPERATIONAL
  }
}

async function run(options: FsckOptions): Promise<number> {
  const writes = options.permission !== 'nothing'
  const device = openByName(options.region, { readOnly: !writes })
  const holder: Holder = { purpose: 'fsck' }
  try {
    const mounted = claim(device, holder, options)
    const outcome = await check(device, options, mounted)
    report(options, outcome)
    outcome.examination?.salvaged?.index.close()
    return outcome.exitCode
  } finally {
    fsPutDax(device, holder)
    device.close()
  }
}

/** True when the region is mounted and we only look at it all the same. */
function claim(device: DaxDevice, holder: Holder, options: FsckOptions): boolean {
  try {
    fsDaxGet(device, holder)
    return false
  } catch (error) {
    if (!(error instanceof DaxError) || error.errno !== constants.errno.EBUSY) throw error
    if (options.readOnly && whoHolds(options.region)?.purpose === 'mount') return true
    const advice = options.readOnly ? '' : '; to look at it as it is, use -n'
    throw new DaxError(error.errno, `${error.message}${advice}`)
  }
}

/** Looks, repairs what may be repaired, and looks again. The device is claimed. */
export async function check(
  device: DaxDevice,
  options: FsckOptions,
  mounted: boolean,
): Promise<Outcome> {
  const { memory } = device
  const outcome: Outcome = {
    examination: undefined,
    mounted,
    found: [],
    actions: [],
    plan: [],
    exitCode: EXIT_CLEAN,
  }
  const pair = readSuperblocks(memory)
  if (pair.best === undefined && isForeign(memory, pair)) {
    throw new Error(`${options.region} is not a holdfast filesystem: no superblock in either place`)
  }
  if (!options.full && isQuicklyClean(memory)) return outcome
  const first = await examineSteadily(device, mounted)
  outcome.examination = first
  outcome.found = first.problems
  if (mayWrite(first, options) && needsRepair(memory, first)) {
    try {
      outcome.actions = repairRegion(memory, first, repairOptions(options))
    } catch (error) {
      tolerate(first, error)
    }
    first.salvaged?.index.close()
    outcome.examination = await examineAll(device, mounted)
  } else if (options.readOnly && !mounted && needsRepair(memory, first)) {
    outcome.plan = await planOnly(device, options)
  }
  const corrected = outcome.actions.length > 0 && first.problems.length > 0
  const left = outcome.examination.problems.length > 0
  outcome.exitCode = (corrected ? EXIT_CORRECTED : 0) | (left ? EXIT_UNCORRECTED : 0)
  return outcome
}

function repairOptions({ overlap }: FsckOptions) {
  return { now: Math.floor(Date.now() / 1000), overlap }
}

/** What a repair would do. It changes the index in memory, so it gets one of its own. */
async function planOnly(device: DaxDevice, options: FsckOptions): Promise<Action[]> {
  const examination = await examineAll(device, false)
  try {
    return planRepair(device.memory, examination, repairOptions(options)).actions
  } catch (error) {
    tolerate(examination, error)
    return []
  } finally {
    examination.salvaged?.index.close()
  }
}

/** Where nothing is wrong, a repair that finds no room only leaves the journal to the next mount. */
function tolerate({ problems }: Examination, error: unknown): void {
  if (problems.length > 0 || !isDamage(error)) throw error
}

/** What a mount relies on is there, and says that all is well. */
function isQuicklyClean(memory: DaxDevice['memory']): boolean {
  const pair = readSuperblocks(memory)
  const { best } = pair
  if (best?.state !== 'clean' || !copiesAgree(pair) || best.poison.length > 0) return false
  try {
    loadImage(memory, best)
    return true
  } catch (error) {
    if (isDamage(error)) return false
    throw error
  }
}

function mayWrite(examination: Examination, { permission }: FsckOptions): boolean {
  if (examination.pair.readOnly || permission === 'nothing') return false
  return permission === 'everything' || onlySafe(examination)
}

/** A checkpoint may have been replaced while we read it: what is damaged stays so. */
async function examineSteadily(device: DaxDevice, mounted: boolean): Promise<Examination> {
  for (let tries = mounted ? MOUNTED_TRIES : 1; ; tries--) {
    const found = await examineAll(device, mounted)
    if (found.problems.length === 0 || tries <= 1) return found
    found.salvaged?.index.close()
  }
}

async function examineAll(device: DaxDevice, mounted: boolean): Promise<Examination> {
  const progress = new Progress(STAGES)
  const stages = examine(device.memory, {
    bootId: bootId(),
    mounted,
    bad: device.badRanges.list(),
  })
  let cancelled = false
  const cancel = () => {
    cancelled = true
  }
  process.on('SIGINT', cancel)
  try {
    for (;;) {
      const next = stages.next()
      if (next.done) return next.value
      progress.at(next.value)
      // A signal is heard between two stages.
      await new Promise((resolve) => setImmediate(resolve))
      if (cancelled) {
        stages.return(undefined as never)
        throw new Cancelled('cancelled: nothing was written')
      }
    }
  } finally {
    progress.stop()
    process.off('SIGINT', cancel)
  }
}
