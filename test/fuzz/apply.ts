/** Applies mutations to a valid region. */
import Database from 'better-sqlite3'
import type { SimulatedMemory } from '../../src/dax/simulated-memory.ts'
import { SCHEMA } from '../../src/index/schema.ts'
import { loadImage } from '../../src/journal/checkpoint.ts'
import { crc32c } from '../../src/media/checksum.ts'
import { BLOCK_SIZE } from '../../src/media/geometry.ts'
import { readSuperblocks, requireSuperblock, type Superblock } from '../../src/media/superblock.ts'
import { superblockCodec } from '../../src/media/superblock-codec.ts'
import { JournalMutator } from './apply-journal.ts'
import type { Copies, Hex, Mutation, Structure } from './mutation.ts'

/** Mutations after one that left no superblock to go by change bytes only. */
export function applyMutations(memory: SimulatedMemory, mutations: readonly Mutation[]): void {
  // The bases are valid: this is where everything lies, whatever the mutations say of it.
  const superblock = requireSuperblock(readSuperblocks(memory))
  const journal = new JournalMutator(memory, superblock)
  // Bad memory comes last: nothing can be changed in it any more.
  const last = (mutation: Mutation) => (mutation.kind === 'poison' ? 1 : 0)
  for (const mutation of [...mutations].sort((a, b) => last(a) - last(b))) {
    applyOne(memory, superblock, journal, mutation)
  }
}

function applyOne(
  memory: SimulatedMemory,
  superblock: Superblock,
  journal: JournalMutator,
  mutation: Mutation,
): void {
  switch (mutation.kind) {
    case 'superblock':
      editSuperblocks(memory, mutation.copies, (bytes) => {
        const at = superblockCodec.offsets[mutation.field]! + mutation.skip
        Buffer.from(mutation.hex, 'hex').copy(bytes, Math.min(at, BLOCK_SIZE - 1))
      })
      break
    case 'record':
      journal.header(mutation)
      break
    case 'payload':
      journal.payload(mutation)
      break
    case 'repeat':
      journal.repeat(mutation)
      break
    case 'drop':
      journal.drop(mutation)
      break
    case 'forge':
      journal.forge(mutation)
      break
    case 'sql':
      editImage(memory, superblock, (image) => runSql(image, mutation.sql, mutation.loose))
      break
    case 'page':
      editImage(memory, superblock, (image) => {
        Buffer.from(mutation.hex, 'hex').copy(image, mutation.at % image.length)
        return image
      })
      break
    case 'blind':
      scribble(memory, placeOf(superblock, mutation.structure), mutation)
      break
    case 'poison': {
      const { offset, length } = placeOf(superblock, mutation.structure)
      const at = offset + (mutation.at % length)
      memory.poison(at, Math.min(mutation.pages * BLOCK_SIZE, memory.size - at))
    }
  }
}

function scribble(
  memory: SimulatedMemory,
  { offset, length }: { offset: number; length: number },
  { at, hex }: { at: number; hex: Hex },
): void {
  const bytes = Buffer.from(hex, 'hex')
  const place = offset + (at % length)
  memory.write(place, bytes, 0, Math.min(bytes.length, memory.size - place))
}

function placeOf(superblock: Superblock, structure: Structure): { offset: number; length: number } {
  const { geometry, slots, checkpoint } = superblock
  const slotPlace = (slot: 0 | 1) => ({
    offset: slots[slot][0]!.block * BLOCK_SIZE,
    length: slots[slot][0]!.blocks * BLOCK_SIZE,
  })
  switch (structure) {
    case 'primary':
      return { offset: geometry.primary, length: BLOCK_SIZE }
    case 'backup':
      return { offset: geometry.backup, length: BLOCK_SIZE }
    case 'journal': {
      // The beginning of the halves, where the records are.
      const half = geometry.journal[checkpoint.slot]
      return { offset: half.offset, length: 64 * 1024 }
    }
    case 'image':
      return { offset: slotPlace(checkpoint.slot).offset, length: checkpoint.length }
    case 'older image':
      return { ...slotPlace(checkpoint.slot === 0 ? 1 : 0), length: checkpoint.length }
    case 'region':
      return { offset: 0, length: geometry.size }
  }
}

function editSuperblocks(
  memory: SimulatedMemory,
  copies: Copies,
  edit: (bytes: Buffer) => void,
): void {
  const places = { primary: [0], backup: [memory.size - BLOCK_SIZE] }
  const all = copies === 'both' ? [...places.primary, ...places.backup] : places[copies]
  for (const offset of all) {
    const bytes = Buffer.alloc(BLOCK_SIZE)
    try {
      memory.read(offset, bytes, 0, BLOCK_SIZE)
    } catch {
      continue
    }
    edit(bytes)
    bytes.writeUInt32LE(crc32c(bytes, 4, BLOCK_SIZE - 4), 0)
    memory.write(offset, bytes, 0, BLOCK_SIZE)
  }
}

/** The changed image goes where the old one was, and both superblocks tell its length and CRC. */
function editImage(
  memory: SimulatedMemory,
  superblock: Superblock,
  edit: (image: Buffer) => Buffer,
): void {
  const { checkpoint, slots } = superblock
  const extent = slots[checkpoint.slot][0]!
  let image: Buffer
  try {
    image = edit(loadImage(memory, currentOf(memory, superblock)))
    if (image.length > extent.blocks * BLOCK_SIZE) return
    memory.write(extent.block * BLOCK_SIZE, image, 0, image.length)
  } catch {
    // An image that other mutations have made unreadable stays as it is.
    return
  }
  editSuperblocks(memory, 'both', (bytes) => {
    bytes.writeBigUInt64LE(BigInt(image.length), superblockCodec.offsets.imageLength!)
    bytes.writeUInt32LE(crc32c(image, 0, image.length), superblockCodec.offsets.imageCrc!)
  })
}

function currentOf(memory: SimulatedMemory, superblock: Superblock): Superblock {
  const { best } = readSuperblocks(memory)
  return best === undefined ? superblock : { ...superblock, checkpoint: best.checkpoint }
}

/** `loose`: values of any type go into the columns; afterwards the schema is what it was. */
function runSql(image: Buffer, sql: string, loose = false): Buffer {
  if (!loose) return execute(image, (database) => database.exec(sql))
  const schema = execute(image, (database) => setSchema(database, loosened))
  const changed = execute(schema, (database) => database.exec(sql))
  return execute(changed, (database) => setSchema(database, (text) => text))
}

function loosened(sql: string): string {
  return sql.replace(/ STRICT, WITHOUT/, ' WITHOUT').replace(/ STRICT$/, '')
}

function setSchema(database: Database.Database, change: (sql: string) => string): void {
  database.pragma('writable_schema = ON')
  const update = database.prepare('UPDATE sqlite_schema SET sql = ? WHERE name = ?')
  for (const [, name, , sql] of SCHEMA) update.run(change(sql!), name)
}

function execute(image: Buffer, change: (database: Database.Database) => void): Buffer {
  const database = new Database(image)
  try {
    database.unsafeMode(true)
    change(database)
    return database.serialize()
  } catch {
    return image
  } finally {
    database.close()
  }
}
