/** The xattr table. */
import type { Database, Statement } from 'better-sqlite3'

export class XattrTable {
  readonly #get: Statement<[number, Uint8Array], Buffer>
  readonly #put: Statement
  readonly #remove: Statement
  readonly #list: Statement<[number], Buffer>

  constructor(database: Database) {
    this.#get = database
      .prepare<[number, Uint8Array], Buffer>('SELECT value FROM xattr WHERE ino = ? AND name = ?')
      .pluck()
    this.#put = database.prepare('INSERT OR REPLACE INTO xattr(ino, name, value) VALUES (?, ?, ?)')
    this.#remove = database.prepare('DELETE FROM xattr WHERE ino = ? AND name = ?')
    this.#list = database
      .prepare<[number], Buffer>('SELECT name FROM xattr WHERE ino = ? ORDER BY name')
      .pluck()
  }

  get(ino: number, name: Uint8Array): Buffer | undefined {
    return this.#get.get(ino, name)
  }

  put(ino: number, name: Uint8Array, value: Uint8Array): void {
    this.#put.run(ino, name, value)
  }

  remove(ino: number, name: Uint8Array): void {
    this.#remove.run(ino, name)
  }

  list(ino: number): Buffer[] {
    return this.#list.all(ino)
  }
}
