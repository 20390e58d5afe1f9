/** The layout on media of a region that is split into instances. */
import { compileLayout, type Layout, type StructOf } from '../media/layout.ts'

export const REGION_MAGIC = 'HOLDFREG'
export const REGION_VERSION = 1

export const MAX_INSTANCES = 256
export const MAX_RANGES = 512

export const REGION_STATIC = 1 << 0
export const INSTANCE_ENABLED = 1 << 0

export const REGION = [
  ['crc', 'u32', 'CRC32C of the 16380 bytes behind it'],
  ['version', 'u32', 'of this layout: 1'],
  ['magic', 'label(8)', 'HOLDFREG'],
  ['uuid', 'uuid', 'of the region'],
  ['sequence', 'u64', 'of this copy: the higher wins'],
  ['regionId', 'u32', 'N in the names daxN.0, daxN.1 ... of its instances'],
  ['flags', 'u32', 'bit 0: static, one instance that is the whole region'],
  ['align', 'u32', 'bytes: 4096, 2097152 or 1073741824'],
  ['seed', 'u32', 'id of the seed plus one; 0: none'],
  ['youngest', 'u32', 'id of the newest instance plus one; 0: none'],
  ['instanceCount', 'u16', 'entries used in instances, at most 256'],
  ['rangeCount', 'u16', 'entries used in ranges, at most 512'],
  ['start', 'u64', 'bytes, where the memory that instances share begins'],
  ['length', 'u64', 'bytes of it, a multiple of align'],
  ['secondCopy', 'u64', 'bytes, where the second copy of this struct lies'],
  ['reserved0', 'reserved(4008)', 'zero'],
  ['instances', 'bytes(4096)', '256 instances, by id, the unused ones zero'],
  ['ranges', 'bytes(8192)', '512 ranges, instance by instance, the unused ones zero'],
] as const satisfies Layout

export const INSTANCE = [
  ['id', 'u32', 'M in its name daxN.M'],
  ['align', 'u32', 'bytes'],
  ['flags', 'u32', 'bit 0: enabled'],
  ['rangeCount', 'u32', 'how many of the ranges are its own'],
] as const satisfies Layout

export const INSTANCE_RANGE = [
  ['start', 'u64', 'bytes, from the start of the file'],
  ['length', 'u64', 'bytes'],
] as const satisfies Layout

export type RawRegion = StructOf<typeof REGION>

export const regionCodec = compileLayout('region', REGION)
export const instanceCodec = compileLayout('instance', INSTANCE)
export const rangeCodec = compileLayout('range', INSTANCE_RANGE)
