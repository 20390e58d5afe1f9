/** Errors that say the index itself cannot be relied on; everything else is a bug of ours. */
import Database from 'better-sqlite3'
import { MediaError } from '../media/errors.ts'

/** There was no room: for the image in memory, or for its scratch file. */
export function isIndexFull(error: unknown): boolean {
  return error instanceof Database.SqliteError && error.code === 'SQLITE_FULL'
}

/** A row has no place of its own: it is where its image is, which only the reader's caller knows. */
class BadRow extends MediaError {
  constructor(sentence: string) {
    super('index', 0, sentence)
  }
}

/**
 * What is wrong with the index, as an error of the region; undefined for errors that say nothing of
 * it. `offset` is where its image lies.
 */
export function indexDamage(error: unknown, offset: number): MediaError | undefined {
  if (error instanceof BadRow) return new MediaError(error.structure, offset, error.sentence)
  if (error instanceof MediaError) return error
  if (!(error instanceof Database.SqliteError) || isIndexFull(error)) return undefined
  return new MediaError('index', offset, `SQLite cannot read it (${error.message})`)
}

/** A row that no operation writes. Throws; indexDamage() tells where. */
export function badRow(table: string, key: string, fault: string): never {
  throw new BadRow(`${table} ${key} has ${fault}`)
}
