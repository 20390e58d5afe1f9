/** The inode table. */
import type { Database, Statement } from 'better-sqlite3'
import type { InodeRow } from '../media/change.ts'

/** The columns of COLUMNS, in its order: 18 numbers and the target. */
type Columns = [...Numbers, Uint8Array | null]
type Six = [number, number, number, number, number, number]
type Numbers = [...Six, ...Six, ...Six]

const COLUMNS =
  'ino, mode, uid, gid, nlink, rdev, flags, size, blocks, parent, ' +
  'atime, atime_ns, mtime, mtime_ns, ctime, ctime_ns, btime, btime_ns, target'

export class InodeTable {
  readonly #get: Statement<[number], Columns>
  readonly #put: Statement
  readonly #remove: Statement
  readonly #count: Statement<[], number>
  readonly #orphans: Statement<[], number>

  constructor(database: Database) {
    const get = database.prepare<[number], Columns>(`SELECT ${COLUMNS} FROM inode WHERE ino = ?`)
    this.#get = get.raw() as unknown as typeof get
    const marks = COLUMNS.split(',').map(() => '?')
    this.#put = database.prepare(`INSERT OR REPLACE INTO inode(${COLUMNS}) VALUES (${marks})`)
    this.#remove = database.prepare('DELETE FROM inode WHERE ino = ?')
    this.#count = database.prepare<[], number>('SELECT count(*) FROM inode').pluck()
    this.#orphans = database.prepare<[], number>('SELECT ino FROM inode WHERE nlink = 0').pluck()
  }

  get(ino: number): InodeRow | undefined {
    const row = this.#get.get(ino)
    if (row === undefined) return undefined
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
