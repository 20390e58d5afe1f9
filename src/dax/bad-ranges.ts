/** A sorted set of disjoint byte intervals: the memory of a device that is known to be bad. */

export interface ByteRange {
  readonly offset: number
  readonly length: number
}

export class BadRanges {
  /** Interval i is [starts[i], ends[i]); sorted, disjoint and not touching each other. */
  #starts: number[] = []
  #ends: number[] = []

  get empty(): boolean {
    return this.#starts.length === 0
  }

  /** Number of disjoint intervals. */
  get count(): number {
    return this.#starts.length
  }

  /** Bytes covered. */
  get bytes(): number {
    let total = 0
    for (let i = 0; i < this.#starts.length; i++) total += this.#ends[i]! - this.#starts[i]!
    return total
  }

  /** Adds [offset, offset + length); intervals that meet become one. */
  add(offset: number, length: number): void {
    if (length <= 0) return
    let start = offset
    let end = offset + length
    // "first that ends at or after start" takes in a neighbour that only touches.
    const first = this.#firstEndingFrom(start)
    let last = first
    while (last < this.#starts.length && this.#starts[last]! <= end) {
      start = Math.min(start, this.#starts[last]!)
      end = Math.max(end, this.#ends[last]!)
      last++
    }
    this.#starts.splice(first, last - first, start)
    this.#ends.splice(first, last - first, end)
  }

  /** Takes [offset, offset + length) out; an interval that sticks out keeps its rest. */
  remove(offset: number, length: number): void {
    if (length <= 0) return
    const end = offset + length
    const first = this.#firstEndingFrom(offset + 1)
    const restStarts: number[] = []
    const restEnds: number[] = []
    let last = first
    while (last < this.#starts.length && this.#starts[last]! < end) {
      if (this.#starts[last]! < offset) {
        restStarts.push(this.#starts[last]!)
        restEnds.push(offset)
      }
      if (this.#ends[last]! > end) {
        restStarts.push(end)
        restEnds.push(this.#ends[last]!)
      }
      last++
    }
    this.#starts.splice(first, last - first, ...restStarts)
    this.#ends.splice(first, last - first, ...restEnds)
  }

  overlaps(offset: number, length: number): boolean {
    return this.firstIn(offset, length) !== -1
  }

  /** The first bad byte in [offset, offset + length), or -1. Allocates nothing. */
  firstIn(offset: number, length: number): number {
    if (length <= 0 || this.#starts.length === 0) return -1
    const i = this.#firstEndingFrom(offset + 1)
    if (i === this.#starts.length || this.#starts[i]! >= offset + length) return -1
    return Math.max(offset, this.#starts[i]!)
  }

  /** The bad parts of [offset, offset + length), clipped to it. */
  within(offset: number, length: number): ByteRange[] {
    const end = offset + length
    const parts: ByteRange[] = []
    for (let i = this.#firstEndingFrom(offset + 1); i < this.#starts.length; i++) {
      const start = Math.max(offset, this.#starts[i]!)
      if (start >= end) break
      parts.push({ offset: start, length: Math.min(end, this.#ends[i]!) - start })
    }
    return parts
  }

  list(): ByteRange[] {
    return this.#starts.map((offset, i) => ({ offset, length: this.#ends[i]! - offset }))
  }

  clear(): void {
    this.#starts = []
    this.#ends = []
  }

  /** Index of the first interval whose end is >= `position`. */
  #firstEndingFrom(position: number): number {
    let low = 0
    let high = this.#ends.length
    while (low < high) {
      const middle = (low + high) >>> 1
      if (this.#ends[middle]! < position) low = middle + 1
      else high = middle
    }
    return low
  }
}
