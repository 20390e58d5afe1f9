/** The superblock's layout on media and its shape in memory. */
import type { Geometry } from './geometry.ts'
import type { Layout, StructOf } from './layout.ts'

export const SUPERBLOCK_MAGIC = 'HOLDFAST'
export const SUPERBLOCK_VERSION = 1
export const NIL_UUID = '00000000-0000-0000-0000-000000000000'

/** Extents a checkpoint slot may have. */
export const MAX_SLOT_EXTENTS = 64
/** Poisoned metadata ranges the superblock remembers. */
export const MAX_POISON_RANGES = 16

/** Features this version knows, one bit each. */
export const KNOWN_RO_COMPAT = 0
export const KNOWN_INCOMPAT = 0

export const LABEL_SIZE = 64

/** The position in these lists is the code on media: only ever append. */
export const STATES = ['clean', 'dirty', 'shutdown'] as const
export const SHUTDOWN_REASONS = [
  'none',
  /** Memory under metadata failed. */
  'metadata-failure',
  /** The device is going away (MF_MEM_PRE_REMOVE). */
  'removed',
  /** The index contradicts itself, or SQLite said so. */
  'corrupt-index',
  /** Metadata read back from the region was malformed. */
  'corrupt-media',
  /** An administrator asked for it. */
  'forced',
  /** The host could not write back to the region file. */
  'io-error',
] as const

export type SuperblockState = (typeof STATES)[number]
export type ShutdownReason = (typeof SHUTDOWN_REASONS)[number]

/** Blocks [block, block + blocks) of the region. */
export interface BlockRange {
  readonly block: number
  readonly blocks: number
}

/** Who had the filesystem mounted last. */
export interface LastHolder {
  readonly pid: number
  /** Cut to what the label on media holds. */
  readonly host: string
  readonly mountpoint: string
  /** Seconds since 1970. */
  readonly since: number
}

export interface CheckpointPointer {
  /** Which of the two slots holds the current image. */
  readonly slot: 0 | 1
  /** The image holds every transaction up to this one. */
  readonly sequence: number
  /** Bytes of the image; 0 before mkfs wrote the first one. */
  readonly length: number
  readonly crc: number
}

export type Slots = readonly [readonly BlockRange[], readonly BlockRange[]]

export interface Superblock {
  readonly compat: number
  readonly roCompat: number
  readonly incompat: number
  readonly uuid: string
  readonly label: string
  /** Seconds since 1970. */
  readonly created: number
  /** Secret start value of every journal record's CRC: nobody without it can forge a record. */
  readonly journalSeed: number
  readonly geometry: Geometry
  /** INVARIANT: grows with every write; the copy with the higher one wins. */
  readonly generation: number
  /** INVARIANT: grows with every mount. */
  readonly epoch: number
  /** 'clean' promises that the checkpoint holds every transaction: the journal is not needed. */
  readonly state: SuperblockState
  readonly shutdownReason: ShutdownReason
  /** Where the memory failed, or what is corrupt lies, bytes; 0 without meaning for other reasons. */
  readonly shutdownOffset: number
  /** Boot id of the host at the last mount; NIL_UUID before the first. */
  readonly bootId: string
  /** Epoch of the first mount of that boot: records of older epochs count only up to a mark. */
  readonly bootEpoch: number
  readonly holder: LastHolder | null
  readonly checkpoint: CheckpointPointer
  /** INVARIANT: whole units of data space, none twice. */
  readonly slots: Slots
  /** Metadata blocks known to be poisoned; the journal goes round them. */
  readonly poison: readonly BlockRange[]
}

export const BLOCK_RANGE = [
  ['block', 'u64', 'first block'],
  ['blocks', 'u64', 'number of blocks'],
] as const satisfies Layout

export const SUPERBLOCK = [
  ['crc', 'u32', 'CRC32C of the 4092 bytes behind it'],
  ['version', 'u32', 'of this layout: 1'],
  ['magic', 'label(8)', 'HOLDFAST'],
  ['compat', 'u32', 'features a mount may ignore'],
  ['roCompat', 'u32', 'features that make an unaware mount read-only'],
  ['incompat', 'u32', 'features an unaware mount must refuse'],
  ['journalSeed', 'u32', "start value of the journal records' CRC; random, secret"],
  ['uuid', 'uuid', 'of the filesystem'],
  ['label', 'label(64)', 'name given by mkfs'],
  ['created', 'u64', 'seconds since 1970'],
  ['regionSize', 'u64', 'bytes, whole units'],
  ['blockSize', 'u32', 'bytes: 4096'],
  ['unitSize', 'u32', 'bytes: 2097152'],
  ['journalOffset0', 'u64', 'bytes, start of journal half 0'],
  ['journalLength0', 'u64', 'bytes, whole units'],
  ['journalOffset1', 'u64', 'bytes, start of journal half 1'],
  ['journalLength1', 'u64', 'bytes, the same as half 0'],
  ['generation', 'u64', 'of this copy: the higher wins'],
  ['epoch', 'u64', 'of the last mount'],
  ['state', 'u8', '0 clean, 1 dirty, 2 shutdown'],
  ['shutdownReason', 'u8', 'code of the reason; 0 unless state is shutdown'],
  ['checkpointSlot', 'u8', 'slot of the current image: 0 or 1'],
  ['poisonCount', 'u8', 'ranges used in poison, at most 16'],
  ['slotCount0', 'u8', 'extents used in slot0, at most 64'],
  ['slotCount1', 'u8', 'extents used in slot1, at most 64'],
  ['reserved0', 'reserved(2)', 'zero'],
  ['shutdownOffset', 'u64', 'bytes, where the memory failed'],
  ['bootId', 'uuid', 'boot id of the host of the last mount'],
  ['bootEpoch', 'u64', 'epoch of the first mount of that boot'],
  ['holderPid', 'u32', 'last holder; 0: never mounted'],
  ['imageCrc', 'u32', 'CRC32C of the image'],
  ['holderSince', 'u64', 'seconds since 1970'],
  ['holderHost', 'label(64)', 'host name, cut to fit'],
  ['holderMountpoint', 'label(128)', 'path, cut to fit'],
  ['checkpointSequence', 'u64', 'last transaction in the image'],
  ['imageLength', 'u64', 'bytes of the image'],
  ['slot0', 'bytes(1024)', '64 block ranges, the unused ones zero'],
  ['slot1', 'bytes(1024)', '64 block ranges, the unused ones zero'],
  ['poison', 'bytes(256)', '16 block ranges, the unused ones zero'],
  ['reserved1', 'reserved(1328)', 'zero'],
] as const satisfies Layout

export type RawSuperblock = StructOf<typeof SUPERBLOCK>
