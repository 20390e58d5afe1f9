/** The dirent table: names are bytes, order is the cookie. */
import type { Database, Statement } from 'better-sqlite3'
import { direntNameFault, isFileType } from '../media/change-check.ts'
import { badRow } from './damage.ts'

export interface DirentRow {
  parent: number
  cookie: number
  name: Buffer
  ino: number
  kind: number
}

type Columns = [cookie: number, name: Buffer, ino: number, kind: number]

export class DirentTable {
  readonly #find: Statement<[number, Uint8Array], [cookie: number, ino: number, kind: number]>
  readonly #put: Statement
  readonly #remove: Statement
  readonly #after: Statement<[number, number], Columns>
  readonly #any: Statement<[number], number>
  readonly #names: Statement<[number], [parent: number, name: Buffer]>

  constructor(database: Database) {
    const find = database.prepare<[number, Uint8Array], [number, number, number]>(
      'SELECT cookie, ino, kind FROM dirent INDEXED BY dirent_name WHERE parent = ? AND name = ?',
    )
    this.#find = find.raw() as unknown as typeof find
    this.#put = database.prepare(
      'INSERT INTO dirent(parent, cookie, name, ino, kind) VALUES (?, ?, ?, ?, ?)',
    )
    this.#remove = database.prepare('DELETE FROM dirent WHERE parent = ? AND name = ?')
    const after = database.prepare<[number, number], Columns>(
      'SELECT cookie, name, ino, kind FROM dirent WHERE parent = ? AND cookie > ? ORDER BY cookie LIMIT 256',
    )
    this.#after = after.raw() as unknown as typeof after
    this.#any = database
      .prepare<[number], number>('SELECT 1 FROM dirent WHERE parent = ? LIMIT 1')
      .pluck()
    const names = database.prepare<[number], [number, Buffer]>(
      'SELECT parent, name FROM dirent WHERE ino = ?',
    )
    this.#names = names.raw() as unknown as typeof names
  }

  find(parent: number, name: Uint8Array): Omit<DirentRow, 'parent' | 'name'> | undefined {
    const row = this.#find.get(parent, name)
    if (row === undefined) return undefined
    const [cookie, ino, kind] = row
    requireTarget(parent, ino, kind)
    return { cookie, ino, kind }
  }

  /** The inode number only: what a lookup needs; 0 when there is no such name. */
  inodeOf(parent: number, name: Uint8Array): number {
    return this.find(parent, name)?.ino ?? 0
  }

  put(parent: number, cookie: number, name: Uint8Array, ino: number, kind: number): void {
    this.#put.run(parent, cookie, name, ino, kind)
  }

  remove(parent: number, name: Uint8Array): void {
    this.#remove.run(parent, name)
  }

  /** Up to 256 entries after the cookie, in cookie order. */
  after(parent: number, cookie: number): DirentRow[] {
    return this.#after.all(parent, cookie).map((row) => toRow(parent, row))
  }

  isEmpty(parent: number): boolean {
    return this.#any.get(parent) === undefined
  }

  /** Every name of an inode (hard links). */
  names(ino: number): { parent: number; name: Buffer }[] {
    return this.#names.all(ino).map((row) => ({ parent: row[0], name: row[1] }))
  }
}

function toRow(parent: number, [cookie, name, ino, kind]: Columns): DirentRow {
  requireTarget(parent, ino, kind)
  const fault = Buffer.isBuffer(name) ? direntNameFault(name) : 'a name of no bytes'
  if (fault !== undefined) badRow('an entry of directory', String(parent), fault)
  if (!Number.isSafeInteger(cookie)) badRow('an entry of directory', String(parent), 'no cookie')
  return { parent, cookie, name, ino, kind }
}

/** A region is untrusted: what an entry leads to is told to the kernel as it stands. */
function requireTarget(parent: number, ino: number, kind: number): void {
  if (Number.isSafeInteger(ino) && ino >= 1 && isFileType(kind)) return
  badRow('an entry of directory', String(parent), `inode ${ino} of type ${kind}`)
}
