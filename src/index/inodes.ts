/** The inode table. */
import type { Database, Statement } from 'better-sqlite3'
import type { InodeRow } from '../media/change.ts'
import { inodeFault } from '../media/change-check.ts'
import { badRow } from './damage.ts'

/** The columns of COLUMNS, in its order: 18 numbers and the target. */
type Columns = [...Numbers, Uint8Array | null]
type Six = [number, number, number, number, number, number]
type Numbers = [...Six, ...Six, ...Six]

const COLUMNS =
  'ino, mode, uid, gid, nlink, rdev, flags, size, blocks, parent, ' +
  'atime, atime_ns, mtime, mtime_ns, ctime, ctime_ns, btime, btime_ns, target'

const NAMES = COLUMNS.split(', ')
const SAFE = Number.MAX_SAFE_INTEGER
const U32 = 2 ** 32 - 1
/** What the record of an inode can hold, in the order of COLUMNS. */
const LIMITS = [
  ...[SAFE, U32, U32, U32, U32, SAFE, U32, SAFE, SAFE, SAFE],
  ...[SAFE, U32, SAFE, U32, SAFE, U32, SAFE, U32],
]
const LEAST = NAMES.map((name) => (/^.time$/.test(name) ? -SAFE : 0))

/**
 * A named inode without links is damage, for fsck, and so is a removed directory with entries:
 * freeing it would leave names to nowhere, or in none.
 */
export const ORPHANS = `SELECT ino FROM inode WHERE nlink = 0 AND ino <> 1
  AND NOT EXISTS(SELECT 1 FROM dirent WHERE dirent.ino = inode.ino)
  AND NOT EXISTS(SELECT 1 FROM dirent WHERE dirent.parent = inode.ino)`

export class InodeTable {
  readonly #get: Statement<[number], Columns>
  readonly #put: Statement
  readonly #remove: Statement
  readonly #count: Statement<[], number>
  readonly #orphans: Statement<[], number>
  readonly #links: Statement<[number], number>

  constructor(database: Database) {
    const get = database.prepare<[number], Columns>(`SELECT ${COLUMNS} FROM inode WHERE ino = ?`)
    this.#get = get.raw() as unknown as typeof get
    const marks = COLUMNS.split(',').map(() => '?')
    this.#put = database.prepare(`INSERT OR REPLACE INTO inode(${COLUMNS}) VALUES (${marks})`)
    this.#remove = database.prepare('DELETE FROM inode WHERE ino = ?')
    this.#count = database.prepare<[], number>('SELECT count(*) FROM inode').pluck()
    this.#orphans = database.prepare<[], number>(ORPHANS).pluck()
    const links = 'SELECT nlink FROM inode WHERE ino = ?'
    this.#links = database.prepare<[number], number>(links).pluck()
  }

  get(ino: number): InodeRow | undefined {
    const row = this.#get.get(ino)
    if (row === undefined) return undefined
    const inode = toInode(row)
    const fault = rowFault(row) ?? inodeFault(inode)
    if (fault !== undefined) badRow('inode', String(ino), fault)
    return inode
  }

  /** Its nlink alone, in a fraction of the time of get(). */
  links(ino: number): number | undefined {
    return this.#links.get(ino)
  }

  put(inode: InodeRow): void {
    this.#put.run(
      inode.ino,
      inode.mode,
      inode.uid,
      inode.gid,
      inode.nlink,
      inode.rdev,
      inode.flags,
      inode.size,
      inode.blocks,
      inode.parent,
      inode.atime,
      inode.atimeNs,
      inode.mtime,
      inode.mtimeNs,
      inode.ctime,
      inode.ctimeNs,
      inode.btime,
      inode.btimeNs,
      inode.target,
    )
  }

  remove(ino: number): void {
    this.#remove.run(ino)
  }

  count(): number {
    return this.#count.get() ?? 0
  }

  /** Inodes without a name: open when the daemon stopped, freed at mount. A scan. */
  orphans(): number[] {
    return this.#orphans.all()
  }
}

function toInode(row: Columns): InodeRow {
  return {
    ino: row[0],
    mode: row[1],
    uid: row[2],
    gid: row[3],
    nlink: row[4],
    rdev: row[5],
    flags: row[6],
    size: row[7],
    blocks: row[8],
    parent: row[9],
    atime: row[10],
    atimeNs: row[11],
    mtime: row[12],
    mtimeNs: row[13],
    ctime: row[14],
    ctimeNs: row[15],
    btime: row[16],
    btimeNs: row[17],
    target: row[18],
  }
}

/** Numbers in the range of their fields, of the types STRICT tables have: a region is untrusted. */
function rowFault(row: Columns): string | undefined {
  for (let column = 0; column < LIMITS.length; column++) {
    const value = row[column]
    if (
      Number.isSafeInteger(value) &&
      (value as number) >= LEAST[column]! &&
      (value as number) <= LIMITS[column]!
    )
      continue
    return `the value ${String(value)} in column ${NAMES[column]}`
  }
  return row[18] === null || row[18] instanceof Uint8Array ? undefined : 'a target of no bytes'
}
