/**
 * Which free blocks a file gets next. The free table says what is free; the allocator adds what is
 * free but *busy*: windows set aside for growing files, and blocks freed by a record that is not
 * durable yet (reusing those would, after a crash, show one file another's data).
 *
 * INVARIANT: busy ranges are subsets of free ranges.
 */
import { type ByteRange, BadRanges as RangeSet } from '../dax/bad-ranges.ts'
import type { BlockRange, FreeSpaceTable } from '../index/free-space.ts'
import { BLOCK_SIZE, blockSpan, type Geometry } from '../media/geometry.ts'
import type { CachedInode } from './inode-cache.ts'
import { WholeUnits } from './whole-units.ts'

/** 2 MiB: what a growing file sets aside, so that neighbours seldom share a unit of poison. */
export const WINDOW_BLOCKS = 512

/** A crumb of so many blocks is good enough for any wish, when whole units are scarce. */
const CRUMB_BLOCKS = 64

/** Free ranges looked at before the best one so far is taken. */
const RANGES_EXAMINED = 256

interface PendingFree extends BlockRange {
  readonly sequence: number
}

export class Allocator {
  readonly #free: FreeSpaceTable
  readonly #busy = new RangeSet()
  readonly #windows = new Set<CachedInode>()
  /** Ordered by sequence. */
  #pending: PendingFree[] = []
  /**
   * Behind the last window that was searched for: new files follow one another. Goes back to what
   * becomes free, so that memory in use already is used again before more of a sparse file is.
   */
  #cursor: number
  /**
   * What the last search in vain came by, the best last: its transaction takes these before it
   * searches again, for to ask anew for each of a thousand pieces takes seconds.
   */
  #fragments: BlockRange[] = []
  /** The record that #fragments is for: what other records free may be better. */
  #searchedFor = 0
  readonly #start: number
  readonly #wholeUnits: WholeUnits
  /** Free blocks of the table, pending ones included. */
  freeBlocks: number

  /** Bytes of the region that failed: a moment ago, perhaps, and not on record yet. */
  readonly #bad: RangeSet

  constructor(
    free: FreeSpaceTable,
    { dataStartBlock, dataEndBlock }: Geometry,
    bad: RangeSet = new RangeSet(),
  ) {
    this.#bad = bad
    this.#wholeUnits = new WholeUnits(free, dataEndBlock - dataStartBlock)
    this.#free = free
    this.#start = dataStartBlock
    this.#cursor = dataStartBlock
    this.freeBlocks = free.total()
  }

  get pendingBlocks(): number {
    return this.#pending.reduce((sum, range) => sum + range.blocks, 0)
  }

  /**
   * Up to `wanted` contiguous blocks for `inode`, preferably right after region block `goal - 1`.
   * Only chooses: the caller takes them from the free table in its transaction, which writes the
   * record `sequence`. Undefined when nothing is left.
   */
  choose(
    inode: CachedInode,
    goal: number | undefined,
    wanted: number,
    sequence: number,
  ): BlockRange | undefined {
    const window = inode.window
    if (window !== undefined && (goal === undefined || window.block === goal)) {
      return this.#fromWindow(inode, window, wanted)
    }
    this.releaseWindow(inode)
    const next = this.#after(goal, wanted)
    const found = next ?? this.#find(wanted, sequence)
    if (found === undefined) return undefined
    if (next === undefined) this.#cursor = found.block + found.blocks
    if (found.blocks > wanted) {
      this.#setWindow(inode, found)
      this.#use(inode, wanted)
    }
    return { block: found.block, blocks: Math.min(found.blocks, wanted) }
  }

  /** Up to `units` whole, aligned, contiguous units for a checkpoint slot. */
  chooseUnits(units: number): BlockRange | undefined {
    const large = (from: number) => this.#free.large(from)
    const wanted = units * WINDOW_BLOCKS
    const shape = (part: BlockRange) => this.#healthyUnits(part)
    const search = () => longest(this.#scan(this.#start, wanted, large, shape))
    let found = search()
    if (found === undefined && this.#windows.size > 0) {
      this.releaseAllWindows()
      found = search()
    }
    if (found === undefined) return undefined
    const whole = Math.floor(found.blocks / WINDOW_BLOCKS)
    return { block: found.block, blocks: Math.min(units, whole) * WINDOW_BLOCKS }
  }

  /** Some contiguous free blocks that nobody has set aside, for failure injection. */
  findFree(blocks: number): BlockRange | undefined {
    const found = longest(this.#scan(this.#start, blocks, (from) => this.#free.from(from)))
    return found !== undefined && found.blocks >= blocks ? found : undefined
  }

  releaseWindow(inode: CachedInode): void {
    const window = inode.window
    if (window === undefined) return
    this.#busy.remove(window.block, window.blocks)
    this.#cursor = Math.min(this.#cursor, window.block)
    inode.window = undefined
    this.#windows.delete(inode)
  }

  /** After a rolled-back transaction: what windows said may not be true any more. */
  releaseAllWindows(): void {
    for (const inode of this.#windows) this.releaseWindow(inode)
    this.#fragments = []
  }

  /** Blocks that the record `sequence` freed: not to be reused before it is durable. */
  holdBack(sequence: number, ranges: readonly BlockRange[]): void {
    for (const { block, blocks } of ranges) {
      this.#busy.add(block, blocks)
      this.#pending.push({ sequence, block, blocks })
    }
  }

  /** Every record up to `sequence` is durable. */
  becameDurable(sequence: number): void {
    let count = 0
    for (const range of this.#pending) {
      if (range.sequence > sequence) break
      this.#busy.remove(range.block, range.blocks)
      this.#cursor = Math.min(this.#cursor, range.block)
      count++
    }
    if (count > 0) this.#pending = this.#pending.slice(count)
  }

  #setWindow(inode: CachedInode, range: BlockRange): void {
    this.#busy.add(range.block, range.blocks)
    inode.window = { block: range.block, blocks: range.blocks }
    this.#windows.add(inode)
  }

  #fromWindow(inode: CachedInode, window: BlockRange, wanted: number): BlockRange {
    const chosen = { block: window.block, blocks: Math.min(window.blocks, wanted) }
    this.#use(inode, wanted)
    return chosen
  }

  /** Moves the front of the inode's window past `wanted` blocks. */
  #use(inode: CachedInode, wanted: number): void {
    const window = inode.window
    if (window === undefined) return
    const used = Math.min(window.blocks, wanted)
    this.#busy.remove(window.block, used)
    if (used === window.blocks) {
      inode.window = undefined
      this.#windows.delete(inode)
    } else {
      inode.window = { block: window.block + used, blocks: window.blocks - used }
    }
  }

  /** The free blocks that continue the file where it ends. */
  #after(goal: number | undefined, wanted: number): BlockRange | undefined {
    if (goal === undefined) return undefined
    const range = this.#free.containing(goal)
    if (range === undefined) return undefined
    const part = this.#usable({ block: goal, blocks: range.block + range.blocks - goal })[0]
    return part !== undefined && part.block === goal ? clip(part, wanted) : undefined
  }

  #find(wanted: number, sequence: number): BlockRange | undefined {
    if (sequence !== this.#searchedFor) this.#fragments = []
    this.#searchedFor = sequence
    while (this.#fragments.length > 0) {
      const fragment = this.#fragments.pop()!
      if (this.#isUsable(fragment)) return clip(fragment, wanted)
    }
    const found = this.#search(wanted) ?? this.#searchOtherWindows(wanted)
    return found === undefined ? undefined : clip(found, wanted)
  }

  /** Next fit from the cursor, then from the start; large wishes go to aligned large ranges. */
  #search(wanted: number): BlockRange | undefined {
    if (wanted >= WINDOW_BLOCKS) {
      const found = this.#scan(this.#start, wanted, (from) => this.#free.large(from), alignedPart)
      if (found.length > 0) {
        this.#wholeUnits.took(wanted)
        return this.#best(found, wanted)
      }
    } else if (this.#wholeUnits.areScarce()) {
      const crumb = this.#searchCrumbs(wanted)
      if (crumb !== undefined) return crumb
    }
    const small = (block: number) => this.#free.from(block)
    const next = this.#scan(this.#cursor, wanted, small)
    if (isEnough(next, wanted)) return this.#best(next, wanted)
    return this.#best([...next, ...this.#scan(this.#start, wanted, small)], wanted)
  }

  /** Room in units that are in use already, also where others set windows aside. */
  #searchCrumbs(wanted: number): BlockRange | undefined {
    const enough = Math.min(wanted, CRUMB_BLOCKS)
    const small = (block: number) => this.#free.from(block)
    const next = this.#scan(this.#cursor, wanted, small, crumbOf)
    if (isEnough(next, enough)) return this.#best(next, wanted)
    if (this.#windows.size > 0) this.releaseAllWindows()
    const first = this.#scan(this.#start, wanted, small, crumbOf)
    return isEnough(first, enough) ? this.#best(first, wanted) : undefined
  }

  /** Before "no space": windows are only a wish. */
  #searchOtherWindows(wanted: number): BlockRange | undefined {
    if (this.#windows.size === 0) return undefined
    this.releaseAllWindows()
    return this.#search(wanted)
  }

  /** The longest; when it is not long enough, those like it come next. */
  #best(found: readonly BlockRange[], wanted: number): BlockRange | undefined {
    const best = longest(found)
    if (best === undefined || best.blocks >= wanted) return best
    const rest = found.filter((range) => range !== best && range.blocks * 2 >= best.blocks)
    this.#fragments = rest.reverse().sort((a, b) => a.blocks - b.blocks)
    return best
  }

  /** All that it came by: up to the first that is long enough, or until that was sought enough. */
  #scan(
    start: number,
    wanted: number,
    page: (from: number) => BlockRange[],
    shape: (part: BlockRange) => BlockRange | undefined = (part) => part,
  ): BlockRange[] {
    const found: BlockRange[] = []
    let examined = 0
    const around = this.#free.containing(start)
    const first = around === undefined ? [] : [tail(around, start)]
    for (let from = start, ranges = first; ; ranges = page(from)) {
      for (const range of ranges) {
        for (const part of this.#usable(range)) {
          const shaped = shape(part)
          if (shaped !== undefined) found.push(shaped)
          if (shaped !== undefined && shaped.blocks >= wanted) return found
        }
        if (++examined >= RANGES_EXAMINED && found.length > 0) return found
      }
      const last = ranges[ranges.length - 1]
      if (last === undefined && from > start) return found
      from = (last === undefined ? start : last.block) + 1
    }
  }

  /** Still free and not busy. */
  #isUsable({ block, blocks }: BlockRange): boolean {
    const range = this.#free.containing(block)
    if (range === undefined || range.block + range.blocks < block + blocks) return false
    return !this.#busy.overlaps(block, blocks)
  }

  /** The longest run of whole units in it without memory that failed. */
  #healthyUnits(range: BlockRange): BlockRange | undefined {
    const bad = this.#bad.within(range.block * BLOCK_SIZE, range.blocks * BLOCK_SIZE)
    const blocks = bad.map(({ offset, length }) => {
      const [first, count] = blockSpan(offset, length)
      return { offset: first, length: count }
    })
    const parts = without(range, blocks).map(alignedPart)
    return longest(parts.filter((part) => part !== undefined))
  }

  /** A free range without its busy parts. */
  #usable(range: BlockRange): BlockRange[] {
    return without(range, this.#busy.within(range.block, range.blocks))
  }
}

/** What is left of a range; `holes` are in blocks, in order. */
function without(range: BlockRange, holes: readonly ByteRange[]): BlockRange[] {
  if (holes.length === 0) return [range]
  const parts: BlockRange[] = []
  let at = range.block
  for (const { offset, length } of holes) {
    if (offset > at) parts.push({ block: at, blocks: offset - at })
    at = offset + length
  }
  const end = range.block + range.blocks
  if (end > at) parts.push({ block: at, blocks: end - at })
  return parts
}

/** What of a found range is set aside: to the end of the 2 MiB unit in which the wish ends. */
function clip(range: BlockRange, wanted: number): BlockRange {
  const end = Math.ceil((range.block + wanted) / WINDOW_BLOCKS) * WINDOW_BLOCKS
  return { block: range.block, blocks: Math.min(range.blocks, end - range.block) }
}

/** The first of the longest. */
function longest(ranges: readonly BlockRange[]): BlockRange | undefined {
  let best: BlockRange | undefined
  for (const range of ranges) if (best === undefined || range.blocks > best.blocks) best = range
  return best
}

function isEnough(found: readonly BlockRange[], blocks: number): boolean {
  return found.some((range) => range.blocks >= blocks)
}

/** The part of a range that begins at a unit boundary, if a whole unit is in it. */
function alignedPart(range: BlockRange): BlockRange | undefined {
  const block = Math.ceil(range.block / WINDOW_BLOCKS) * WINDOW_BLOCKS
  const blocks = range.block + range.blocks - block
  return blocks >= WINDOW_BLOCKS ? { block, blocks } : undefined
}

/** The part of a range in a unit that is partly in use: before its first whole unit, or behind. */
function crumbOf(range: BlockRange): BlockRange | undefined {
  const end = range.block + range.blocks
  const first = Math.ceil(range.block / WINDOW_BLOCKS) * WINDOW_BLOCKS
  const last = Math.floor(end / WINDOW_BLOCKS) * WINDOW_BLOCKS
  if (first > last) return range
  const head = { block: range.block, blocks: first - range.block }
  const rest = { block: last, blocks: end - last }
  const longest = head.blocks >= rest.blocks ? head : rest
  return longest.blocks > 0 ? longest : undefined
}

function tail(range: BlockRange, from: number): BlockRange {
  return { block: from, blocks: range.block + range.blocks - from }
}
