/**
 * What must hold in a checkpoint image before SQLite opens it. SQLite survives any bytes, but not
 * in any time: b-trees whose pages have the same child over and over hold more rows than anybody
 * can count, in a few pages.
 */
import { MediaError } from '../media/errors.ts'

export const INDEX_PAGE_SIZE = 4096

const MAGIC = 'SQLite format 3\0'
const FILE_HEADER = 100
/** As deep as SQLite's own cursors go. */
const DEPTH_MAX = 20

/** What the first byte of a page says; tables without rowids are stored as indexes are. */
const TYPES = {
  table: { interior: 5, leaf: 13 },
  index: { interior: 2, leaf: 10 },
} as const

export type TreeKind = keyof typeof TYPES

export class ImageCheck {
  readonly #image: Buffer
  readonly #pages: number
  /** INVARIANT: a page of a b-tree is entered once. */
  readonly #seen: Uint8Array

  /** Throws MediaError when the file header is not what Index.serialize() writes. */
  constructor(image: Buffer) {
    this.#image = image
    this.#pages = image.length / INDEX_PAGE_SIZE
    if (image.length < INDEX_PAGE_SIZE || !Number.isInteger(this.#pages)) {
      throw bad(0, `${image.length} bytes are no whole pages`)
    }
    if (image.toString('latin1', 0, MAGIC.length) !== MAGIC) throw bad(0, 'it is no SQLite file')
    this.#requireHeader('page size', image.readUInt16BE(16), INDEX_PAGE_SIZE)
    this.#requireHeader('write version', image[18]!, 1)
    this.#requireHeader('read version', image[19]!, 1)
    this.#requireHeader('reserved bytes in a page', image[20]!, 0)
    this.#requireHeader('page count', image.readUInt32BE(28), this.#pages)
    this.#requireHeader('text encoding', image.readUInt32BE(56), 1)
    this.#seen = new Uint8Array(this.#pages + 1)
  }

  /** Walks the b-tree at `root`; throws MediaError where it is not a tree. */
  walk(root: number, kind: TreeKind, depth = 0): void {
    if (!Number.isInteger(root) || root < 1 || root > this.#pages) {
      throw bad(0, `there is no page ${root}`)
    }
    const start = (root - 1) * INDEX_PAGE_SIZE
    if (depth > DEPTH_MAX) throw bad(start, 'a b-tree is too deep')
    if (this.#seen[root] === 1) throw bad(start, `page ${root} is in two places`)
    this.#seen[root] = 1
    const at = start + (root === 1 ? FILE_HEADER : 0)
    const type = this.#image[at]
    if (type === TYPES[kind].leaf) return
    if (type !== TYPES[kind].interior) throw bad(start, `page ${root} is no page of this ${kind}`)
    for (const child of this.#children(start, at)) this.walk(child, kind, depth + 1)
  }

  *#children(start: number, at: number): Generator<number> {
    const cells = this.#image.readUInt16BE(at + 3)
    if (at + 12 + 2 * cells > start + INDEX_PAGE_SIZE) throw bad(start, `${cells} cells in a page`)
    for (let cell = 0; cell < cells; cell++) {
      const place = this.#image.readUInt16BE(at + 12 + 2 * cell)
      if (place + 4 > INDEX_PAGE_SIZE) throw bad(start, 'a cell lies outside its page')
      yield this.#image.readUInt32BE(start + place)
    }
    yield this.#image.readUInt32BE(at + 8)
  }

  #requireHeader(what: string, found: number, expected: number): void {
    if (found !== expected) throw bad(0, `${what} ${found}, not ${expected}`)
  }
}

/** `place` is in bytes from the start of the image. */
function bad(place: number, sentence: string): MediaError {
  return new MediaError('checkpoint image', place, sentence)
}
