/**
 * The rmap in the order of its owners: each file's blocks, their sum, and that they do not overlap.
 */
import type { Database } from 'better-sqlite3'
import { BLOCK_SIZE } from './layout.ts'
import type { Report } from './problem.ts'

type ExtentTuple = [owner: number, fileBlock: number, blocks: number, block: number]
type InodeTuple = [ino: number, mode: number, blocks: number]

/** `ino` is undefined when the extents of an owner have no inode. */
interface Inode {
  ino: number
  mode: number
  blocks: number
}

const FILE_BLOCKS_MAX = Math.floor(Number.MAX_SAFE_INTEGER / BLOCK_SIZE)

/** Two sorted streams, merged: both are in the order of inode numbers. */
export function checkExtents(database: Database, report: Report): void {
  const inodes = database
    .prepare<[], InodeTuple>('SELECT ino, mode, blocks FROM inode ORDER BY ino')
    .raw()
    .iterate()
  const extents = database
    .prepare<[], ExtentTuple>(
      `SELECT owner, file_block, blocks, block FROM rmap WHERE owner > 0 ORDER BY owner, file_block`,
    )
    .raw()
    .iterate()
  let inode = nextInode(inodes)
  let owner = new OwnerExtents(0)
  for (const [ino, fileBlock, blocks, block] of extents) {
    if (ino !== owner.ino) {
      inode = settle(inodes, inode, owner, report)
      owner = new OwnerExtents(ino)
    }
    owner.add(fileBlock, blocks, block, report)
  }
  inode = settle(inodes, inode, owner, report)
  settle(inodes, inode, new OwnerExtents(Number.POSITIVE_INFINITY), report)
}

/** Compares what an owner's extents add up to with its inode; inodes passed over have none. */
function settle(
  inodes: Iterator<InodeTuple>,
  from: Inode | undefined,
  owner: OwnerExtents,
  report: Report,
): Inode | undefined {
  let inode = from
  while (inode !== undefined && inode.ino < owner.ino) {
    compareBlocks(inode, 0, report)
    inode = nextInode(inodes)
  }
  if (inode?.ino === owner.ino) {
    compareBlocks(inode, owner.blocks, report)
    if ((inode.mode & 0o170000) !== 0o100000) owner.disown('is no regular file', report)
    return nextInode(inodes)
  }
  if (owner.blocks > 0 && Number.isFinite(owner.ino)) owner.disown('is missing', report)
  return inode
}

function compareBlocks(inode: Inode, blocks: number, report: Report): void {
  if (inode.blocks === blocks) return
  report.add({
    structure: 'inode',
    code: 'inode-blocks',
    inode: inode.ino,
    message: `inode ${inode.ino}: block count is ${inode.blocks}, should be ${blocks}`,
    fixable: true,
  })
}

function nextInode(inodes: Iterator<InodeTuple>): Inode | undefined {
  const next = inodes.next()
  if (next.done) return undefined
  const [ino, mode, blocks] = next.value
  return { ino, mode, blocks }
}

class OwnerExtents {
  readonly ino: number
  blocks = 0
  #end = 0
  #firstBlock = 0

  constructor(ino: number) {
    this.ino = ino
  }

  add(fileBlock: number, blocks: number, block: number, report: Report): void {
    if (this.blocks === 0) this.#firstBlock = block
    const at = { structure: 'rmap', inode: this.ino, offset: block * BLOCK_SIZE } as const
    if (fileBlock < 0 || fileBlock + blocks > FILE_BLOCKS_MAX) {
      const message = `inode ${this.ino}: an extent is at file block ${fileBlock}`
      report.add({ ...at, code: 'extent-file-block', message, fixable: true })
    } else if (this.blocks > 0 && fileBlock < this.#end) {
      const message = `inode ${this.ino}: two extents hold file block ${fileBlock}`
      report.add({ ...at, code: 'extent-overlap', message, fixable: true })
    }
    this.blocks += blocks
    this.#end = Math.max(this.#end, fileBlock + blocks)
  }

  disown(why: string, report: Report): void {
    report.add({
      structure: 'rmap',
      code: 'extent-owner',
      inode: this.ino,
      offset: this.#firstBlock * BLOCK_SIZE,
      message: `${this.blocks} blocks belong to inode ${this.ino}, which ${why}`,
      fixable: true,
    })
  }
}
