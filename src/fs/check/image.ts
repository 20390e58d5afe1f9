/** What SQLite says of the image itself: its pages, its b-trees, its indexes. */
import type { Database } from 'better-sqlite3'

/** SQLite stops after so many messages. */
const MESSAGES = 20

/** Sentences; none for a sound image. */
export function checkImage(database: Database): string[] {
  try {
    const rows = database.pragma(`integrity_check(${MESSAGES})`) as { integrity_check: string }[]
    return rows.map((row) => row.integrity_check).filter((message) => message !== 'ok')
  } catch (error) {
    return [(error as Error).message]
  }
}
