/** Superblocks to bytes and back. */
import { crc32c } from './checksum.ts'
import { FeatureError, MediaError } from './errors.ts'
import { BLOCK_SIZE, UNIT_SIZE } from './geometry.ts'
import { compileLayout } from './layout.ts'
import { clipLabel } from './scalar.ts'
import { checkedGeometry, checkSuperblock } from './superblock-check.ts'
import {
  BLOCK_RANGE,
  type BlockRange,
  KNOWN_INCOMPAT,
  type LastHolder,
  MAX_POISON_RANGES,
  MAX_SLOT_EXTENTS,
  type RawSuperblock,
  SHUTDOWN_REASONS,
  STATES,
  SUPERBLOCK,
  SUPERBLOCK_MAGIC,
  SUPERBLOCK_VERSION,
  type Superblock,
} from './superblock-layout.ts'

export const superblockCodec = compileLayout('superblock', SUPERBLOCK)
const blockRange = compileLayout('block range', BLOCK_RANGE)

function packRanges(ranges: readonly BlockRange[], most: number): Uint8Array {
  const bytes = new Uint8Array(most * blockRange.size)
  ranges.forEach((range, index) => {
    blockRange.encode(range, bytes, index * blockRange.size)
  })
  return bytes
}

function unpackRanges(bytes: Uint8Array, count: number, mediaOffset: number): BlockRange[] {
  const used = count * blockRange.size
  if (used > bytes.length) {
    throw new MediaError('superblock', mediaOffset, `${count} ranges in a list that holds fewer`)
  }
  if (bytes.subarray(used).some((byte) => byte !== 0)) {
    throw new MediaError('superblock', mediaOffset + used, 'unused list entries are not zero')
  }
  return Array.from({ length: count }, (_, index) =>
    blockRange.decode(bytes, index * blockRange.size, mediaOffset + index * blockRange.size),
  )
}

function toRaw(superblock: Superblock): RawSuperblock {
  const { geometry, checkpoint, slots, holder, poison } = superblock
  const [half0, half1] = geometry.journal
  return {
    ...superblock,
    crc: 0,
    version: SUPERBLOCK_VERSION,
    magic: SUPERBLOCK_MAGIC,
    regionSize: geometry.size,
    blockSize: BLOCK_SIZE,
    unitSize: UNIT_SIZE,
    journalOffset0: half0.offset,
    journalLength0: half0.length,
    journalOffset1: half1.offset,
    journalLength1: half1.length,
    state: STATES.indexOf(superblock.state),
    shutdownReason: SHUTDOWN_REASONS.indexOf(superblock.shutdownReason),
    checkpointSlot: checkpoint.slot,
    checkpointSequence: checkpoint.sequence,
    imageLength: checkpoint.length,
    imageCrc: checkpoint.crc,
    holderPid: holder?.pid ?? 0,
    holderSince: holder?.since ?? 0,
    holderHost: clipLabel(holder?.host ?? '', 64),
    holderMountpoint: clipLabel(holder?.mountpoint ?? '', 128),
    poisonCount: poison.length,
    slotCount0: slots[0].length,
    slotCount1: slots[1].length,
    slot0: packRanges(slots[0], MAX_SLOT_EXTENTS),
    slot1: packRanges(slots[1], MAX_SLOT_EXTENTS),
    poison: packRanges(poison, MAX_POISON_RANGES),
  }
}

/** The 4096 bytes of a copy. What a later mount would refuse is refused here already. */
export function encodeSuperblock(superblock: Superblock): Uint8Array {
  checkSuperblock(superblock, 0)
  const bytes = new Uint8Array(BLOCK_SIZE)
  superblockCodec.encode(toRaw(superblock), bytes, 0)
  const crc = crc32c(bytes, 4, BLOCK_SIZE - 4)
  superblockCodec.encode({ ...superblockCodec.decode(bytes, 0), crc }, bytes, 0)
  return bytes
}

/** What makes these bytes a superblock of a version this program reads. */
function checkIdentity(bytes: Uint8Array, mediaOffset: number): RawSuperblock {
  const at = superblockCodec.offsets
  const magic = Buffer.from(bytes.buffer, bytes.byteOffset + at.magic!, SUPERBLOCK_MAGIC.length)
  if (magic.toString('latin1') !== SUPERBLOCK_MAGIC) {
    throw new MediaError('superblock', mediaOffset + at.magic!, 'no holdfast superblock here')
  }
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  if (crc32c(bytes, 4, BLOCK_SIZE - 4) !== view.getUint32(at.crc!, true)) {
    throw new MediaError('superblock', mediaOffset, 'checksum mismatch')
  }
  // Before the rest is decoded: another version may have given reserved bytes a meaning.
  const version = view.getUint32(at.version!, true)
  if (version !== SUPERBLOCK_VERSION) {
    const sentence = `version ${version}, this program reads ${SUPERBLOCK_VERSION}`
    throw new FeatureError('superblock', mediaOffset + at.version!, sentence)
  }
  const unknown = (view.getUint32(at.incompat!, true) & ~KNOWN_INCOMPAT) >>> 0
  if (unknown !== 0) {
    const sentence = `incompatible features 0x${unknown.toString(16)} are unknown to this program`
    throw new FeatureError('superblock', mediaOffset + at.incompat!, sentence)
  }
  return superblockCodec.decode(bytes, 0, mediaOffset)
}

/** Decodes and validates a copy that lies at `mediaOffset`; throws MediaError. */
export function decodeSuperblock(bytes: Uint8Array, mediaOffset: number): Superblock {
  const raw = checkIdentity(bytes, mediaOffset)
  const geometry = checkedGeometry(raw, mediaOffset, superblockCodec.offsets)
  const at = (field: string) => mediaOffset + superblockCodec.offsets[field]!
  const state = STATES[raw.state]
  if (!state) throw new MediaError('superblock', at('state'), `unknown state ${raw.state}`)
  const shutdownReason = SHUTDOWN_REASONS[raw.shutdownReason]
  if (!shutdownReason) {
    throw new MediaError('superblock', at('shutdownReason'), `unknown code ${raw.shutdownReason}`)
  }
  const slot = raw.checkpointSlot
  if (slot !== 0 && slot !== 1) {
    throw new MediaError('superblock', at('checkpointSlot'), `slot ${slot} does not exist`)
  }
  const superblock: Superblock = {
    compat: raw.compat,
    roCompat: raw.roCompat,
    incompat: raw.incompat,
    uuid: raw.uuid,
    label: raw.label,
    created: raw.created,
    journalSeed: raw.journalSeed,
    geometry,
    generation: raw.generation,
    epoch: raw.epoch,
    state,
    shutdownReason,
    shutdownOffset: raw.shutdownOffset,
    bootId: raw.bootId,
    bootEpoch: raw.bootEpoch,
    holder: holderOf(raw),
    checkpoint: {
      slot,
      sequence: raw.checkpointSequence,
      length: raw.imageLength,
      crc: raw.imageCrc,
    },
    slots: [
      unpackRanges(raw.slot0, raw.slotCount0, at('slot0')),
      unpackRanges(raw.slot1, raw.slotCount1, at('slot1')),
    ],
    poison: unpackRanges(raw.poison, raw.poisonCount, at('poison')),
  }
  checkSuperblock(superblock, mediaOffset)
  return superblock
}

function holderOf(raw: RawSuperblock): LastHolder | null {
  if (raw.holderPid === 0) return null
  const { holderPid, holderHost, holderMountpoint, holderSince } = raw
  return { pid: holderPid, host: holderHost, mountpoint: holderMountpoint, since: holderSince }
}
