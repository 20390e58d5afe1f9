/** Cuts a byte stream into lines without ever holding more than `limit` bytes of one. */

const NEWLINE = 0x0a

export class LineReader {
  readonly #limit: number
  #parts: Buffer[] = []
  #length = 0

  constructor(limit: number) {
    this.#limit = limit
  }

  /** Calls `onLine` for every complete line; false when a line is longer than the limit. */
  push(chunk: Buffer, onLine: (line: string) => void): boolean {
    let start = 0
    for (;;) {
      const end = chunk.indexOf(NEWLINE, start)
      const piece = end < 0 ? chunk.subarray(start) : chunk.subarray(start, end)
      if (this.#length + piece.length > this.#limit) return false
      this.#parts.push(piece)
      this.#length += piece.length
      if (end < 0) return true
      const line = Buffer.concat(this.#parts, this.#length).toString('utf8')
      this.#parts = []
      this.#length = 0
      onLine(line)
      start = end + 1
    }
  }
}
