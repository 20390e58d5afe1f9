/** The two copies of the superblock in a region: which to believe, and how to replace them. */
import { randomBytes, randomUUID } from 'node:crypto'
import { type Memory, MemoryFailure } from '../dax/memory.ts'
import { FeatureError, MediaError } from './errors.ts'
import { BLOCK_SIZE, type Geometry, geometryFor } from './geometry.ts'
import { decodeSuperblock, encodeSuperblock } from './superblock-codec.ts'
import {
  KNOWN_RO_COMPAT,
  type LastHolder,
  NIL_UUID,
  type Slots,
  type Superblock,
} from './superblock-layout.ts'

export type {
  BlockRange,
  CheckpointPointer,
  LastHolder,
  ShutdownReason,
  Slots,
  Superblock,
  SuperblockState,
} from './superblock-layout.ts'

/**
 * The superblock of a mount that begins. Epochs of this boot are told from older ones, because
 * after a host crash the tail of a journal on a plain file must stay unreplayed even at the next
 * mount.
 */
export function mountedSuperblock(
  superblock: Superblock,
  mount: { readonly bootId: string; readonly holder: LastHolder; readonly lastEpoch: number },
): Superblock {
  const epoch = Math.max(superblock.epoch, mount.lastEpoch) + 1
  const sameBoot = superblock.bootId === mount.bootId
  return {
    ...superblock,
    state: 'dirty',
    epoch,
    bootId: mount.bootId,
    bootEpoch: sameBoot ? superblock.bootEpoch : epoch,
    holder: mount.holder,
  }
}

/** A copy, or why there is none. */
export type SuperblockCopy = Superblock | MediaError | MemoryFailure

export interface SuperblockPair {
  /** The copy to go by; undefined when neither can be trusted. */
  readonly best: Superblock | undefined
  readonly primary: SuperblockCopy
  readonly backup: SuperblockCopy
  /** Unknown ro_compat features: whoever mounts must not write. */
  readonly readOnly: boolean
}

export interface WrittenSuperblocks {
  /** What is on media now: the superblock given, one generation on. */
  readonly superblock: Superblock
  /** The copy that could not be written, if one could not. */
  readonly failures: readonly MemoryFailure[]
}

/** A fresh filesystem's superblock, for mkfs. */
export function createSuperblock(options: {
  readonly geometry: Geometry
  readonly label: string
  readonly slots: Slots
  /** Seconds since 1970. */
  readonly created: number
  readonly uuid?: string
}): Superblock {
  return {
    compat: 0,
    roCompat: 0,
    incompat: 0,
    uuid: options.uuid ?? randomUUID(),
    label: options.label,
    created: options.created,
    journalSeed: randomBytes(4).readUInt32LE(0),
    geometry: options.geometry,
    generation: 0,
    epoch: 0,
    state: 'clean',
    shutdownReason: 'none',
    shutdownOffset: 0,
    bootId: NIL_UUID,
    bootEpoch: 0,
    holder: null,
    checkpoint: { slot: 0, sequence: 0, length: 0, crc: 0 },
    slots: options.slots,
    poison: [],
  }
}

/** Region offset of the index's image: that is where its rows are. */
export function imageOffset(
  { slots, checkpoint }: Pick<Superblock, 'slots' | 'checkpoint'>,
  slot: 0 | 1 = checkpoint.slot,
): number {
  return (slots[slot][0]?.block ?? 0) * BLOCK_SIZE
}

function readCopy(memory: Memory, offset: number): SuperblockCopy {
  try {
    const bytes = new Uint8Array(BLOCK_SIZE)
    memory.read(offset, bytes, 0, BLOCK_SIZE)
    const superblock = decodeSuperblock(bytes, offset)
    const { size, backup } = superblock.geometry
    if (size > memory.size) {
      const sentence = `the filesystem has ${size} bytes, the region only ${memory.size}`
      return new MediaError('superblock', offset, sentence)
    }
    // A copy of the whole region at another place would pass every other check.
    if (offset !== 0 && offset !== backup) {
      return new MediaError('superblock', offset, `a backup copy belongs at ${backup}`)
    }
    return superblock
  } catch (error) {
    if (error instanceof MediaError || error instanceof MemoryFailure) return error
    throw error
  }
}

/** Reads both copies; throws neither for malformed nor for failing memory. */
export function readSuperblocks(memory: Memory): SuperblockPair {
  if (memory.size < BLOCK_SIZE) {
    const error = new MediaError('superblock', 0, `a region of ${memory.size} bytes has none`)
    return { best: undefined, primary: error, backup: error, readOnly: false }
  }
  const primary = readCopy(memory, 0)
  const backup = readBackup(memory, primary)
  const best = choose(primary, backup)
  const readOnly = best !== undefined && (best.roCompat & ~KNOWN_RO_COMPAT) !== 0
  return { best, primary, backup, readOnly }
}

function readBackup(memory: Memory, primary: SuperblockCopy): SuperblockCopy {
  // A region that grew keeps its backup where the filesystem ends, and only the primary knows that.
  if (!(primary instanceof Error)) return readCopy(memory, primary.geometry.backup)
  try {
    return readCopy(memory, geometryFor(memory.size).backup)
  } catch (error) {
    if (error instanceof MediaError) return error
    throw error
  }
}

function choose(primary: SuperblockCopy, backup: SuperblockCopy): Superblock | undefined {
  // An older copy without the feature would be a way round the refusal.
  if (primary instanceof FeatureError || backup instanceof FeatureError) return undefined
  if (primary instanceof Error) return backup instanceof Error ? undefined : backup
  if (backup instanceof Error) return primary
  if (primary.uuid !== backup.uuid) return undefined
  return backup.generation > primary.generation ? backup : primary
}

/** The superblock to go by, or the error that says best why there is none. */
export function requireSuperblock(pair: SuperblockPair): Superblock {
  const { best, primary, backup } = pair
  if (best) return best
  if (primary instanceof FeatureError) throw primary
  if (backup instanceof FeatureError) throw backup
  if (primary instanceof Error) throw primary
  const sentence = 'the two copies belong to different filesystems (was mkfs interrupted?)'
  throw new MediaError('superblock', 0, sentence)
}

/**
 * Writes both copies, each durable before the other is touched: at any moment one of them is whole.
 * A poisoned copy is reported and the other written all the same; throws MemoryFailure when neither
 * could be.
 */
export function writeSuperblocks(memory: Memory, superblock: Superblock): WrittenSuperblocks {
  const next = { ...superblock, generation: superblock.generation + 1 }
  const bytes = encodeSuperblock(next)
  const failures: MemoryFailure[] = []
  for (const offset of writingOrder(memory, next.geometry)) {
    try {
      memory.write(offset, bytes, 0, BLOCK_SIZE)
      memory.flush(offset, BLOCK_SIZE)
    } catch (error) {
      if (!(error instanceof MemoryFailure)) throw error
      failures.push(error)
    }
  }
  if (failures.length === 2) throw failures[0]!
  return { superblock: next, failures }
}

/**
 * The primary first, unless it is the only good one: a crash may have torn the backup, and the next
 * crash would tear the primary.
 */
function writingOrder(memory: Memory, { primary, backup }: Geometry): readonly number[] {
  const copies = [readCopy(memory, primary), readCopy(memory, backup)] as const
  const [first, second] = copies
  if (first instanceof Error) return [primary, backup]
  const behind = second instanceof Error || second.generation < first.generation
  return behind ? [backup, primary] : [primary, backup]
}

/**
 * Makes the region no filesystem. mkfs does so first: an old copy of a higher generation would
 * otherwise win against the new filesystem's.
 */
export function eraseSuperblocks(memory: Memory, geometry: Geometry): void {
  for (const offset of [geometry.backup, geometry.primary]) {
    memory.zero(offset, BLOCK_SIZE)
    memory.flush(offset, BLOCK_SIZE)
  }
}
