/**
 * Runs one sequence, stops at every persist point and at points between, and judges what a crash
 * there would leave.
 */
import { format } from '../../mkfs/format.ts'
import { SimulatedMemory } from '../../src/dax/simulated-memory.ts'
import { FsError } from '../../src/fs/errors.ts'
import { type Candidates, History } from './history.ts'
import { giveBack, type Image, Moment } from './images.ts'
import { State } from './model.ts'
import { abandon, mountMemory, Plug, rebooted } from './mounting.ts'
import type { Operation, Sequence } from './operations.ts'
import { type Plan, plans } from './plans.ts'
import { mixSeeds, Random } from './random.ts'
import { survey } from './survey.ts'
import { unfencedStores } from './unfenced.ts'
import { checkMounted, compare, judge, Violation } from './verdict.ts'
import { World } from './world.ts'

const REGION = 32 * 1024 * 1024

export interface Effort {
  /** Torn images at each persist point. */
  readonly torn: number
  /** How often a point between persist points is looked at. */
  readonly between: number
  /** How often a crash is followed by one during recovery. */
  readonly nested: number
}

export const NORMAL: Effort = { torn: 1, between: 0.2, nested: 0.1 }

export interface Outcome {
  readonly images: number
  readonly fingerprints: ReadonlySet<string>
  /** What was broken, and when. */
  readonly failure: string | undefined
  /** The operations as they were done. */
  readonly trace: readonly string[]
}

/** An image that the run goes on with. */
interface Captured {
  readonly memory: SimulatedMemory
  readonly candidates: Candidates
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
  readonly #fingerprints = new Set<string>()
  #images = 0
  #failure: string | undefined
  #memory: SimulatedMemory
  #plug: Plug
  readonly #world: World
  #history: History
  /** While a mount recovers: what it may come to. */
  #recovering: Candidates | undefined
  #random: Random
  /** Memories so far: with its counters it names a moment. */
  #memories = 0
  #moments = 0
  /** Persist points until the image is taken that the run goes on with. */
  #captureIn = -1
  #captured: Captured | undefined

  constructor(sequence: Sequence, effort: Effort) {
    this.#sequence = sequence
    this.#effort = effort
    this.#random = new Random(sequence.seed)
    this.#memory = new SimulatedMemory(REGION, sequence.mode)
    format(this.#memory, { label: 'crash', uid: 0, gid: 0, now: 1_700_000_000 })
    this.#plug = new Plug(this.#memory, unfencedStores(REGION))
    const initial = State.initial()
    this.#history = new History(initial)
    this.#world = new World(mountMemory(this.#plug), initial)
    this.#listen()
  }

  async all(): Promise<void> {
    for (const operation of this.#sequence.operations) {
      if (this.#failure !== undefined) return
      this.#random = new Random(mixSeeds(this.#sequence.seed, operation.at))
      await this.#one(operation, new Random(mixSeeds(...operation.numbers)))
      if (this.#captured !== undefined) this.#goOnWith(this.#captured)
      if (this.#random.chance(this.#effort.between)) this.#exploreHere()
      this.#requireAlive()
    }
    if (this.#failure !== undefined) return
    this.#trace.push('unmount at the end')
    await this.#unmount()
    const orphans = [...this.#world.fs.volume.index.inodes.orphans()]
    if (orphans.length > 0) throw new Violation(`inodes ${orphans} were never freed`)
  }

  fail(error: unknown): void {
    const { message, stack } = error as Error
    this.#failure ??= error instanceof Violation ? message : `not an FsError: ${stack}`
  }

  stop(): void {
    this.#memory.onPersist = undefined
    this.#plug.pull()
    abandon(this.#world.fs)
  }

  outcome(): Outcome {
    return {
      images: this.#images,
      fingerprints: this.#fingerprints,
      failure: this.#failure,
      trace: this.#trace,
    }
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
    compare(tree, [this.#world.state], (word) => this.#world.originOf(word))
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
        this.#moments++
        return
      case 'unmount':
        return this.#unmount()
      case 'killDaemon':
        return this.#killDaemon()
      case 'powerFailure':
        this.#capture()
        return
      default:
        this.#captureIn = numbers.below(8)
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
    this.stop()
    this.#captured = undefined
    this.#captureIn = -1
    this.#memory = this.#sequence.mode === 'page' ? rebooted(memory) : memory
    this.#memories++
    this.#recovering = candidates
    this.#listen()
    this.#mount(candidates)
    this.#recovering = undefined
    this.#history = new History(this.#world.state)
  }

  #mount(candidates: Candidates): void {
    this.#plug = new Plug(this.#memory, unfencedStores(REGION))
    const fs = mountMemory(this.#plug)
    const { state, tree } = compare(survey(fs), candidates, (word) => this.#world.originOf(word))
    this.#world.remounted(fs, state, tree)
    this.#done([state])
    const problems = checkMounted(fs)
    if (problems.length > 0) throw new Violation(problems.map(({ message }) => message).join('; '))
  }

  #requireLiveTree(): void {
    const { fs, state } = this.#world
    compare(survey(fs), [state], (word) => this.#world.originOf(word))
  }

  #requireAlive(): void {
    const { shutdown } = this.#world.fs.volume
    if (shutdown !== undefined) throw new Violation(`it shut down by itself: ${shutdown.reason}`)
  }

  // --- crash points -----------------------------------------------------------------------------

  #listen(): void {
    this.#memory.onPersist = () => this.#exploreHere()
  }

  /** Keeps every error to itself: whoever stores must not see it. */
  #exploreHere(): void {
    if (this.#failure !== undefined) return
    try {
      this.#moments++
      if (this.#captureIn-- === 0) this.#capture()
      const moment = this.#moment()
      this.#judge(moment.none(), this.#afterPowerFailure())
      if (this.#memory.durableStores) this.#exploreLines(moment)
      else this.#explorePages(moment)
    } catch (error) {
      this.fail(error)
    }
  }

  #moment(): Moment {
    const base = `${this.#memories}:${this.#memory.persistPoints}`
    return new Moment(this.#memory, base, `${base}:${this.#moments}`)
  }

  /** All of it is what the next persist point finds. */
  #exploreLines(moment: Moment): void {
    if (moment.openWords < 2) return
    for (let count = 0; count < this.#effort.torn; count++) {
      this.#judge(moment.some(this.#random), this.#afterPowerFailure())
    }
  }

  #explorePages(moment: Moment): void {
    const daemon = moment.all()
    this.#judge({ ...daemon, text: 'the daemon was killed' }, this.#afterDaemonCrash(), false)
    if (moment.openWords === 0) return
    for (let count = 0; count < this.#effort.torn; count++) {
      this.#judge(moment.some(this.#random), this.#afterPowerFailure())
    }
    if (this.#random.chance(0.3)) this.#judge(moment.all(), this.#afterPowerFailure())
  }

  #afterPowerFailure(): Candidates {
    if (this.#recovering !== undefined) return this.#recovering
    if (this.#memory.durableStores) return this.#history.afterDaemonCrash()
    return this.#history.afterPowerFailure()
  }

  #afterDaemonCrash(): Candidates {
    return this.#recovering ?? this.#history.afterDaemonCrash()
  }

  #judge(image: Image, candidates: Candidates, power = true): void {
    const page = this.#sequence.mode === 'page'
    const fingerprint = `${image.fingerprint}:${power}`
    if (this.#failure !== undefined || this.#fingerprints.has(fingerprint)) {
      giveBack(image.memory)
      return
    }
    this.#fingerprints.add(fingerprint)
    this.#images++
    const memory = power && page ? rebooted(image.memory) : image.memory
    const options = {
      grow: this.#random.chance(0.25),
      originOf: (word: bigint) => this.#world.originOf(word),
    }
    const second = this.#random.chance(this.#effort.nested) ? this.#watch(memory) : undefined
    try {
      judge(memory, candidates, options)
    } catch (error) {
      if (!(error instanceof Violation)) throw error
      throw new Violation(`${error.message} [${image.text}]`)
    }
    giveBack(memory)
    const nested = second?.()
    if (nested === undefined) return
    const text = `${image.text}, and again during recovery: ${nested.text}`
    const name = `${fingerprint}:${nested.fingerprint}`
    // The second time it is power that fails, whatever the first crash was.
    const then = power ? candidates : this.#afterPowerFailure()
    this.#judge({ memory: nested.memory, fingerprint: name, text }, then)
  }

  /** Power fails a second time, at some persist point of the mount. */
  #watch(memory: SimulatedMemory): () => Image | undefined {
    let left = this.#random.below(4)
    let image: Image | undefined
    memory.onPersist = () => {
      if (left-- !== 0) return
      const moment = new Moment(memory, 'second', `second:${memory.persistPoints}`)
      image = moment.openWords === 0 ? moment.none() : moment.some(this.#random)
    }
    return () => image
  }

  #capture(): void {
    const image = this.#moment().some(this.#random)
    this.#captured = { memory: image.memory, candidates: this.#afterPowerFailure() }
  }
}

function turn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve))
}
