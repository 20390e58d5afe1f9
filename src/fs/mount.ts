/** Opening and closing a volume: what the region says before and after. */
import { hostname } from 'node:os'
import type { DaxDevice } from '../dax/device.ts'
import { bootId } from '../dax/identity.ts'
import { Journal } from '../journal/journal.ts'
import { OWNER_CHECKPOINT } from '../media/change.ts'
import { MediaError } from '../media/errors.ts'
import { BLOCK_SIZE } from '../media/geometry.ts'
import {
  mountedSuperblock,
  readSuperblocks,
  requireSuperblock,
  type Superblock,
  writeSuperblocks,
} from '../media/superblock.ts'
import { recover } from './recovery.ts'
import { Volume, type VolumeOptions } from './volume.ts'

/** Superblock, index and journal of a claimed device; marks the region dirty unless read-only. */
export function openVolume(device: DaxDevice, options: VolumeOptions): Volume {
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
    const superblock = options.readOnly ? found : markDirty(device, found, replay.lastEpoch)
    const journal = new Journal(device.memory, superblock, replay)
    const { geometry } = superblock
    const volume = new Volume({ device, geometry, superblock, index, journal }, options)
    if (!options.readOnly) settle(volume, replay.transactions)
    return volume
  } catch (error) {
    index.close()
    throw error
  }
}

function refuseShutdown(device: DaxDevice, superblock: Superblock): void {
  if (superblock.state !== 'shutdown') return
  const { shutdownReason, shutdownOffset } = superblock
  const remedy = `run fsck.holdfast --repair ${device.path}`
  const sentence = `the filesystem was shut down (${shutdownReason}): ${remedy}`
  throw new MediaError('superblock', shutdownOffset, sentence)
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
 * After a replay: what was replayed from a plain file is made durable before its freed blocks are
 * reused, and the slots of the superblock and of the index are made to agree (a crash may have come
 * between the record of a slot's growth and the superblock that lists it).
 */
function settle(volume: Volume, transactions: number): void {
  if (transactions > 0) volume.journal.commitNow()
  const listed = new Set<number>()
  for (const slot of volume.superblock.slots) {
    for (const range of slot) {
      for (let at = 0; at < range.blocks; at++) listed.add(range.block + at)
    }
  }
  const owned = volume.index.rmap.ofOwner(OWNER_CHECKPOINT)
  const stray = owned.filter((row) => !listed.has(row.block))
  if (stray.length === 0) return
  volume.transact((transaction) => {
    for (const { block, blocks, owner, fileBlock } of stray) {
      transaction.apply({ type: 'removeExtent', block, owner, fileBlock })
      transaction.free(block, blocks)
    }
  }, true)
}

/** The region is clean when everything is in the checkpoint; otherwise its state stays as it is. */
export function closeVolume(volume: Volume): void {
  const { memory, options, superblock } = volume
  if (!options.readOnly && volume.shutdown === undefined) {
    writeSuperblocks(memory, { ...superblock, state: 'clean' })
  }
  volume.index.close()
}
