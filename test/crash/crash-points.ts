/**
 * The moments at which a crash is tried: every persist point of a memory and those asked for
 * between. In each of them images are made and judged.
 */
import type { SimulatedMemory } from '../../src/dax/simulated-memory.ts'
import type { Candidates, History } from './history.ts'
import { giveBack, type Image, Moment } from './images.ts'
import { rebooted } from './mounting.ts'
import { Random } from './random.ts'
import { judge, Violation } from './verdict.ts'

export interface Effort {
  /** Torn images at each persist point. */
  readonly torn: number
  /** How often a point between persist points is looked at. */
  readonly between: number
  /** How often a store is looked at that is no persist point: on plain files every one. */
  readonly stores: number
  /** How often a crash is followed by one during recovery. */
  readonly nested: number
}

/** An image that the run goes on with. */
export interface Captured {
  readonly memory: SimulatedMemory
  readonly candidates: Candidates
}

/** How often a daemon that was killed, with all it wrote, meets a host that booted since. */
const ALL_REBOOTED = 0.3
/** How often every file of an image is grown. */
const GROWN = 0.25
/** Persist points of a mount, about: one of them is where the second crash comes. */
const MOUNT_POINTS = 4

export class CrashPoints {
  readonly fingerprints = new Set<string>()
  images = 0
  /** The first promise that was broken. */
  failure: string | undefined
  /** Decides what is looked at; renewed for each operation. */
  random = new Random(0)
  /** While a mount recovers: what it may come to. */
  recovering: Candidates | undefined
  /** Persist points until the image is taken that the run goes on with. */
  captureIn = -1
  captured: Captured | undefined
  readonly #effort: Effort
  readonly #originOf: (word: bigint) => string
  #memory: SimulatedMemory
  #history: History
  /** Memories and moments so far: they name an image. */
  #memories = 0
  #moments = 0

  constructor(
    effort: Effort,
    memory: SimulatedMemory,
    history: History,
    originOf: (word: bigint) => string,
  ) {
    this.#effort = effort
    this.#memory = memory
    this.#history = history
    this.#originOf = originOf
  }

  /** From now on the persist points of this memory are looked at, and some of its stores. */
  listen(memory: SimulatedMemory): void {
    this.#memory = memory
    this.#memories++
    memory.onPersist = () => this.look()
    memory.onStore = () => {
      if (this.random.chance(this.#effort.stores)) this.look()
    }
  }

  /** What a crash may lead to is in this history from now on. */
  follow(history: History): void {
    this.#history = history
  }

  fail(error: unknown): void {
    const { message, stack } = error as Error
    this.failure ??= error instanceof Violation ? message : `not an FsError: ${stack}`
  }

  /** Keeps every error to itself: whoever stores must not see it. */
  look(): void {
    if (this.failure !== undefined) return
    try {
      this.#moments++
      if (this.captureIn-- === 0) this.capture()
      const moment = this.#moment()
      this.#judge(moment.none(), this.#afterPowerFailure())
      if (this.#memory.durableStores) this.#lookAtLines(moment)
      else this.#lookAtPages(moment)
    } catch (error) {
      this.fail(error)
    }
  }

  /** Power fails now, and the run is to go on with what is left. */
  capture(): void {
    const { memory } = this.#moment().some(this.random)
    this.captured = { memory, candidates: this.#afterPowerFailure() }
  }

  #moment(): Moment {
    const base = `${this.#memories}:${this.#memory.persistPoints}`
    return new Moment(this.#memory, base, `${base}:${this.#moments}`)
  }

  /** All of it is what the next persist point finds. */
  #lookAtLines(moment: Moment): void {
    if (moment.openWords < 2) return
    for (let count = 0; count < this.#effort.torn; count++) {
      this.#judge(moment.some(this.random), this.#afterPowerFailure())
    }
  }

  #lookAtPages(moment: Moment): void {
    const killed = { ...moment.all(), text: 'the daemon was killed' }
    this.#judge(killed, this.recovering ?? this.#history.afterDaemonCrash(), false)
    if (moment.openWords === 0) return
    for (let count = 0; count < this.#effort.torn; count++) {
      this.#judge(moment.some(this.random), this.#afterPowerFailure())
    }
    if (this.random.chance(ALL_REBOOTED)) this.#judge(moment.all(), this.#afterPowerFailure())
  }

  #afterPowerFailure(): Candidates {
    if (this.recovering !== undefined) return this.recovering
    if (this.#memory.durableStores) return this.#history.afterDaemonCrash()
    return this.#history.afterPowerFailure()
  }

  #judge(image: Image, candidates: Candidates, power = true): void {
    const fingerprint = `${image.fingerprint}:${power}`
    if (this.failure !== undefined || this.fingerprints.has(fingerprint)) {
      giveBack(image.memory)
      return
    }
    this.fingerprints.add(fingerprint)
    this.images++
    const page = !this.#memory.durableStores
    const memory = power && page ? rebooted(image.memory) : image.memory
    const grow = this.random.chance(GROWN)
    const second = this.random.chance(this.#effort.nested) ? this.#watch(memory) : undefined
    try {
      judge(memory, candidates, { grow, originOf: this.#originOf })
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
    let left = this.random.below(MOUNT_POINTS)
    let image: Image | undefined
    memory.onPersist = () => {
      if (left-- !== 0) return
      const moment = new Moment(memory, 'second', `second:${memory.persistPoints}`)
      image = moment.openWords === 0 ? moment.none() : moment.some(this.random)
    }
    return () => image
  }
}
