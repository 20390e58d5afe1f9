/** A buffer that grows and is used again: what the journal's hot path assembles records in. */
export class ByteWriter {
  bytes: Buffer
  /** INVARIANT: bytes [0, length) are written; length <= bytes.length. */
  length = 0

  constructor(capacity = 4096) {
    // Not allocUnsafe: records must not carry another buffer's bytes onto media.
    this.bytes = Buffer.alloc(capacity)
  }

  reset(): void {
    this.length = 0
  }

  /** Appends `size` bytes of unspecified content and returns where they start. */
  take(size: number): number {
    const at = this.length
    const end = at + size
    if (end > this.bytes.length) this.#grow(end)
    this.length = end
    return at
  }

  append(source: Uint8Array): void {
    const at = this.take(source.length)
    const { bytes } = this
    // A name is shorter than the cost of a call into the runtime.
    if (source.length > 32) bytes.set(source, at)
    else for (let index = 0; index < source.length; index += 1) bytes[at + index] = source[index]!
  }

  /** Appends zeros up to the next multiple of `alignment`, a power of two. */
  pad(alignment: number): void {
    const start = this.length
    const size = -start & (alignment - 1)
    this.take(size)
    this.bytes.fill(0, start, start + size)
  }

  #grow(needed: number): void {
    const grown = Buffer.alloc(Math.max(needed, 2 * this.bytes.length))
    this.bytes.copy(grown, 0, 0, this.length)
    this.bytes = grown
  }
}
