/** The images that a power failure may leave: which of the words not yet durable came through. */
import type { SimulatedMemory } from '../../src/dax/simulated-memory.ts'
import { mixAll, type Random } from './random.ts'

const WORD = 8

/** Memories that were judged: making one of 32 MiB takes longer than all else. */
const spare: SimulatedMemory[] = []

function takeSpare(like: SimulatedMemory): SimulatedMemory | undefined {
  const at = spare.findIndex(({ mode, size }) => mode === like.mode && size === like.size)
  return at < 0 ? undefined : spare.splice(at, 1)[0]
}

/** Nobody will look at this image again. */
export function giveBack(memory: SimulatedMemory): void {
  if (spare.length < 8) spare.push(memory)
}

export interface Image {
  readonly memory: SimulatedMemory
  /** Names the content: equal only for equal images. */
  readonly fingerprint: string
  readonly text: string
}

/** A word that is one thing in the volatile image and another in the persistent one. */
interface OpenWord {
  readonly line: number
  readonly word: number
}

/** One moment of a memory, and the images that are possible in it. */
export class Moment {
  readonly #memory: SimulatedMemory
  /** Names the persistent image. */
  readonly #base: string
  /** Names the volatile one. */
  readonly #top: string
  readonly #none: SimulatedMemory
  readonly #open: OpenWord[] = []

  constructor(memory: SimulatedMemory, base: string, top: string) {
    this.#memory = memory
    this.#base = base
    this.#top = top
    this.#none = memory.crash(undefined, undefined, takeSpare(memory))
    const { lineSize } = memory
    const before = Buffer.alloc(lineSize)
    const after = Buffer.alloc(lineSize)
    for (const line of memory.unflushedLines()) {
      this.#none.read(line * lineSize, before, 0, lineSize)
      memory.read(line * lineSize, after, 0, lineSize)
      if (before.equals(after)) continue
      for (let word = 0; word < lineSize / WORD; word++) {
        const at = word * WORD
        if (before.compare(after, at, at + WORD, at, at + WORD) !== 0) {
          this.#open.push({ line, word })
        }
      }
    }
  }

  get openWords(): number {
    return this.#open.length
  }

  /** Nothing that was not durable came through. To be taken once. */
  none(): Image {
    return { memory: this.#none, fingerprint: `${this.#base}`, text: 'nothing came through' }
  }

  all(): Image {
    const fingerprint = this.#open.length === 0 ? this.#base : `${this.#top}:all`
    const memory = this.#memory.crash(() => true, undefined, takeSpare(this.#memory))
    return { memory, fingerprint, text: 'all came through' }
  }

  /** Some of it: whole lines, single words, the first, or all but a few. */
  some(random: Random): Image {
    const chosen = this.#choose(random)
    const hash = mixAll(chosen.map(({ line, word }) => line * 512 + word))
    const kept = new Set(chosen.map(({ line, word }) => line * 512 + word))
    const lines = new Set(chosen.map(({ line }) => line))
    const memory = this.#memory.crash(
      (line) => lines.has(line),
      (line, word) => kept.has(line * 512 + word),
      takeSpare(this.#memory),
    )
    const text = `${chosen.length} of ${this.#open.length} words came through`
    return { memory, fingerprint: `${this.#top}:${hash}`, text }
  }

  #choose(random: Random): OpenWord[] {
    const open = this.#open
    const lines = [...new Set(open.map(({ line }) => line))]
    const odds = random.pick([0.1, 0.5, 0.9])
    switch (random.below(lines.length > 1 ? 4 : 2)) {
      case 0:
        return open.filter(() => random.chance(odds))
      case 1: {
        const cut = random.below(open.length + 1)
        return random.chance(0.5) ? open.slice(0, cut) : open.slice(cut)
      }
      default: {
        const through = new Set(lines.filter(() => random.chance(odds)))
        const torn = random.pick(lines)
        return open.filter(({ line }) => {
          return line === torn ? random.chance(0.5) : through.has(line)
        })
      }
    }
  }
}
