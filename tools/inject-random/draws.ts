/** Where the failures of a storm fall: a sequence that a seed determines, for regions of one size. */

const BLOCK = 4096

export interface Draw {
  readonly offset: number
  readonly length: number
}

/** mulberry32: small, and the same everywhere. Returns numbers from 0 up to, not including, 1. */
export function generator(seed: number): () => number {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
}

/** Nine of ten failures are one page, as real ones; the others up to `most` bytes. */
export function* draws(seed: number, regionSize: number, most: number): Generator<Draw> {
  const random = generator(seed)
  const blocks = Math.floor(regionSize / BLOCK)
  for (;;) {
    const block = Math.floor(random() * blocks)
    const long = random() < 0.1
    const wanted = 1 + Math.floor(random() * (long ? most / BLOCK : 1))
    yield { offset: block * BLOCK, length: Math.min(wanted, blocks - block) * BLOCK }
  }
}
