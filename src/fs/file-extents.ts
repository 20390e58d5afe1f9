/**
 * Where one file's blocks are, beside its inode while it is in use. A mirror of the file's rmap
 * rows, sorted by file block, so that the data path asks no SQL.
 */
import { EXTENT_UNWRITTEN, type ExtentRow } from '../media/change.ts'

/** `blocks` blocks of the file from `fileBlock` on lie at region block `block`. */
export interface Extent {
  fileBlock: number
  block: number
  blocks: number
  flags: number
}

export function isUnwritten(extent: Extent): boolean {
  return (extent.flags & EXTENT_UNWRITTEN) !== 0
}

/** INVARIANT: sorted by fileBlock, not overlapping. */
export class FileExtents {
  readonly list: Extent[]

  constructor(rows: readonly ExtentRow[]) {
    this.list = rows.map(({ fileBlock, block, blocks, flags }) => ({
      fileBlock,
      block,
      blocks,
      flags,
    }))
  }

  /** Index of the first extent that ends after `fileBlock`: it contains it, or is the next one. */
  indexAt(fileBlock: number): number {
    const { list } = this
    let low = 0
    let high = list.length
    while (low < high) {
      const middle = (low + high) >>> 1
      const extent = list[middle]!
      if (extent.fileBlock + extent.blocks <= fileBlock) low = middle + 1
      else high = middle
    }
    return low
  }

  /** The extent that contains `fileBlock`; undefined in a hole. */
  at(fileBlock: number): Extent | undefined {
    const extent = this.list[this.indexAt(fileBlock)]
    return extent !== undefined && extent.fileBlock <= fileBlock ? extent : undefined
  }

  /** The extents that overlap [fileBlock, fileBlock + blocks). */
  overlapping(fileBlock: number, blocks: number): Extent[] {
    const first = this.indexAt(fileBlock)
    let last = first
    while (last < this.list.length && this.list[last]!.fileBlock < fileBlock + blocks) last++
    return this.list.slice(first, last)
  }

  insert(extent: Extent): void {
    const at = this.indexAt(extent.fileBlock)
    if (at === this.list.length) this.list.push(extent)
    else this.list.splice(at, 0, extent)
  }

  remove(extent: Extent): void {
    const at = this.indexAt(extent.fileBlock)
    if (this.list[at] !== extent) throw new Error('the extent is not in the list')
    this.list.splice(at, 1)
  }

  /** First file block after the last extent. */
  get end(): number {
    const last = this.list[this.list.length - 1]
    return last === undefined ? 0 : last.fileBlock + last.blocks
  }
}
