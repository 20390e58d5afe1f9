/**
 * What is to happen in each cell of the matrix: which memory fails, what was going on, and how the
 * failure comes. Tables and rules only; cell.ts makes it happen. docs/FAILURE.md says it in words.
 */

export const BLOCKS = [
  'data of an open file',
  'data of a closed file',
  'unwritten extent',
  'free space',
  'superblock, primary',
  'superblock, backup',
  'journal, active',
  'journal, unused',
  'checkpoint, current',
  'checkpoint, superseded',
] as const
export type Block = (typeof BLOCKS)[number]

export const OPERATIONS = [
  'none',
  'read',
  'write',
  'mmap load',
  'mmap store',
  'truncate',
  'unlink',
  'fsync',
  'rename',
  'checkpoint',
  'freeze',
] as const
export type Operation = (typeof OPERATIONS)[number]

/**
 * soft: the device is told, as by the kernel; sigbus: the page faults when it is touched next;
 * hwpoison: the kernel itself fails the page (device-dax only).
 */
export const METHODS = ['soft', 'sigbus', 'hwpoison'] as const
export type Method = (typeof METHODS)[number]

export interface Cell {
  readonly block: Block
  readonly operation: Operation
  readonly method: Method
}

/** Each field is one word, or words between `|` where both are right. */
export interface Outcome {
  /** How the operation in flight ended: `ok`, an errno, or the signal its process died of. */
  readonly operation: string
  /** A read of healthy bytes through the handle that was open: `dead process` when it has died. */
  readonly handle: string
  /** The same through a new open. */
  readonly reopened: string
  /** A read of the failed bytes through a new open; `no file` where no file has them. */
  readonly hit: string
  /** Reading and writing another open file. */
  readonly bystander: string
  readonly state: string
  /** What was reported: kind and action. */
  readonly report: string
  /** The next mount: `mounts`, or `repair` when fsck.holdfast --repair must run before. */
  readonly next: string
}

/** A failure there is the end of this mount. */
const METADATA: ReadonlySet<Block> = new Set<Block>([
  'superblock, primary',
  'superblock, backup',
  'journal, active',
  'checkpoint, current',
])

export function needsFreshMount({ block }: Cell): boolean {
  return METADATA.has(block)
}

/** Is the operation done to the file that is hit, or to another one? */
export function onVictim({ block }: Cell): boolean {
  return block === 'data of an open file' || block === 'unwritten extent'
}

const FINE: Outcome = {
  operation: 'ok',
  handle: 'ok',
  reopened: 'ok',
  hit: 'no file',
  bystander: 'ok',
  state: 'mounted',
  report: 'none',
  next: 'mounts',
}

export function expected(cell: Cell): Outcome {
  const { block, method } = cell
  if (METADATA.has(block)) return method === 'sigbus' ? latent(cell) : shutDown(cell)
  const noticed = method !== 'sigbus' || touches(cell)
  switch (block) {
    case 'data of an open file':
      return noticed ? killed(cell) : discovered(cell)
    case 'unwritten extent':
      return noticed ? killed(cell) : unnoticed(cell)
    case 'data of a closed file':
      return { ...unlinkable(cell, FINE), hit: 'EIO', report: 'data: handles killed' }
    default:
      return { ...unlinkable(cell, FINE), report: noticed ? 'free: quarantined' : 'none' }
  }
}

/** Does the operation itself touch the failed page? */
function touches({ block, operation }: Cell): boolean {
  switch (block) {
    case 'data of an open file':
      return !['none', 'truncate', 'unlink', 'fsync', 'rename'].includes(operation)
    case 'unwritten extent':
      return operation === 'write' || operation === 'mmap store'
    case 'checkpoint, superseded':
      return operation === 'checkpoint'
    default:
      return false
  }
}

/** The handles of the file are dead, its names are not, and other files go on. */
function killed(cell: Cell): Outcome {
  const { block, operation } = cell
  const mapped = operation.startsWith('mmap')
  const byName = ['none', 'unlink', 'rename'].includes(operation)
  const gone = operation === 'unlink'
  return {
    ...FINE,
    operation: mapped ? 'SIGBUS' : byName ? 'ok' : 'EIO',
    handle: mapped ? 'dead process' : 'EIO',
    reopened: gone ? 'ENOENT' : 'ok',
    hit: gone ? 'ENOENT' : hitAfterKill(block, operation),
    report: 'data: handles killed',
  }
}

/**
 * A dirty page of a mapping is whole, in memory of its own: written back while it is revoked, it
 * heals the file. An unwritten extent reads as zeros without being touched.
 */
function hitAfterKill(block: Block, operation: Operation): string {
  if (operation === 'mmap store' || operation === 'write') return 'ok|EIO'
  return block === 'unwritten extent' ? 'ok' : 'EIO'
}

/** The operation goes past the fault; the read that looks for it finds it. */
function discovered(cell: Cell): Outcome {
  if (cell.operation === 'unlink') return { ...unlinkable(cell, FINE), hit: 'ENOENT' }
  return { ...FINE, hit: 'EIO', handle: 'EIO', report: 'data: handles killed' }
}

/** Nobody needs the memory of an unwritten extent before it is written. */
function unnoticed(cell: Cell): Outcome {
  const gone = cell.operation === 'unlink'
  return { ...unlinkable(cell, FINE), hit: gone ? 'ENOENT' : 'ok' }
}

/** Every operation is EIO, every mapping is gone, and the copies must be restored. */
function shutDown({ operation }: Cell): Outcome {
  const mapped = operation.startsWith('mmap')
  // A name goes at once: the failure may come after that.
  const before = operation === 'none' ? 'ok' : operation === 'unlink' ? 'ok|EIO' : 'EIO'
  return {
    operation: mapped ? 'SIGBUS' : before,
    handle: mapped ? 'dead process' : 'EIO',
    reopened: 'EIO',
    hit: 'no file',
    bystander: 'EIO',
    state: 'shutdown',
    report: 'metadata: shutdown',
    next: 'repair',
  }
}

/**
 * Metadata in use is written, not read, while a filesystem is mounted: a fault in it shows with the
 * next write to it. By then the journal and the checkpoint have been superseded.
 */
function latent(cell: Cell): Outcome {
  const superblock = cell.block.startsWith('superblock')
  if (cell.operation === 'checkpoint') {
    if (superblock) return shutDown(cell)
    // Superseded by one checkpoint, met by the next: the slot, and the half of the journal.
    return { ...FINE, report: 'free: quarantined' }
  }
  return { ...unlinkable(cell, FINE), next: superblock ? 'repair' : 'mounts' }
}

function unlinkable({ operation }: Cell, outcome: Outcome): Outcome {
  return operation === 'unlink' ? { ...outcome, reopened: 'ENOENT' } : outcome
}

/** The fields in which a cell is not as it should be. */
export function differences(wanted: Outcome, found: Outcome): string[] {
  return (Object.keys(wanted) as (keyof Outcome)[])
    .filter((field) => !wanted[field].split('|').includes(found[field]))
    .map((field) => `${field}: expected ${wanted[field]}, found ${found[field]}`)
}

/**
 * A slice with every operation, and every block failing softly and by a fault. hwpoison has the
 * cells of soft, but for the backup superblock: the device would have a failed end until it boots.
 */
export function quickCells(methods: readonly Method[] = ['soft', 'sigbus']): Cell[] {
  const cells: Cell[] = OPERATIONS.map((operation) => ({
    block: 'data of an open file',
    operation,
    method: 'soft',
  }))
  const others: readonly [Block, Operation][] = [
    ['data of an open file', 'read'],
    ['data of an open file', 'mmap load'],
    ['data of a closed file', 'read'],
    ['unwritten extent', 'write'],
    ['free space', 'write'],
    ['journal, unused', 'fsync'],
    ['checkpoint, superseded', 'checkpoint'],
  ]
  for (const [block, operation] of others) {
    cells.push({ block, operation, method: 'sigbus' })
    if (block !== 'data of an open file') cells.push({ block, operation, method: 'soft' })
  }
  cells.push({ block: 'superblock, primary', operation: 'freeze', method: 'soft' })
  cells.push({ block: 'superblock, backup', operation: 'checkpoint', method: 'sigbus' })
  cells.push({ block: 'journal, active', operation: 'mmap load', method: 'soft' })
  cells.push({ block: 'checkpoint, current', operation: 'write', method: 'soft' })
  const soft = cells.filter(({ method }) => method === 'soft')
  const poison = soft.map((cell): Cell => ({ ...cell, method: 'hwpoison' }))
  cells.push({ block: 'superblock, primary', operation: 'rename', method: 'sigbus' })
  cells.push({ block: 'superblock, backup', operation: 'rename', method: 'soft' })
  cells.push({ block: 'journal, active', operation: 'checkpoint', method: 'sigbus' })
  cells.push({ block: 'checkpoint, current', operation: 'checkpoint', method: 'sigbus' })
  return [...cells, ...poison].filter(({ method }) => methods.includes(method))
}

export function allCells(methods: readonly Method[]): Cell[] {
  return methods.flatMap((method) =>
    BLOCKS.flatMap((block) => OPERATIONS.map((operation) => ({ block, operation, method }))),
  )
}
