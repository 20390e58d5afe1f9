/** Errors that say the index itself cannot be relied on; everything else is a bug of ours. */
import Database from 'better-sqlite3'
import { MediaError } from '../media/errors.ts'

/** There was no room: for the image in memory, or for its scratch file. */
export function isIndexFull(error: unknown): boolean {
  return error instanceof Database.SqliteError && error.code === 'SQLITE_FULL'
}

/**
 * What is wrong with the index, as an error of the region; undefined for errors that say nothing of
 * it. `offset` is where its image lies.
 */
export function indexDamage(error: unknown, offset: number): MediaError | undefined {
  if (error instanceof MediaError) return error
  if (!(error instanceof Database.SqliteError) || isIndexFull(error)) return undefined
  return new MediaError('index', offset, `SQLite cannot read it (${error.message})`)
}

/** A row that no operation writes. Throws. */
export function badRow(table: string, key: string, fault: string): never {
  throw new MediaError('index', 0, `${table} ${key} has ${fault}`)
}
