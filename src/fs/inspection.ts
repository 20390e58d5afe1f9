/** A look at an unmounted region: superblock, index and journal as they are. Nothing is written. */
import type { DaxDevice } from '../dax/device.ts'
import { bootId } from '../dax/identity.ts'
import { BLOCK_SIZE } from '../media/geometry.ts'
import {
  imageOffset,
  readSuperblocks,
  requireSuperblock,
  type Superblock,
} from '../media/superblock.ts'
import type { RmapRow, Status } from './administration.ts'
import { pathOf } from './failure.ts'
import { mountError } from './mount.ts'
import { type Recovered, recover } from './recovery.ts'
import { rmapRows } from './rmap-report.ts'

export interface Inspection {
  status(): Omit<Status, 'region'>
  rmap(offset: number, length: number, limit: number): RmapRow[]
  close(): void
}

/**
 * Throws MediaError for a region that is no filesystem, or whose structures are damaged; so does
 * every look that meets damage. The sentence is the one that a mount says.
 */
export function inspect(device: DaxDevice): Inspection {
  const told = <T>(offset: number, look: () => T): T => {
    try {
      return look()
    } catch (error) {
      throw mountError(device, error, offset)
    }
  }
  const superblock = told(0, () => requireSuperblock(readSuperblocks(device.memory)))
  const image = imageOffset(superblock)
  const recovered = told(image, () => recover(device.memory, superblock, { bootId: bootId() }))
  const { index } = recovered
  return {
    status: () => told(image, () => statusOf(superblock, recovered)),
    rmap(offset, length, limit) {
      const path = (ino: number) => pathOf(index, ino)
      const { size } = superblock.geometry
      return told(image, () => rmapRows(index, size, offset, length, limit, path))
    },
    close: () => index.close(),
  }
}

function statusOf(superblock: Superblock, { index, replay }: Recovered): Omit<Status, 'region'> {
  const { geometry, state, shutdownReason, shutdownOffset } = superblock
  const total = geometry.blocks
  const free = index.freeSpace.total()
  const poisoned = index.poison.all().reduce((sum, range) => sum + range.blocks, 0)
  const status: Omit<Status, 'region'> = {
    uuid: superblock.uuid,
    label: superblock.label,
    regionSize: geometry.size,
    blockSize: BLOCK_SIZE,
    state: state === 'shutdown' ? 'shutdown' : 'unmounted',
    mountpoint: null,
    transport: null,
    readOnly: false,
    frozen: false,
    holder: null,
    blocks: { total, used: total - free, free, poisoned },
    inodes: index.inodes.count(),
    handles: { open: 0, killed: 0 },
    journal: {
      used: replay.position,
      size: geometry.journal[0].length,
      sequence: replay.lastSequence,
    },
    failures: [],
  }
  if (state === 'shutdown') {
    status.shutdown = { reason: shutdownReason, offset: shutdownOffset }
  }
  return status
}
