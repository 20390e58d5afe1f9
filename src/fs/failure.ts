/**
 * What a memory failure does: xfs_dax_notify_failure for this filesystem. All kills first, then the
 * shutdown, as XFS orders it.
 */
import type { DaxDevice } from '../dax/device.ts'
import { type HolderOperations, MF_MEM_PRE_REMOVE } from '../dax/holder.ts'
import { indexDamage } from '../index/damage.ts'
import { type BlockRange, rangesOverlap } from '../index/free-space.ts'
import type { Index } from '../index/index.ts'
import {
  type ExtentRow,
  OWNER_CHECKPOINT,
  OWNER_JOURNAL,
  OWNER_SUPERBLOCK,
} from '../media/change.ts'
import { BLOCK_SIZE, type ByteExtent, blockSpan } from '../media/geometry.ts'
import type { ShutdownReason } from '../media/superblock.ts'
import type { FailureReport } from './administration.ts'
import type { Checkpoints } from './checkpoints.ts'
import { EIO, ENXIO } from './errors.ts'
import type { Volume } from './volume.ts'

/** Linux: structure needs cleaning. What XFS answers when its own metadata was hit. */
const EUCLEAN = 117
const REPORTS_MAX = 1000

interface FileRange {
  fileOffset: number
  length: number
}

export class FailurePolicy implements HolderOperations {
  readonly #volume: Volume
  readonly #checkpoints: Checkpoints
  readonly reports: FailureReport[] = []

  constructor(volume: Volume, checkpoints: Checkpoints) {
    this.#volume = volume
    this.#checkpoints = checkpoints
  }

  /** Bytes [offset, offset + length) have failed. Returns 0 or a negative errno. */
  notifyFailure(_device: DaxDevice, offset: number, length: number, flags: number): number {
    try {
      return this.#failed(offset, length, flags)
    } catch (error) {
      const damage = indexDamage(error, this.#volume.imageOffset)
      if (damage === undefined) throw error
      this.shutdown('corrupt-index', damage.message, damage.offset, [])
      return -EUCLEAN
    }
  }

  #failed(offset: number, length: number, flags: number): number {
    if (this.#volume.shutdown !== undefined) return -EIO
    // What lies behind the filesystem's last whole unit is none of its memory.
    if (offset >= this.#volume.geometry.size) return -ENXIO
    if ((flags & MF_MEM_PRE_REMOVE) !== 0) return this.#removed(offset, length)
    const fresh = this.#unknownPart(offset, length)
    if (fresh.length === 0) return 0
    const rows = fresh.flatMap(({ block, blocks }) => this.#ownersOf(block, blocks))
    const metadata = rows.filter((row) => row.owner < 0 && this.#inUse(row, fresh))
    const owners = [...new Set(rows.filter((row) => row.owner > 0).map((row) => row.owner))]
    let killed = 0
    for (const ino of owners) killed += this.kill(ino, hitRanges(ino, rows, fresh))
    const kind = metadata.length > 0 ? 'metadata' : owners.length > 0 ? 'data' : 'free'
    this.#report({
      time: this.#volume.timestamp(),
      offset,
      length,
      kind,
      inodes: owners,
      action: kind === 'metadata' ? 'shutdown' : kind === 'data' ? 'handles killed' : 'quarantined',
      handlesKilled: killed,
    })
    if (metadata.length > 0) {
      this.#shutdownForMetadata(offset, fresh)
      return -EUCLEAN
    }
    return this.#remember(offset, fresh, rows)
  }

  /**
   * Every handle of the inode is dead, and what the kernel cached of it is revoked. `ranges` is
   * where the file was hit; undefined: everywhere.
   */
  kill(ino: number, ranges?: FileRange[]): number {
    const volume = this.#volume
    const handles = volume.handles.kill(ino)
    const names = volume.index.dirents.names(ino)
    volume.cache?.revoke(ino, names).catch((error) => {
      volume.options.logger.error(`revoking inode ${ino}: ${(error as Error).message}`)
    })
    const path = pathOf(volume.index, ino)
    volume.emit({
      event: 'kill',
      time: volume.timestamp(),
      inode: ino,
      path: path ?? null,
      handles,
      ...(ranges === undefined ? {} : { ranges }),
    })
    return handles
  }

  /** No operation succeeds any more; the state is saved as far as healthy memory allows. */
  shutdown(
    reason: ShutdownReason,
    sentence: string,
    offset: number,
    poison: readonly BlockRange[],
  ): void {
    const volume = this.#volume
    if (volume.shutdown !== undefined) return
    volume.shutdown = { reason: sentence, offset }
    const help = `unmount, then run fsck.holdfast --repair ${volume.device.name}`
    volume.options.logger.error(`shut down: ${sentence} (region offset ${offset}): ${help}`)
    if (!volume.options.readOnly) {
      try {
        this.#checkpoints.emergency(reason, offset, poison)
      } catch (error) {
        const why = (error as Error).message
        volume.options.logger.error(`the shutdown could not be recorded in the region: ${why}`)
      }
    }
    volume.cache?.revokeAll().catch((error) => {
      volume.options.logger.error(`revoking the mount: ${(error as Error).message}`)
    })
    volume.emit({ event: 'shutdown', time: volume.timestamp(), reason: sentence, offset })
  }

  /**
   * MF_MEM_PRE_REMOVE: the device is going away, or a part of it is. The handles of what lies there
   * die first; everything else ends with the shutdown, which is told only then.
   */
  #removed(offset: number, length: number): number {
    const volume = this.#volume
    const { size } = volume.geometry
    const end = Math.min(offset + length, size)
    const lost = offset === 0 && end === size ? undefined : { offset, length: end - offset }
    const inodes: number[] = []
    let killed = 0
    for (const ino of new Set([...volume.handles.all()].map((handle) => handle.ino))) {
      const ranges = lost && this.#rangesIn(ino, lost)
      if (ranges?.length === 0) continue
      inodes.push(ino)
      killed += this.kill(ino, ranges)
    }
    this.#report({
      time: volume.timestamp(),
      offset,
      length: end - offset,
      kind: 'metadata',
      inodes,
      action: 'shutdown',
      handlesKilled: killed,
    })
    this.shutdown('removed', 'the device is being removed', offset, [])
    return 0
  }

  /** Where an inode lies in these bytes of the region, bytes of the file. */
  #rangesIn(ino: number, { offset, length }: ByteExtent): FileRange[] {
    const [block, blocks] = blockSpan(offset, length)
    return hitRanges(ino, this.#volume.index.rmap.ofOwner(ino), [{ block, blocks }])
  }

  /**
   * The blocks of the range that were not poisoned before: the same report twice is one failure.
   */
  #unknownPart(offset: number, length: number): BlockRange[] {
    const end = Math.min(Math.ceil((offset + length) / BLOCK_SIZE), this.#volume.geometry.blocks)
    const first = Math.floor(offset / BLOCK_SIZE)
    if (first >= end) return []
    const fresh: BlockRange[] = []
    let at = first
    for (const known of this.#volume.index.poison.overlapping(first, end - first)) {
      if (known.block > at) fresh.push({ block: at, blocks: known.block - at })
      at = Math.max(at, known.block + known.blocks)
    }
    if (at < end) fresh.push({ block: at, blocks: end - at })
    return fresh
  }

  #ownersOf(block: number, blocks: number): ExtentRow[] {
    return this.#volume.index.rmap.overlapping(block, blocks)
  }

  /**
   * The superseded checkpoint slot, unused journal space and the rest of the superblocks' units
   * hold nothing that is needed.
   */
  #inUse(row: ExtentRow, failed: readonly BlockRange[]): boolean {
    const volume = this.#volume
    const hit = (block: number, blocks: number) =>
      failed.some((range) => range.block < block + blocks && block < range.block + range.blocks)
    switch (row.owner) {
      case OWNER_SUPERBLOCK:
        return hit(0, 1) || hit(volume.geometry.blocks - 1, 1)
      case OWNER_JOURNAL:
        return volume.journal.rangesInUse().some(({ offset, length }) => {
          const [first, blocks] = blockSpan(offset, length)
          return length > 0 && hit(first, blocks)
        })
      case OWNER_CHECKPOINT: {
        const { checkpoint, slots } = volume.superblock
        return slots[checkpoint.slot].some((range) => hit(range.block, range.blocks))
      }
      default:
        return true
    }
  }

  #shutdownForMetadata(offset: number, failed: readonly BlockRange[]): void {
    // The index is whole; the image of the emergency checkpoint must know the poison as well.
    const volume = this.#volume
    volume.index.begin()
    for (const { block, blocks } of failed) {
      for (const free of volume.index.freeSpace.overlapping(block, blocks)) {
        volume.index.freeSpace.allocate(free.block, free.blocks)
      }
      volume.index.poison.put(block, blocks)
    }
    volume.index.commit()
    this.shutdown('metadata-failure', 'memory under metadata failed', offset, failed)
  }

  /** Journals the poison and takes free blocks of it out of use. */
  #remember(offset: number, failed: readonly BlockRange[], rows: readonly ExtentRow[]): number {
    const volume = this.#volume
    if (volume.options.readOnly) return 0
    try {
      volume.allocator.releaseAllWindows()
      // The journal goes round bad blocks of its own, with this very record to begin with.
      for (const row of rows.filter(({ owner }) => owner === OWNER_JOURNAL)) {
        for (const range of failed.filter((bad) => rangesOverlap(bad, row))) {
          volume.journal.avoid(range.block * BLOCK_SIZE, range.blocks * BLOCK_SIZE)
        }
      }
      const record = () => this.#record(failed)
      // A bad unit leaves the standby slot; the next record finds the slot short and grows it.
      if (rows.some((row) => row.owner === OWNER_CHECKPOINT)) {
        this.#checkpoints.dropUnits(failed, record)
      } else record()
      return 0
    } catch (error) {
      const why = `the failure could not be journalled: ${(error as Error).message}`
      this.shutdown('metadata-failure', why, offset, failed)
      return -EUCLEAN
    }
  }

  #record(failed: readonly BlockRange[]): void {
    const { index } = this.#volume
    this.#volume.transact((transaction) => {
      transaction.essential = true
      for (const { block, blocks } of failed) {
        for (const free of index.freeSpace.overlapping(block, blocks)) transaction.allocate(free)
        transaction.apply({ type: 'putPoison', block, blocks })
      }
    }, true)
  }

  #report(report: FailureReport): void {
    if (this.reports.length >= REPORTS_MAX) this.reports.shift()
    this.reports.push(report)
    const { offset, length, kind, action } = report
    const who = report.inodes.length === 0 ? '' : `, inodes ${report.inodes.join(' ')}`
    const sentence = `memory failure at ${offset}+${length}: ${kind}, ${action}${who}`
    this.#volume.options.logger.warn(sentence)
    this.#volume.emit({ event: 'failure', ...report })
  }
}

/** Where the failed blocks are in a file that owns rows of them, bytes of the file. */
function hitRanges(
  ino: number,
  rows: readonly ExtentRow[],
  failed: readonly BlockRange[],
): FileRange[] {
  return rows
    .filter((row) => row.owner === ino)
    .flatMap((row) =>
      failed.flatMap((range) => {
        const first = Math.max(row.block, range.block)
        const end = Math.min(row.block + row.blocks, range.block + range.blocks)
        if (first >= end) return []
        const fileOffset = (row.fileBlock + first - row.block) * BLOCK_SIZE
        return [{ fileOffset, length: (end - first) * BLOCK_SIZE }]
      }),
    )
}

/** One path of an inode from the root of the filesystem; undefined for an unlinked one. */
export function pathOf(index: Index, ino: number): string | undefined {
  const names: string[] = []
  for (let at = ino; at !== 1; ) {
    const name = index.dirents.names(at)[0]
    if (name === undefined || names.length > 4096) return undefined
    names.unshift(name.name.toString())
    at = name.parent
  }
  return `/${names.join('/')}`
}
