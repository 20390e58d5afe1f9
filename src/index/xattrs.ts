/** The xattr table. */
import type { Database, Statement } from 'better-sqlite3'
import { badRow } from './damage.ts'

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
    const value = this.#get.get(ino, name)
    return value === undefined ? undefined : requireBytes(ino, value)
  }

  put(ino: number, name: Uint8Array, value: Uint8Array): void {
    this.#put.run(ino, name, value)
  }

  remove(ino: number, name: Uint8Array): void {
    this.#remove.run(ino, name)
  }

  list(ino: number): Buffer[] {
    return this.#list.all(ino).map((name) => requireBytes(ino, name))
  }
}

function requireBytes(ino: number, value: Buffer): Buffer {
  return Buffer.isBuffer(value) ? value : badRow('an attribute of inode', String(ino), 'no bytes')
}
