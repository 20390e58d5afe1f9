/** Memory failures on purpose: finds the memory that is meant, and makes it fail. */
import { injectFault, injectPoison } from '../dax/fault.ts'
import { BLOCK_SIZE, blockSpan } from '../media/geometry.ts'
import type { FailureReport, InjectRequest, InjectResult } from './administration.ts'
import { EINVAL, ENOSPC, ENXIO, FsError } from './errors.ts'
import { regularFile } from './file-map.ts'
import type { Volume } from './volume.ts'

interface RegionRange {
  readonly offset: number
  readonly length: number
}

export function inject(volume: Volume, request: InjectRequest): InjectResult {
  volume.requireAlive()
  const ranges = resolve(volume, request)
  if (request.method === 'sigbus') return emulate(volume, ranges)
  const killedBefore = volume.handles.killed
  const reports: FailureReport[] = []
  const ignore = volume.subscribe((event) => {
    if (event.event === 'failure') reports.push(event)
  })
  try {
    for (const { offset, length } of ranges) {
      if (request.method === 'hwpoison') injectPoison(volume.device, offset, length)
      else volume.device.memoryFailure(offset, length)
    }
  } finally {
    ignore()
  }
  return {
    kind: worst(reports.map((report) => report.kind)) ?? kindOf(volume, ranges),
    ...span(ranges),
    inodes: [...new Set(reports.flatMap((report) => report.inodes))],
    handlesKilled: volume.handles.killed - killedBefore,
    shutdown: volume.shutdown !== undefined,
  }
}

/** The pages really fault in this process from now on; the next access discovers it. */
function emulate(volume: Volume, ranges: readonly RegionRange[]): InjectResult {
  const inodes = new Set<number>()
  for (const { offset, length } of ranges) {
    injectFault(volume.device, offset, length)
    const [first, blocks] = blockSpan(offset, length)
    for (const row of volume.index.rmap.overlapping(first, blocks)) {
      if (row.owner > 0) inodes.add(row.owner)
    }
  }
  // What the kernel has cached would hide the fault from the next access.
  for (const ino of inodes) volume.cache?.invalidate(ino, 0, 0).catch(() => undefined)
  const kind = kindOf(volume, ranges)
  return { kind, ...span(ranges), inodes: [...inodes], handlesKilled: 0, shutdown: false }
}

function resolve(volume: Volume, { target, length }: InjectRequest): RegionRange[] {
  const { geometry, superblock, journal } = volume
  if (!(length > 0)) throw new FsError(EINVAL, 'the length must be larger than 0')
  switch (target.kind) {
    case 'file':
      return resolveFile(volume, target.inode, target.fileOffset, length)
    case 'offset':
      if (target.offset < 0 || target.offset + length > geometry.size) {
        throw new FsError(ENXIO, `the region ends at ${geometry.size}`)
      }
      return [{ offset: target.offset, length }]
    case 'free':
      return [freeRange(volume, length)]
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

function resolveFile(
  volume: Volume,
  ino: number,
  fileOffset: number,
  length: number,
): RegionRange[] {
  const inode = regularFile(volume, ino)
  const [first, blocks] = blockSpan(fileOffset, length)
  const ranges: RegionRange[] = []
  for (const extent of volume.inodes.extents(inode).overlapping(first, blocks)) {
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

function freeRange(volume: Volume, length: number): RegionRange {
  const blocks = Math.ceil(length / BLOCK_SIZE)
  const found = volume.allocator.findFree(blocks)
  if (found === undefined) throw new FsError(ENOSPC, 'there is no free range of that length')
  return { offset: found.block * BLOCK_SIZE, length: blocks * BLOCK_SIZE }
}

function kindOf(volume: Volume, ranges: readonly RegionRange[]): InjectResult['kind'] {
  const rows = ranges.flatMap(({ offset, length }) => {
    const [first, blocks] = blockSpan(offset, length)
    return volume.index.rmap.overlapping(first, blocks)
  })
  if (rows.some((row) => row.owner < 0)) return 'metadata'
  return rows.length > 0 ? 'data' : 'free'
}

function worst(kinds: readonly InjectResult['kind'][]): InjectResult['kind'] | undefined {
  const order = ['metadata', 'data', 'free'] as const
  return order.find((kind) => kinds.includes(kind))
}

function span(ranges: readonly RegionRange[]): RegionRange {
  const total = ranges.reduce((sum, range) => sum + range.length, 0)
  return { offset: ranges[0]!.offset, length: total }
}
