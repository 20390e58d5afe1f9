/**
 * Blocks that two files claim. Both files stay; the one that was changed last keeps the blocks, for
 * what is in them is likelier its own. The other one loses the range, and is told which. Metadata
 * keeps its blocks whatever files claim.
 */
import { rangesOverlap } from '../../index/free-space.ts'
import { BLOCK_SIZE, BLOCKS_PER_UNIT } from '../../media/geometry.ts'
import type { BlockRange } from '../../media/superblock.ts'
import { nameOwner } from '../check/space.ts'
import { pathOf } from '../failure.ts'
import type { RepairContext } from './context.ts'

interface Claim {
  readonly block: number
  readonly blocks: number
  readonly owner: number
  readonly fileBlock: number
  readonly flags: number
}

interface Loss extends BlockRange {
  readonly winner: Claim
}

/** Runs when every row is in the region, of metadata or a file; sees all overlaps in one walk. */
export function repairOverlaps(context: RepairContext): void {
  for (const cluster of [...overlapping(context)]) settle(context, cluster)
}

/** Groups of rows that hang together by blocks they share. */
function* overlapping({ index }: RepairContext): Generator<Claim[]> {
  const rows = index.database
    .prepare<[], Claim>(
      `SELECT block, blocks, owner, file_block AS fileBlock, flags FROM rmap
       ORDER BY block, owner, file_block`,
    )
    .iterate()
  let cluster: Claim[] = []
  let end = 0
  for (const row of rows) {
    if (row.block >= end) {
      if (cluster.length > 1) yield cluster
      cluster = []
    }
    cluster.push(row)
    end = Math.max(end, row.block + row.blocks)
  }
  if (cluster.length > 1) yield cluster
}

function settle(context: RepairContext, cluster: readonly Claim[]): void {
  const kept: Claim[] = []
  for (const claim of ranked(context, cluster)) {
    const lost = lossesTo(kept, claim)
    if (lost.length > 0) cutOut(context, claim, lost)
    for (const part of without(claim, lost)) kept.splice(firstBehind(kept, part.block), 0, part)
  }
}

/** What others that are kept have of the claim; `kept` is disjoint, in the order of blocks. */
function lossesTo(kept: readonly Claim[], claim: Claim): Loss[] {
  const lost: Loss[] = []
  const end = claim.block + claim.blocks
  for (let i = firstBehind(kept, claim.block); i < kept.length; i++) {
    const winner = kept[i]!
    if (winner.block >= end) break
    const block = Math.max(claim.block, winner.block)
    lost.push({ block, blocks: Math.min(end, winner.block + winner.blocks) - block, winner })
  }
  return lost
}

/** The place of the first that ends behind `block`. */
function firstBehind(kept: readonly Claim[], block: number): number {
  let low = 0
  let high = kept.length
  while (low < high) {
    const middle = (low + high) >>> 1
    const claim = kept[middle]!
    if (claim.block + claim.blocks > block) high = middle
    else low = middle + 1
  }
  return low
}

/**
 * The likeliest owner first: metadata; then what was changed last, then made last; and last what
 * claims metadata, too, and is wrong for certain.
 */
function ranked({ index }: RepairContext, cluster: readonly Claim[]): Claim[] {
  const changed = index.database
    .prepare<[number], number>('SELECT mtime FROM inode WHERE ino = ?')
    .pluck()
  const times = new Map(cluster.map(({ owner }) => [owner, changed.get(owner) ?? 0]))
  const metadata = cluster.filter(({ owner }) => owner < 0)
  const isWrong = (claim: Claim) => metadata.some((row) => rangesOverlap(claim, row))
  const ranks = new Map(cluster.map((row) => [row, row.owner < 0 ? 0 : isWrong(row) ? 2 : 1]))
  return [...cluster].sort(
    (a, b) =>
      ranks.get(a)! - ranks.get(b)! ||
      times.get(b.owner)! - times.get(a.owner)! ||
      b.owner - a.owner ||
      a.fileBlock - b.fileBlock,
  )
}

/** What is left of a claim; the ranges are parts of it, in order. */
function without(claim: Claim, lost: readonly BlockRange[]): Claim[] {
  const parts: Claim[] = []
  let at = claim.block
  const part = (block: number, end: number): Claim => {
    return {
      ...claim,
      block,
      blocks: end - block,
      fileBlock: claim.fileBlock + block - claim.block,
    }
  }
  for (const range of lost) {
    if (range.block > at) parts.push(part(at, range.block))
    at = Math.max(at, range.block + range.blocks)
  }
  const end = claim.block + claim.blocks
  if (at < end) parts.push(part(at, end))
  return parts
}

function cutOut(context: RepairContext, claim: Claim, lost: readonly Loss[]): void {
  const { index, actions } = context
  index.rmap.remove(claim.block, claim.owner, claim.fileBlock)
  for (const part of without(claim, lost)) index.rmap.put(part)
  for (const range of lost) {
    const { winner } = range
    const fileBlock = claim.fileBlock + range.block - claim.block
    const done = lose(context, claim, fileBlock, range.blocks)
    const where = `${range.blocks * BLOCK_SIZE} bytes at ${fileBlock * BLOCK_SIZE}`
    const loser = `inode ${claim.owner}: ${where} of ${nameOf(context, claim)} are ${done}`
    const keeper =
      winner.owner < 0
        ? `the ${nameOwner(winner.owner)} has their blocks`
        : `inode ${winner.owner} keeps their blocks for ${nameOf(context, winner)}`
    actions.add('extent-shared', `${loser}; ${keeper}`)
  }
}

function nameOf({ index }: RepairContext, { owner }: Claim): string {
  return pathOf(index, owner) ?? 'a file without a name'
}

/** Returns what the range is now. */
function lose(context: RepairContext, claim: Claim, from: number, blocks: number): string {
  if (context.overlap === 'zero') return 'zeros now'
  const { index, zeroed } = context
  const pieces = freePieces(context, blocks)
  if (pieces === undefined) {
    const free = index.freeSpace.total() * BLOCK_SIZE
    return `zeros now (only ${free} bytes are free, too few to quarantine them)`
  }
  let fileBlock = from
  for (const piece of pieces) {
    index.freeSpace.allocate(piece.block, piece.blocks)
    index.rmap.put({ ...piece, owner: claim.owner, fileBlock, flags: 0 })
    index.poison.put(piece.block, piece.blocks)
    zeroed.push(piece)
    fileBlock += piece.blocks
  }
  return 'quarantined: reading them fails'
}

/**
 * That many free blocks: in one piece if one is near, or else in several. Whole units are broken
 * last, for the image that this repair writes may need them. Undefined when there are too few.
 */
function freePieces(context: RepairContext, blocks: number): BlockRange[] | undefined {
  const { index, geometry } = context
  const near = index.freeSpace.from(geometry.dataStartBlock)
  const whole = near.find((range) => range.blocks >= blocks)
  if (whole !== undefined) return [{ block: whole.block, blocks }]
  const pieces: BlockRange[] = []
  let missing = blocks
  for (const large of [false, true]) {
    for (const range of freeRanges(context)) {
      if (range.blocks >= BLOCKS_PER_UNIT !== large) continue
      const piece = { block: range.block, blocks: Math.min(range.blocks, missing) }
      pieces.push(piece)
      missing -= piece.blocks
      if (missing === 0) return pieces
    }
  }
  return undefined
}

function* freeRanges({ index, geometry }: RepairContext): Generator<BlockRange> {
  for (let from = geometry.dataStartBlock; ; ) {
    const ranges = index.freeSpace.from(from)
    yield* ranges
    const last = ranges.at(-1)
    if (last === undefined) return
    from = last.block + last.blocks
  }
}
