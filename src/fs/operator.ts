/** What an operator asks of a mounted filesystem: see administration.ts. */
import { injectFault, withdrawFault } from '../dax/fault.ts'
import { BLOCK_SIZE } from '../media/geometry.ts'
import type { FileMap, InjectRequest, InjectResult, RmapRow, Status } from './administration.ts'
import { EINVAL, EISDIR, ENOENT, ENOSPC, ENXIO, FsError } from './errors.ts'
import { type FailurePolicy, pathOf } from './failure.ts'
import { isUnwritten } from './file-extents.ts'
import { isRegular } from './modes.ts'
import type { KernelCache } from './operations.ts'
import { rmapRows } from './rmap-report.ts'
import type { Volume } from './volume.ts'

interface RegionRange {
  readonly offset: number
  readonly length: number
}

export class Operator {
  readonly #volume: Volume
  readonly #failure: FailurePolicy
  cache: KernelCache | undefined

  constructor(volume: Volume, failure: FailurePolicy) {
    this.#volume = volume
    this.#failure = failure
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
      failures: this.#failure.reports,
      ...(shutdown === undefined ? {} : { shutdown }),
    }
  }

  getmap(ino: number): FileMap {
    const inode = this.#regularFile(ino)
    const extents = this.#volume.inodes.extents(inode).list.map((extent) => ({
      fileOffset: extent.fileBlock * BLOCK_SIZE,
      regionOffset: extent.block * BLOCK_SIZE,
      length: extent.blocks * BLOCK_SIZE,
      flags: this.#flagsOf(extent.block, extent.blocks, isUnwritten(extent)),
    }))
    return { inode: ino, size: inode.row.size, extents }
  }

  #flagsOf(block: number, blocks: number, unwritten: boolean): string[] {
    const poisoned = this.#volume.index.poison.overlapping(block, blocks).length > 0
    return [...(unwritten ? ['unwritten'] : []), ...(poisoned ? ['poisoned'] : [])]
  }

  rmap(offset: number, length: number, limit: number): RmapRow[] {
    const volume = this.#volume
    const size = volume.geometry.size
    return rmapRows(volume.index, size, offset, length, limit, (ino) => pathOf(volume.index, ino))
  }

  inject(request: InjectRequest): InjectResult {
    const volume = this.#volume
    volume.requireAlive()
    const ranges = this.#resolve(request)
    const seen = this.#failure.reports.length
    const killedBefore = volume.handles.killed
    if (request.method === 'sigbus') return this.#emulate(ranges)
    for (const { offset, length } of ranges) volume.device.memoryFailure(offset, length)
    const reports = this.#failure.reports.slice(seen)
    return {
      kind: worst(reports.map((report) => report.kind)) ?? this.#kindOf(ranges),
      ...span(ranges),
      inodes: [...new Set(reports.flatMap((report) => report.inodes))],
      handlesKilled: volume.handles.killed - killedBefore,
      shutdown: volume.shutdown !== undefined,
    }
  }

  /** The pages really fault in this process from now on; the next access discovers it. */
  #emulate(ranges: readonly RegionRange[]): InjectResult {
    const volume = this.#volume
    const inodes = new Set<number>()
    for (const { offset, length } of ranges) {
      injectFault(volume.device, offset, length)
      const [first, blocks] = blockSpan(offset, length)
      for (const row of volume.index.rmap.overlapping(first, blocks)) {
        if (row.owner > 0) inodes.add(row.owner)
      }
    }
    // What the kernel has cached would hide the fault from the next access.
    for (const ino of inodes) this.cache?.invalidate(ino, 0, 0).catch(() => undefined)
    const kind = this.#kindOf(ranges)
    return { kind, ...span(ranges), inodes: [...inodes], handlesKilled: 0, shutdown: false }
  }

  clearPoison(wanted: { offset: number; length: number } | 'all'): number {
    const volume = this.#volume
    volume.requireWritable()
    const range = wanted === 'all' ? { offset: 0, length: volume.geometry.size } : wanted
    const [first, blocks] = blockSpan(range.offset, range.length)
    let cleared = 0
    for (const bad of volume.index.poison.overlapping(first, blocks)) {
      const start = Math.max(bad.block, first)
      const end = Math.min(bad.block + bad.blocks, first + blocks)
      this.#clear(start, end - start)
      cleared += (end - start) * BLOCK_SIZE
    }
    // Faults injected but not discovered yet are in no table.
    withdrawFault(volume.device, range.offset, range.length)
    if (cleared > 0) volume.emit({ event: 'poison cleared', time: volume.timestamp() })
    return cleared
  }

  /** Blocks that a file still has are readable again; those nobody has go back to free space. */
  #clear(block: number, blocks: number): void {
    const volume = this.#volume
    withdrawFault(volume.device, block * BLOCK_SIZE, blocks * BLOCK_SIZE)
    volume.device.markHealed(block * BLOCK_SIZE, blocks * BLOCK_SIZE)
    volume.memory.probe(block * BLOCK_SIZE, blocks * BLOCK_SIZE)
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
      if (row.owner > 0) this.cache?.invalidate(row.owner, 0, 0).catch(() => undefined)
    }
  }

  #regularFile(ino: number) {
    const inode = this.#volume.inodes.find(ino)
    if (inode === undefined) throw new FsError(ENOENT, `there is no inode ${ino}`)
    if (!isRegular(inode.row.mode)) throw new FsError(EISDIR, 'only regular files have extents')
    return inode
  }

  #resolve(request: InjectRequest): RegionRange[] {
    const { target, length } = request
    const { geometry, superblock, journal } = this.#volume
    if (!(length > 0)) throw new FsError(EINVAL, 'the length must be larger than 0')
    switch (target.kind) {
      case 'file':
        return this.#resolveFile(target.inode, target.fileOffset, length)
      case 'offset':
        if (target.offset < 0 || target.offset + length > geometry.size) {
          throw new FsError(ENXIO, `the region ends at ${geometry.size}`)
        }
        return [{ offset: target.offset, length }]
      case 'free':
        return [this.#freeRange(length)]
      case 'metadata': {
        if (target.structure === 'superblock') return [{ offset: geometry.primary, length }]
        if (target.structure === 'journal') {
          return [{ offset: journal.rangesInUse()[0]!.offset, length }]
        }
        const { checkpoint, slots } = superblock
        return [{ offset: slots[checkpoint.slot][0]!.block * BLOCK_SIZE, length }]
      }
    }
  }

  #resolveFile(ino: number, fileOffset: number, length: number): RegionRange[] {
    const inode = this.#regularFile(ino)
    const [first, blocks] = blockSpan(fileOffset, length)
    const ranges: RegionRange[] = []
    for (const extent of this.#volume.inodes.extents(inode).overlapping(first, blocks)) {
      const start = Math.max(extent.fileBlock, first)
      const end = Math.min(extent.fileBlock + extent.blocks, first + blocks)
      const block = extent.block + start - extent.fileBlock
      ranges.push({ offset: block * BLOCK_SIZE, length: (end - start) * BLOCK_SIZE })
    }
    if (ranges.length === 0) {
      throw new FsError(ENXIO, `inode ${ino} has no memory at offset ${fileOffset}: it is a hole`)
    }
    return ranges
  }

  #freeRange(length: number): RegionRange {
    const blocks = Math.ceil(length / BLOCK_SIZE)
    const found = this.#volume.allocator.findFree(blocks)
    if (found === undefined) throw new FsError(ENOSPC, 'there is no free range of that length')
    return { offset: found.block * BLOCK_SIZE, length: blocks * BLOCK_SIZE }
  }

  #kindOf(ranges: readonly RegionRange[]): 'data' | 'metadata' | 'free' {
    const rows = ranges.flatMap(({ offset, length }) => {
      const [first, blocks] = blockSpan(offset, length)
      return this.#volume.index.rmap.overlapping(first, blocks)
    })
    if (rows.some((row) => row.owner < 0)) return 'metadata'
    return rows.length > 0 ? 'data' : 'free'
  }
}

function worst(kinds: readonly ('data' | 'metadata' | 'free')[]) {
  const order = ['metadata', 'data', 'free'] as const
  return order.find((kind) => kinds.includes(kind))
}

/** First block and number of blocks that [offset, offset + length) touches. */
function blockSpan(offset: number, length: number): [first: number, blocks: number] {
  const first = Math.floor(offset / BLOCK_SIZE)
  return [first, Math.ceil((offset + length) / BLOCK_SIZE) - first]
}

function span(ranges: readonly RegionRange[]): { offset: number; length: number } {
  const total = ranges.reduce((sum, range) => sum + range.length, 0)
  return { offset: ranges[0]!.offset, length: total }
}

function poisonedBlocks(volume: Volume): number {
  return volume.index.poison.all().reduce((sum, range) => sum + range.blocks, 0)
}
