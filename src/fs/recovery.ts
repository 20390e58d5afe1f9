/** From a region to an index: load the checkpoint image, replay the journal. Writes nothing. */
import type { Memory } from '../dax/memory.ts'
import { Index } from '../index/index.ts'
import { loadImage } from '../journal/checkpoint.ts'
import { type ReplayResult, scanJournal } from '../journal/replay.ts'
import { MediaError } from '../media/errors.ts'
import type { Superblock } from '../media/superblock.ts'

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
  const index = Index.open(loadImage(memory, superblock), { directory: options.indexDirectory })
  try {
    // One SQLite transaction for the whole tail: a commit per record would double the time.
    index.begin()
    const replay = scanJournal(memory, superblock, {
      bootId: options.bootId,
      onTransaction(sequence, changes) {
        try {
          for (const change of changes) index.apply(change)
        } catch (error) {
          if (error instanceof MediaError) throw error
          const sentence = `transaction ${sequence} does not fit: ${(error as Error).message}`
          throw new MediaError('journal', superblock.geometry.journal[0].offset, sentence)
        }
      },
    })
    index.commit()
    return { index, replay }
  } catch (error) {
    index.close()
    throw error
  }
}
