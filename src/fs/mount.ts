/** Opening and closing a volume: what the region says before and after. */
import { hostname } from 'node:os'
import type { DaxDevice } from '../dax/device.ts'
import { bootId } from '../dax/identity.ts'
import { MemoryFailure } from '../dax/memory.ts'
import { badRow, indexDamage } from '../index/damage.ts'
import type { Index } from '../index/index.ts'
import { Journal, JournalFullError } from '../journal/journal.ts'
import type { ReplayResult } from '../journal/replay.ts'
import { OWNER_CHECKPOINT } from '../media/change.ts'
import { MediaError } from '../media/errors.ts'
import { BLOCK_SIZE } from '../media/geometry.ts'
import {
  imageOffset,
  mountedSuperblock,
  readSuperblocks,
  requireSuperblock,
  type Superblock,
  writeSuperblocks,
} from '../media/superblock.ts'
import { spentCounter } from '../media/superblock-check.ts'
import { hasJournal } from './check/bad-metadata.ts'
import { metadataAt } from './check/layout.ts'
import { isNoSpace } from './errors.ts'
import { recover } from './recovery.ts'
import { Volume, type VolumeOptions } from './volume.ts'

/** Superblock, index and journal of a claimed device; marks the region dirty unless read-only. */
export function openVolume(device: DaxDevice, options: VolumeOptions): Volume {
  try {
    return open(device, options)
  } catch (error) {
    throw mountError(device, error, 0)
  }
}

/** What somebody who cannot mount is told: what is wrong, where, and what helps. */
export function mountError(device: DaxDevice, error: unknown, imageOffset: number): unknown {
  if (error instanceof MemoryFailure) return failedWhileMounting(device, error.offset)
  const damage = isNoSpace(error)
    ? new MediaError('checkpoint', imageOffset, 'the region has no room for a new image')
    : indexDamage(error, imageOffset)
  return damage?.advising(remedyFor(damage, device.path)) ?? error
}

function remedyFor({ sentence }: MediaError, path: string): string {
  const nothing = sentence.startsWith('no holdfast superblock')
  return nothing ? `mkfs.holdfast makes a filesystem` : `run fsck.holdfast --repair ${path}`
}

export function failedWhileMounting(device: DaxDevice, offset: number): MediaError {
  const sentence = `metadata there cannot be read: run fsck.holdfast --repair ${device.path}`
  return new MediaError('failed memory', offset, sentence)
}

function open(device: DaxDevice, options: VolumeOptions): Volume {
  const pair = readSuperblocks(device.memory)
  const found = requireSuperblock(pair)
  refuseShutdown(device, found)
  if (pair.readOnly && !options.readOnly) {
    const sentence = 'it has features that this version can only read: mount it with -o ro'
    throw new MediaError('superblock', 0, sentence)
  }
  const recovered = recover(device.memory, found, {
    bootId: bootId(),
    indexDirectory: options.indexDirectory,
  })
  const { index, replay } = recovered
  try {
    for (const { block, blocks } of index.poison.all()) {
      device.badRanges.add(block * BLOCK_SIZE, blocks * BLOCK_SIZE)
    }
    if (!options.readOnly) refuseWithoutJournal(found, index)
    if (!options.readOnly) refuseSpent(found, replay)
    const superblock = options.readOnly ? found : markDirty(device, found, replay.lastEpoch)
    const journal = new Journal(device.memory, superblock, replay)
    // What went bad in unused journal space is in the index alone.
    for (const { block, blocks } of index.poison.all()) {
      journal.avoid(block * BLOCK_SIZE, blocks * BLOCK_SIZE)
    }
    const { geometry } = superblock
    const volume = new Volume({ device, geometry, superblock, index, journal }, options)
    if (!options.readOnly) settle(volume, found.state !== 'clean')
    return volume
  } catch (error) {
    index.close()
    throw mountError(device, error, imageOffset(found))
  }
}

/** Names what was damaged; nothing was when somebody asked for it, and the superblock says so. */
function refuseShutdown(device: DaxDevice, superblock: Superblock): void {
  if (superblock.state !== 'shutdown') return
  const { shutdownReason, shutdownOffset } = superblock
  const other = shutdownReason === 'corrupt-index' ? 'index' : 'memory'
  const structure = metadataAt(superblock, shutdownOffset) ?? other
  const remedy = `run fsck.holdfast --repair ${device.path}`
  const sentence = `the filesystem was shut down (${shutdownReason}): ${remedy}`
  throw new MediaError(structure, shutdownOffset, sentence)
}

/** Nothing could be changed, and a checkpoint could not be followed by another. */
function refuseWithoutJournal(superblock: Superblock, index: Index): void {
  if (hasJournal(superblock, [...superblock.poison, ...index.poison.all()])) return
  const { offset } = superblock.geometry.journal[0]
  throw new MediaError('journal', offset, 'its memory is on record as bad in both halves')
}

/** Before anything is written: its own superblock would be refused some day, records overlooked. */
function refuseSpent(superblock: Superblock, replay: ReplayResult): void {
  const last = { sequence: replay.lastSequence, epoch: replay.lastEpoch }
  const spent = spentCounter(superblock, last)
  if (spent !== undefined) throw new MediaError('superblock', 0, spent)
}

function markDirty(device: DaxDevice, superblock: Superblock, lastEpoch: number): Superblock {
  const holder = {
    pid: process.pid,
    host: hostname(),
    mountpoint: device.holder?.mountpoint ?? '',
    since: Math.floor(Date.now() / 1000),
  }
  const mounted = mountedSuperblock(superblock, { bootId: bootId(), holder, lastEpoch })
  return writeSuperblocks(device.memory, mounted).superblock
}

/**
 * After a crash: what the last mount left in a plain file, records and bytes stored in place, is
 * made durable before freed blocks are reused and before an fsync finds nothing to do. And the
 * slots of the superblock and of the index are made to agree (a crash may have come between the
 * record of a slot's growth and the superblock that lists it).
 */
function settle(volume: Volume, unclean: boolean): void {
  if (unclean) commitReplayed(volume)
  const listed = volume.superblock.slots.flat()
  const owned = volume.index.rmap.ofOwner(OWNER_CHECKPOINT)
  const isListed = (block: number) =>
    listed.some((slot) => slot.block <= block && block < slot.block + slot.blocks)
  const stray = owned.filter((row) => !isListed(row.block))
  const { dataStartBlock, dataEndBlock } = volume.geometry
  for (const { block, blocks } of stray) {
    if (block >= dataStartBlock && block + blocks <= dataEndBlock) continue
    badRow('an extent of owner', String(OWNER_CHECKPOINT), `blocks ${block}+${blocks}`)
  }
  if (stray.length === 0) return
  volume.transact((transaction) => {
    for (const { block, blocks, owner, fileBlock } of stray) {
      transaction.apply({ type: 'removeExtent', block, owner, fileBlock })
      transaction.free(block, blocks)
    }
  }, true)
}

/** Bad memory may have left no room for the mark: then a checkpoint has to take its place. */
function commitReplayed(volume: Volume): void {
  try {
    volume.journal.commitNow()
  } catch (error) {
    if (!(error instanceof JournalFullError)) throw error
    volume.needsCheckpoint = true
  }
}

/** The region is clean when everything is in the checkpoint; otherwise its state stays as it is. */
export function closeVolume(volume: Volume): void {
  const { memory, options, superblock } = volume
  if (!options.readOnly && volume.shutdown === undefined) {
    writeSuperblocks(memory, { ...superblock, state: 'clean' })
  }
  volume.index.close()
}
