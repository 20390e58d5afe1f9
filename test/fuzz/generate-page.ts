/** Damage to the pages of an image: SQLite's file header, b-tree headers, pointers, cells. */
import type { Random } from '../crash/random.ts'
import type { Mutation } from './mutation.ts'

const PAGE = 4096
/** Pages the images of the bases have, more or less. */
const PAGES = 14

export function randomPage(random: Random): Mutation {
  const page = random.below(PAGES)
  const start = page * PAGE + (page === 0 ? 100 : 0)
  switch (random.below(6)) {
    case 0:
      // The file header: magic, page size, versions, counts, encoding.
      return { kind: 'page', at: random.below(100), hex: bytes(random, random.pick([1, 1, 2, 4])) }
    case 1:
      // A b-tree header: type, freeblock, cells, content start, fragments, right child.
      return { kind: 'page', at: start + random.below(12), hex: bytes(random, random.pick([1, 2])) }
    case 2:
      return { kind: 'page', at: start + 8 + 2 * random.below(80), hex: bytes(random, 2) }
    case 3:
      // A pointer to another page where an interior page would have one.
      return {
        kind: 'page',
        at: start + 8,
        hex: `0000000${(1 + random.below(PAGES)).toString(16)}`,
      }
    case 4:
      // A table leaf becomes interior, an index table: its cells are read as something else.
      return { kind: 'page', at: start, hex: random.pick(['02', '05', '0a', '0d', '00', 'ff']) }
    default:
      return {
        kind: 'page',
        at: page * PAGE + random.below(PAGE),
        hex: bytes(random, 1 + random.below(4)),
      }
  }
}

function bytes(random: Random, length: number): string {
  const fill = random.pick([0, 1, 0x7f, 0x80, 0xff, -1, -1, -1])
  return Buffer.from(
    Array.from({ length }, () => (fill === -1 ? random.below(256) : fill)),
  ).toString('hex')
}
