/** Runs one sequence over a live filesystem and its model, and looks at crashes all the while. */
import { format } from '../../mkfs/format.ts'
import { SimulatedMemory } from '../../src/dax/simulated-memory.ts'
import { FsError } from '../../src/fs/errors.ts'
import { type Captured, CrashPoints, type Effort } from './crash-points.ts'
import { type Candidates, History } from './history.ts'
import { asLaidOut, layoutDifference } from './layout.ts'
import { State } from './model.ts'
import { abandon, mountMemory, Plug, rebooted } from './mounting.ts'
import type { Operation, Sequence } from './operations.ts'
import { type Plan, plans } from './plans.ts'
import { mixSeeds, Random } from './random.ts'
import { survey } from './survey.ts'
import { unfencedStores } from './unfenced.ts'
import { checkMounted, compare, Violation } from './verdict.ts'
import { World } from './world.ts'

const REGION = 32 * 1024 * 1024

export const NORMAL: Effort = { torn: 1, between: 0.2, stores: 0.15, nested: 0.1 }

export interface Outcome {
  readonly images: number
  readonly fingerprints: ReadonlySet<string>
  /** What was broken, and when. */
  readonly failure: string | undefined
  /** The operations as they were done. */
  readonly trace: readonly string[]
}

export async function explore(sequence: Sequence, effort: Effort = NORMAL): Promise<Outcome> {
  const run = new Run(sequence, effort)
  try {
    await run.all()
  } catch (error) {
    run.fail(error)
  }
  run.stop()
  return run.outcome()
}

class Run {
  readonly #sequence: Sequence
  readonly #effort: Effort
  readonly #trace: string[] = []
  readonly #points: CrashPoints
  #memory: SimulatedMemory
  #plug: Plug
  readonly #world: World
  #history: History

  constructor(sequence: Sequence, effort: Effort) {
    this.#sequence = sequence
    this.#effort = effort
    this.#memory = new SimulatedMemory(REGION, sequence.mode)
    format(this.#memory, { label: 'crash', uid: 0, gid: 0, now: 1_700_000_000 })
    this.#plug = new Plug(this.#memory, unfencedStores(REGION))
    const initial = State.initial()
    this.#history = new History(initial)
    this.#world = new World(mountMemory(this.#plug), initial)
    this.#points = new CrashPoints(effort, this.#memory, this.#history, this.#originOf)
    this.#points.listen(this.#memory)
  }

  readonly #originOf = (word: bigint): string => this.#world.originOf(word)

  async all(): Promise<void> {
    const points = this.#points
    for (const operation of this.#sequence.operations) {
      if (points.failure !== undefined) return
      points.random = new Random(mixSeeds(this.#sequence.seed, operation.at))
      await this.#one(operation, new Random(mixSeeds(...operation.numbers)))
      if (points.captured !== undefined) this.#goOnWith(points.captured)
      if (points.random.chance(this.#effort.between)) points.look()
      this.#requireAlive()
    }
    if (points.failure !== undefined) return
    this.#trace.push('unmount at the end')
    await this.#unmount()
    const orphans = [...this.#world.fs.volume.index.inodes.orphans()]
    if (orphans.length > 0) throw new Violation(`inodes ${orphans} were never freed`)
  }

  fail(error: unknown): void {
    this.#points.fail(error)
  }

  stop(): void {
    this.#memory.onPersist = undefined
    this.#memory.onStore = undefined
    this.#plug.pull()
    abandon(this.#world.fs)
  }

  outcome(): Outcome {
    const { images, fingerprints, failure } = this.#points
    return { images, fingerprints, failure, trace: this.#trace }
  }

  // --- operations -------------------------------------------------------------------------------

  async #one({ at, kind }: Operation, numbers: Random): Promise<void> {
    const planner = plans[kind]
    if (planner !== undefined) {
      const plan = planner(this.#world, numbers)
      if (plan !== undefined) this.#perform(at, plan)
      return
    }
    this.#trace.push(`${at}: ${kind}`)
    await this.#special(kind, numbers)
  }

  #perform(at: number, plan: Plan): void {
    this.#trace.push(`${at}: ${plan.text}`)
    this.#history.begin(plan.steps)
    let steps = plan.steps
    try {
      const result = plan.run()
      steps = plan.after?.(result) ?? plan.steps
    } catch (error) {
      if (!(error instanceof FsError)) throw error
      this.#trace.push(`    ${error.message}`)
      steps = this.#stepsBeforeError(plan)
    }
    this.#done(steps)
  }

  /** An operation that failed half way says so by what is there: nothing, or its first steps. */
  #stepsBeforeError(plan: Plan): readonly State[] {
    const tree = survey(this.#world.fs)
    for (const [at, step] of [this.#world.state, ...plan.steps].entries()) {
      try {
        compare(tree, [step], () => '')
        return plan.steps.slice(0, at)
      } catch (error) {
        if (!(error instanceof Violation)) throw error
      }
    }
    compare(tree, [this.#world.state], this.#originOf)
    return []
  }

  #done(steps: readonly State[]): void {
    this.#history.complete(steps)
    this.#world.state = this.#history.current
    if (this.#memory.durableStores) this.#history.promised(this.#history.length)
  }

  async #special(kind: Operation['kind'], numbers: Random): Promise<void> {
    const { fs } = this.#world
    switch (kind) {
      case 'fsync':
      case 'fsyncLater':
        return this.#promise(this.#fsync(numbers), kind === 'fsync')
      case 'checkpoint':
      case 'checkpointLater':
        return this.#promise(fs.administration.checkpoint(), kind === 'checkpoint')
      case 'freeze':
        await this.#promise(fs.administration.freeze(), true)
        fs.administration.thaw()
        return
      case 'turn':
        for (let turns = 1 + numbers.below(3); turns > 0; turns--) await turn()
        return
      case 'writeBack':
        this.#memory.writeBack(() => numbers.chance(0.5))
        // What is persistent has changed without a persist point: its images are new ones.
        this.#points.listen(this.#memory)
        return
      case 'unmount':
        return this.#unmount()
      case 'killDaemon':
        return this.#killDaemon()
      case 'powerFailure':
        this.#points.capture()
        return
      default:
        this.#points.captureIn = numbers.below(8)
    }
  }

  #fsync(numbers: Random): Promise<void> {
    const { fs, state } = this.#world
    const nodes = [1, ...state.names().map(({ id }) => id)]
    return fs.fsync(this.#world.inode(numbers.pick(nodes)), numbers.chance(0.3))
  }

  /** What was done before the call is durable when the call has succeeded. */
  async #promise(work: Promise<unknown>, wait: boolean): Promise<void> {
    const history = this.#history
    const { length } = history
    const kept = work.then(() => history.promised(length))
    if (wait) await kept
    else kept.catch(() => undefined)
  }

  // --- restarts ---------------------------------------------------------------------------------

  async #unmount(): Promise<void> {
    this.#requireLiveTree()
    await this.#promise(this.#world.fs.unmount(), true)
    this.#plug.pull()
    this.#mount(this.#history.afterDaemonCrash())
  }

  #killDaemon(): void {
    this.#plug.pull()
    abandon(this.#world.fs)
    this.#mount(this.#history.afterDaemonCrash())
  }

  #goOnWith({ memory, candidates }: Captured): void {
    this.#trace.push('    power fails; the run goes on with what is left')
    const points = this.#points
    this.stop()
    points.captured = undefined
    points.captureIn = -1
    this.#memory = this.#sequence.mode === 'page' ? rebooted(memory) : memory
    points.recovering = candidates
    points.listen(this.#memory)
    this.#mount(candidates)
    points.recovering = undefined
    this.#history = new History(this.#world.state)
    points.follow(this.#history)
  }

  #mount(candidates: Candidates): void {
    this.#plug = new Plug(this.#memory, unfencedStores(REGION))
    const fs = mountMemory(this.#plug)
    const { state: found, tree } = compare(survey(fs), candidates, this.#originOf)
    const state = asLaidOut(fs, found, tree)
    this.#world.remounted(fs, state, tree)
    this.#done([state])
    const problems = checkMounted(fs)
    if (problems.length > 0) throw new Violation(problems.map(({ message }) => message).join('; '))
  }

  #requireLiveTree(): void {
    const { fs, state } = this.#world
    compare(survey(fs), [state], this.#originOf)
  }

  #requireAlive(): void {
    const { fs, state, inodes } = this.#world
    const { shutdown } = fs.volume
    if (shutdown !== undefined) throw new Violation(`it shut down by itself: ${shutdown.reason}`)
    const difference = layoutDifference(fs, state, inodes)
    if (difference !== undefined) throw new Violation(difference)
  }
}

function turn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve))
}
