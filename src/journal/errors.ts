/** The active half has no room for the record: a checkpoint must make some. */
export class JournalFullError extends Error {
  constructor(length: number) {
    super(`the journal has no room for a record of ${length} bytes`)
    this.name = 'JournalFullError'
  }
}

/** The operation must be split: a record takes at most a quarter of a journal half. */
export class RecordTooLargeError extends Error {
  constructor(length: number, most: number) {
    super(`a record of ${length} bytes; the journal takes ${most} at most`)
    this.name = 'RecordTooLargeError'
  }
}
