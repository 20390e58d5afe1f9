/** Seeded randomness: the same seed gives the same run, on every machine. */

export class Random {
  #state: number

  constructor(seed: number) {
    this.#state = seed >>> 0
  }

  /** 0 … 2^32 - 1 (mulberry32). */
  next(): number {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0
    let word = this.#state
    word = Math.imul(word ^ (word >>> 15), word | 1)
    word ^= word + Math.imul(word ^ (word >>> 7), word | 61)
    return (word ^ (word >>> 14)) >>> 0
  }

  /** 0 … limit - 1. */
  below(limit: number): number {
    return this.next() % limit
  }

  chance(probability: number): boolean {
    return this.next() < probability * 2 ** 32
  }

  pick<T>(list: readonly T[]): T {
    return list[this.below(list.length)]!
  }
}

/** One seed out of several numbers. */
export function mixSeeds(...numbers: readonly number[]): number {
  return mixAll(numbers)
}

export function mixAll(numbers: Iterable<number>): number {
  let seed = 0x9e3779b9
  for (const number of numbers) seed = new Random(seed ^ number).next()
  return seed
}
