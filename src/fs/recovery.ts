/** From a region to an index: load the checkpoint image, replay the journal. Writes nothing. */
import type { Memory } from '../dax/memory.ts'
import { badRow, indexDamage } from '../index/damage.ts'
import { Index } from '../index/index.ts'
import { loadImage } from '../journal/checkpoint.ts'
import { type ReplayResult, scanJournal } from '../journal/replay.ts'
import { MediaError } from '../media/errors.ts'
import { imageOffset, type Superblock } from '../media/superblock.ts'
import { isDirectory } from './modes.ts'

const ROOT = 1

export interface RecoveryOptions {
  /** This host's boot id: decides how much of the journal of a plain file can be trusted. */
  readonly bootId: string
  readonly indexDirectory?: string | undefined
}

export interface Recovered {
  readonly index: Index
  readonly replay: ReplayResult
}

export function recover(
  memory: Memory,
  superblock: Superblock,
  options: RecoveryOptions,
): Recovered {
  const offset = imageOffset(superblock)
  const image = loadImage(memory, superblock)
  const index = Index.open(image, { directory: options.indexDirectory, offset })
  try {
    // One SQLite transaction for the whole tail: a commit per record would double the time.
    index.begin()
    const replay = scanJournal(memory, superblock, {
      bootId: options.bootId,
      onTransaction(sequence, changes) {
        try {
          for (const change of changes) index.apply(change)
        } catch (error) {
          const damage = indexDamage(error, offset)
          if (damage === undefined) throw error
          const sentence = `transaction ${sequence} does not fit: ${damage.sentence}`
          throw new MediaError('journal', superblock.geometry.journal[0].offset, sentence)
        }
      },
    })
    index.commit()
    requireTables(index, superblock)
    return { index, replay }
  } catch (error) {
    index.close()
    throw indexDamage(error, offset) ?? error
  }
}

/**
 * What a mount relies on at once: where blocks are taken from, and which memory is bad. The rest is
 * checked row by row as it is used; all of it by fsck.
 */
function requireTables(index: Index, { geometry, slots }: Superblock): void {
  const { dataStartBlock, dataEndBlock, blocks } = geometry
  requireRanges(index, 'free', dataStartBlock, dataEndBlock)
  requireRanges(index, 'poison', 0, blocks)
  for (const { block, blocks: length } of slots.flat()) {
    if (index.freeSpace.overlapping(block, length).length === 0) continue
    badRow('the free table', `at ${block}`, 'blocks of a checkpoint slot')
  }
  const root = index.inodes.get(ROOT)
  if (root === undefined || !isDirectory(root.mode)) badRow('inode', '1', 'no root directory')
}

function requireRanges(index: Index, table: string, start: number, end: number): void {
  const rows = index.database
    .prepare<[], { block: unknown; blocks: unknown }>(
      `SELECT block, blocks FROM ${table} WHERE typeof(blocks) <> 'integer' OR blocks < 1
       OR block < ${start} OR block > ${end} OR blocks > ${end} - block LIMIT 1`,
    )
    .all()
  for (const { block, blocks } of rows)
    badRow(`the ${table} table`, `at ${block}`, `${blocks} blocks`)
}
