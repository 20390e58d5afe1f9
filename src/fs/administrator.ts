/** What an operator asks of a mounted filesystem: see administration.ts. */
import { clearFault } from '../dax/clear.ts'
import { withdrawFault } from '../dax/fault.ts'
import type { BlockRange } from '../index/free-space.ts'
import { BLOCK_SIZE, blockSpan } from '../media/geometry.ts'
import type {
  Administration,
  FileMap,
  FilesystemEvent,
  InjectRequest,
  InjectResult,
  RmapRow,
  ScrubRequest,
  ScrubStatus,
  Status,
} from './administration.ts'
import type { CheckpointResult } from './checkpoints.ts'
import { EBUSY, ENXIO, FsError } from './errors.ts'
import { pathOf } from './failure.ts'
import { fileMap } from './file-map.ts'
import { inject } from './injection.ts'
import { rmapRows } from './rmap-report.ts'
import type { Services } from './services.ts'
import type { Volume } from './volume.ts'

/** Longest wait for the kernel to forget; it is done in a millisecond. */
const REVOKED_PATIENCE_MS = 5000

export class Administrator implements Administration {
  readonly #volume: Volume
  readonly #services: Services

  constructor(volume: Volume, services: Services) {
    this.#volume = volume
    this.#services = services
  }

  status(): Omit<Status, 'mountpoint' | 'transport' | 'holder' | 'region'> {
    const volume = this.#volume
    const { geometry, superblock, journal, allocator, handles, shutdown } = volume
    const total = geometry.blocks
    const free = allocator.freeBlocks
    return {
      uuid: superblock.uuid,
      label: superblock.label,
      regionSize: geometry.size,
      blockSize: BLOCK_SIZE,
      state: shutdown === undefined ? 'mounted' : 'shutdown',
      readOnly: volume.options.readOnly,
      frozen: volume.frozen,
      blocks: { total, used: total - free, free, poisoned: poisonedBlocks(volume) },
      inodes: volume.inodeCount,
      handles: { open: handles.count, killed: handles.killed },
      journal: { used: journal.used, size: journal.size, sequence: journal.lastSequence },
      failures: this.#services.failure.reports,
      ...(shutdown === undefined ? {} : { shutdown }),
    }
  }

  getmap(ino: number): FileMap {
    return this.#volume.guard(() => fileMap(this.#volume, ino))
  }

  rmap(offset: number, length: number, limit: number): RmapRow[] {
    const { index, geometry } = this.#volume
    const path = (ino: number) => pathOf(index, ino)
    return this.#volume.guard(() => rmapRows(index, geometry.size, offset, length, limit, path))
  }

  inject(request: InjectRequest): InjectResult {
    return this.#volume.guard(() => inject(this.#volume, request))
  }

  async revoked(): Promise<void> {
    const { cache, options } = this.#volume
    if (cache === undefined) return
    let timer: NodeJS.Timeout | undefined
    const late = new Promise<boolean>((resolve) => {
      timer = setTimeout(resolve, REVOKED_PATIENCE_MS, true)
    })
    const isLate = await Promise.race([cache.idle(), late])
    clearTimeout(timer)
    if (!isLate) return
    options.logger.warn('the kernel still has pages of killed files: it did not let go in time')
  }

  clearPoison(range: { offset: number; length: number } | 'all'): number {
    const { geometry, frozen } = this.#volume
    const { offset, length } = range === 'all' ? { offset: 0, length: geometry.size } : range
    if (offset + length > geometry.size) {
      throw new FsError(ENXIO, `the region ends at ${geometry.size}`)
    }
    if (frozen) throw new FsError(EBUSY, 'the filesystem is frozen: holdfast thaw')
    return this.#volume.change(() => this.#clearPoison({ offset, length }))
  }

  freeze(): Promise<void> {
    return this.#services.freeze.freeze()
  }

  thaw(): void {
    this.#services.freeze.thaw()
  }

  shutdown(reason: string): void {
    this.#services.failure.shutdown('forced', reason, 0, [])
  }

  startScrub(request: ScrubRequest): ScrubStatus {
    return this.#services.scrub.start(request)
  }

  stopScrub(): ScrubStatus {
    return this.#services.scrub.stop()
  }

  scrubStatus(): ScrubStatus {
    return this.#services.scrub.status()
  }

  async checkpoint(): Promise<CheckpointResult> {
    const { commits, checkpoints } = this.#services
    this.#volume.requireWritable()
    this.#volume.guard(() => commits.writeTimes())
    return checkpoints.run()
  }

  subscribe(listener: (event: FilesystemEvent) => void): () => void {
    return this.#volume.subscribe(listener)
  }

  #clearPoison({ offset, length }: { offset: number; length: number }): number {
    const volume = this.#volume
    volume.requireWritable()
    const [first, blocks] = blockSpan(offset, length)
    let cleared = 0
    for (const bad of volume.index.poison.overlapping(first, blocks)) {
      const start = Math.max(bad.block, first)
      const end = Math.min(bad.block + bad.blocks, first + blocks)
      for (const healthy of this.#working(start, end - start)) {
        this.#heal(healthy.block, healthy.blocks)
        cleared += healthy.blocks * BLOCK_SIZE
      }
    }
    // Faults injected but not discovered yet are in no table.
    withdrawFault(volume.device, offset, length)
    if (cleared > 0) volume.emit({ event: 'poison cleared', time: volume.timestamp() })
    return cleared
  }

  /** The blocks that work again, after the platform was asked: those that can be read now. */
  #working(block: number, blocks: number): BlockRange[] {
    const { device, options } = this.#volume
    const working = clearFault(device, block * BLOCK_SIZE, blocks * BLOCK_SIZE)
    const bytes = working.reduce((sum, range) => sum + range.length, 0)
    const kept = blocks * BLOCK_SIZE - bytes
    if (kept > 0) {
      const why = 'the platform still lists or cannot read them'
      options.logger.warn(`${kept} bytes from block ${block} on stay quarantined: ${why}`)
    }
    return working.map(({ offset, length }) => ({
      block: offset / BLOCK_SIZE,
      blocks: length / BLOCK_SIZE,
    }))
  }

  /** Blocks that a file still has are readable again; those nobody has go back to free space. */
  #heal(block: number, blocks: number): void {
    const volume = this.#volume
    const owners = volume.index.rmap.overlapping(block, blocks)
    volume.transact((transaction) => {
      transaction.apply({ type: 'removePoison', block, blocks })
      let at = block
      for (const row of owners) {
        if (row.block > at) transaction.free(at, row.block - at)
        at = Math.max(at, row.block + row.blocks)
      }
      if (at < block + blocks) transaction.free(at, block + blocks - at)
    }, true)
    for (const row of owners) {
      if (row.owner > 0) volume.cache?.invalidate(row.owner, 0, 0).catch(() => undefined)
    }
  }
}

function poisonedBlocks(volume: Volume): number {
  return volume.index.poison.all().reduce((sum, range) => sum + range.blocks, 0)
}
