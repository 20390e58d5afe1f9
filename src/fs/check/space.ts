/**
 * Every block of the region has one fate: owned (rmap), free, or quarantined poison. The three
 * tables are walked together in the order of blocks.
 */
import type { Database } from 'better-sqlite3'
import { EXTENT_UNWRITTEN } from '../../media/change.ts'
import { BLOCK_SIZE, OWNER_NAMES } from './layout.ts'
import type { Problem, Report, Structure } from './problem.ts'

const RMAP = 0
const FREE = 1
const POISON = 2
const STRUCTURES: readonly Structure[] = ['rmap', 'free', 'poison']

type SpaceTuple = [block: number, blocks: number, source: number, owner: number, flags: number]

/** Each arm is read in the order of its key, so SQLite merges instead of sorting. */
const WALK = `
  SELECT block, blocks, ${RMAP} AS source, owner, flags FROM rmap
  UNION ALL SELECT block, blocks, ${FREE}, 0, 0 FROM free
  UNION ALL SELECT block, blocks, ${POISON}, 0, 0 FROM poison
  ORDER BY block`

/** What was last seen of a table. */
interface Last {
  block: number
  blocks: number
  end: number
  owner: number
}

const nothing = (): Last => ({ block: -1, blocks: 0, end: 0, owner: 0 })

export function checkSpace(database: Database, report: Report, blocks: number): void {
  const walker = new SpaceWalker(report, blocks)
  for (const tuple of database.prepare<[], SpaceTuple>(WALK).raw().iterate()) walker.step(tuple)
  walker.finish()
}

class SpaceWalker {
  readonly #report: Report
  readonly #blocks: number
  readonly #last: [Last, Last, Last] = [nothing(), nothing(), nothing()]
  /** Blocks below this one have a fate. */
  #covered = 0

  constructor(report: Report, blocks: number) {
    this.#report = report
    this.#blocks = blocks
  }

  step([block, blocks, source, owner, flags]: SpaceTuple): void {
    if (block < 0 || blocks < 1 || block + blocks > this.#blocks) {
      const what = source === RMAP ? 'extent-range' : `${STRUCTURES[source]}-range`
      const whose = source === RMAP ? ` of ${nameOwner(owner)}` : ''
      this.#add(
        what,
        source,
        block,
        owner,
        `${blocks} blocks at ${block}${whose}: not in the region`,
      )
      return
    }
    if (source === RMAP) this.#stepExtent(block, owner, flags)
    else if (source === FREE) this.#stepFree(block)
    else this.#stepPoison(block)
    if (block > this.#covered) this.#addGap(this.#covered, block)
    this.#covered = Math.max(this.#covered, block + blocks)
    const last = this.#last[source as 0 | 1 | 2]
    last.block = block
    last.blocks = blocks
    last.end = Math.max(last.end, block + blocks)
    last.owner = owner
  }

  finish(): void {
    if (this.#covered < this.#blocks) this.#addGap(this.#covered, this.#blocks)
  }

  #stepExtent(block: number, owner: number, flags: number): void {
    const last = this.#last[RMAP]
    if (owner === 0 || (owner < 0 && !OWNER_NAMES.has(owner))) {
      this.#add('extent-owner', RMAP, block, owner, `block ${block} belongs to owner ${owner}`)
    }
    if (flags !== 0 && (flags !== EXTENT_UNWRITTEN || owner < 0)) {
      const message = `the extent of ${nameOwner(owner)} at block ${block} has flags ${flags}`
      this.#add('extent-flags', RMAP, block, owner, message)
    }
    if (block < this.#last[FREE].end) this.#addOverlap(block, 'owned and free')
    if (block >= last.end) return
    const both = `${nameOwner(last.owner)} and ${nameOwner(owner)}`
    if (owner < 0 || last.owner < 0) {
      this.#add('extent-metadata', RMAP, block, owner, `block ${block} belongs to ${both}`)
    } else {
      // A file frees its blocks without asking who else has them.
      this.#add('extent-shared', RMAP, block, owner, `block ${block} belongs to ${both}`)
    }
  }

  #stepFree(block: number): void {
    const last = this.#last[FREE]
    if (block < last.end) this.#addOverlap(block, 'free twice')
    else if (block === last.end && last.blocks > 0) {
      this.#add('free-adjacent', FREE, block, 0, `free ranges meet at block ${block}, unjoined`)
    }
    if (block < this.#last[RMAP].end) this.#addOverlap(block, 'free and owned')
    if (block < this.#last[POISON].end) this.#addOverlap(block, 'free and poisoned')
  }

  /** Poison may lie in an extent: that file has lost those bytes, and they stay its own. */
  #stepPoison(block: number): void {
    if (block < this.#last[FREE].end) this.#addOverlap(block, 'poisoned and free')
    if (block >= this.#last[POISON].end) return
    this.#add('poison-overlap', POISON, block, 0, `poison at block ${block} is listed twice`)
  }

  #addOverlap(block: number, how: string): void {
    this.#add('free-overlap', FREE, block, 0, `block ${block} is ${how}`)
  }

  #addGap(start: number, end: number): void {
    const message = `${end - start} blocks at ${start} are neither owned nor free`
    this.#add('space-lost', FREE, start, 0, message)
  }

  #add(code: string, source: number, block: number, owner: number, message: string): void {
    const structure = STRUCTURES[source]!
    const offset = block * BLOCK_SIZE
    const problem: Problem = { structure, code, message, offset, fixable: true }
    this.#report.add(owner > 0 ? { ...problem, inode: owner } : problem)
  }
}

export function nameOwner(owner: number): string {
  return OWNER_NAMES.get(owner) ?? `inode ${owner}`
}
