/**
 * The index: the filesystem's namespace and maps as SQLite tables. Derived, never the only copy:
 * the region has the checkpoint image and the journal it is rebuilt from.
 */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import Database from 'better-sqlite3'
import type { Change } from '../media/change.ts'
import { MediaError } from '../media/errors.ts'
import { DirentTable } from './dirents.ts'
import { FreeSpaceTable } from './free-space.ts'
import { ImageCheck, INDEX_PAGE_SIZE, type TreeKind } from './image-check.ts'
import { InodeTable } from './inodes.ts'
import { PoisonTable } from './poison.ts'
import { RmapTable } from './rmap.ts'
import { SCHEMA, TABLES } from './schema.ts'
import { XattrTable } from './xattrs.ts'

/**
 * SQLite's ceiling for an image in memory is 1 GiB; above half of it the index goes into a file.
 */
const MEMORY_IMAGE_MAX = 512 * 1024 * 1024

const SORTED = [...SCHEMA].sort(([, a], [, b]) => (a! < b! ? -1 : 1))

/** Below a MiB it does not matter what an image holds. */
const SPARSE_PAGES_MIN = 256

export { INDEX_PAGE_SIZE } from './image-check.ts'

export interface IndexOptions {
  /** Directory of the private scratch file; without it an image in memory is used when it fits. */
  readonly directory?: string | undefined
  /** Region offset of the image, for messages. */
  readonly offset?: number
}

export class Index {
  readonly database: Database.Database
  readonly inodes: InodeTable
  readonly dirents: DirentTable
  readonly xattrs: XattrTable
  readonly rmap: RmapTable
  readonly freeSpace: FreeSpaceTable
  readonly poison: PoisonTable
  readonly #begin: Database.Statement
  readonly #commit: Database.Statement
  readonly #rollback: Database.Statement
  readonly #pageCount: Database.Statement<[], number>
  readonly #freePages: Database.Statement<[], number>

  private constructor(database: Database.Database) {
    this.database = database
    // The index is rebuilt from the region after a crash: SQLite need not be durable.
    database.pragma('synchronous = OFF')
    database.pragma('journal_mode = MEMORY')
    database.pragma('temp_store = MEMORY')
    this.inodes = new InodeTable(database)
    this.dirents = new DirentTable(database)
    this.xattrs = new XattrTable(database)
    this.rmap = new RmapTable(database)
    this.freeSpace = new FreeSpaceTable(database)
    this.poison = new PoisonTable(database)
    this.#begin = database.prepare('BEGIN')
    this.#commit = database.prepare('COMMIT')
    this.#rollback = database.prepare('ROLLBACK')
    this.#pageCount = database.prepare<[], number>('PRAGMA page_count').pluck()
    this.#freePages = database.prepare<[], number>('PRAGMA freelist_count').pluck()
  }

  /** An index with the tables and nothing in them. */
  static create(): Index {
    const database = new Database(':memory:')
    database.pragma(`page_size = ${INDEX_PAGE_SIZE}`)
    for (const sql of TABLES) database.exec(sql)
    return new Index(database)
  }

  /**
   * Opens a checkpoint image from a region, which is untrusted: no trigger, view or function of
   * the image may run, so its schema must be ours to the letter. Throws MediaError.
   */
  static open(image: Buffer, options: IndexOptions = {}): Index {
    const inMemory = options.directory === undefined && image.length <= MEMORY_IMAGE_MAX
    let database: Database.Database | undefined
    try {
      const check = new ImageCheck(image)
      // The schema's own tree, before SQLite reads it.
      check.walk(1, 'table')
      database = inMemory
        ? new Database(image)
        : openScratch(image, options.directory ?? '/var/tmp')
      database.pragma('trusted_schema = OFF')
      database.pragma('cell_size_check = ON')
      for (const [root, kind] of requireSchema(database)) check.walk(root, kind)
      return new Index(database)
    } catch (error) {
      database?.close()
      const offset = options.offset ?? 0
      if (error instanceof MediaError) throw error.moved(offset)
      const sentence = `SQLite cannot read it (${(error as Error).message})`
      throw new MediaError('checkpoint image', offset, sentence)
    }
  }

  serialize(): Buffer {
    return this.database.serialize()
  }

  /** Bytes the next checkpoint image will have when the tables have grown by `growth` bytes. */
  imageSize(growth = 0): number {
    const pages = this.#pageCount.get() ?? 0
    const free = growth === 0 ? 0 : (this.#freePages.get() ?? 0)
    return pages * INDEX_PAGE_SIZE + Math.max(0, growth - free * INDEX_PAGE_SIZE)
  }

  /** Is most of the image pages that hold nothing any more? */
  isSparse(): boolean {
    const pages = this.#pageCount.get() ?? 0
    return pages >= SPARSE_PAGES_MIN && (this.#freePages.get() ?? 0) > pages / 2
  }

  hasFreePages(): boolean {
    return (this.#freePages.get() ?? 0) > 0
  }

  /** Makes the image as small as its rows allow. 0.5 s for a million files that are left. */
  compact(): void {
    this.database.exec('VACUUM')
  }

  begin(): void {
    this.#begin.run()
  }

  commit(): void {
    this.#commit.run()
  }

  rollback(): void {
    if (this.database.inTransaction) this.#rollback.run()
  }

  close(): void {
    this.database.close()
  }

  /** Applies one change: live and in replay alike. Throws MediaError when it does not fit. */
  apply(change: Change): void {
    switch (change.type) {
      case 'putInode':
        this.inodes.put(change.inode)
        break
      case 'removeInode':
        this.inodes.remove(change.ino)
        break
      case 'putDirent':
        this.dirents.put(change.parent, change.cookie, change.name, change.ino, change.kind)
        break
      case 'removeDirent':
        this.dirents.remove(change.parent, change.name)
        break
      case 'putXattr':
        this.xattrs.put(change.ino, change.name, change.value)
        break
      case 'removeXattr':
        this.xattrs.remove(change.ino, change.name)
        break
      case 'putExtent':
        this.rmap.put(change.extent)
        break
      case 'removeExtent':
        this.#must(
          this.rmap.remove(change.block, change.owner, change.fileBlock),
          change.block,
          'an extent to remove is not there',
        )
        break
      case 'allocate':
        this.#must(
          this.freeSpace.allocate(change.block, change.blocks),
          change.block,
          'blocks to allocate are not free',
        )
        break
      case 'free':
        this.#must(
          this.freeSpace.free(change.block, change.blocks),
          change.block,
          'blocks to free are free already',
        )
        break
      case 'putPoison':
        this.poison.put(change.block, change.blocks)
        break
      case 'removePoison':
        this.poison.remove(change.block, change.blocks)
        break
    }
  }

  #must(done: boolean, block: number, sentence: string): void {
    if (!done) throw new MediaError('index', block * INDEX_PAGE_SIZE, sentence)
  }
}

/** A private file, unlinked as soon as it is open: never a second truth, gone with the process. */
function openScratch(image: Buffer, directory: string): Database.Database {
  const folder = mkdtempSync(join(directory, 'holdfast-index-'))
  try {
    const path = join(folder, 'index.db')
    writeFileSync(path, image, { mode: 0o600 })
    return new Database(path)
  } finally {
    rmSync(folder, { recursive: true })
  }
}

/**
 * Ours to the letter, names included; returns the pages its b-trees begin at. In any order:
 * compact() puts the tables before the indexes.
 */
function requireSchema(database: Database.Database): [root: number, kind: TreeKind][] {
  const columns = 'type, name, tbl_name, sql, rootpage'
  const rows = database
    .prepare<[], [...string[], root: number]>(`SELECT ${columns} FROM sqlite_schema ORDER BY name`)
    .raw()
    .all()
  const same = rows.length === SORTED.length && rows.every((row, at) => isSame(row, SORTED[at]!))
  if (!same)
    throw new MediaError('checkpoint image', 0, 'its tables are not those of a holdfast index')
  return rows.map((row, at) => [row.at(-1) as number, kindOf(SORTED[at]!)])
}

function kindOf([type, , , sql]: readonly string[]): TreeKind {
  return type === 'table' && !sql?.endsWith('WITHOUT ROWID') ? 'table' : 'index'
}

/** The root page, which comes last, may be any. */
function isSame(row: readonly unknown[], expected: readonly string[]): boolean {
  return expected.every((column, at) => column === row[at])
}
