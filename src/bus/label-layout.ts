/** The layout on media of the label of a target: which part of which mapped device it is. */
import { compileLayout, type Layout, type StructOf } from '../media/layout.ts'

export const LABEL_MAGIC = 'HOLDFSET'
export const LABEL_VERSION = 1

export const MAX_TARGETS = 64

/** The position in this list is the code on media: only ever append. */
export const SET_KINDS = ['linear', 'striped'] as const
export type SetKind = (typeof SET_KINDS)[number]

export const LABEL = [
  ['crc', 'u32', 'CRC32C of the 4092 bytes behind it'],
  ['version', 'u32', 'of this layout: 1'],
  ['magic', 'label(8)', 'HOLDFSET'],
  ['set', 'uuid', 'of the mapped device'],
  ['sequence', 'u64', 'of this copy: 1'],
  ['kind', 'u8', '0 linear, 1 striped'],
  ['reserved0', 'reserved(3)', 'zero'],
  ['count', 'u16', 'targets of the mapped device, 2 to 64'],
  ['position', 'u16', 'which of them this one is, from 0'],
  ['chunk', 'u64', 'bytes; 0: linear'],
  ['start', 'u64', "bytes, where the target's share begins in it"],
  ['secondCopy', 'u64', 'bytes, where the second copy of this label lies'],
  ['targets', 'bytes(1536)', '64 targets, the unused ones zero'],
  ['reserved1', 'reserved(2488)', 'zero'],
] as const satisfies Layout

export const TARGET = [
  ['uuid', 'uuid', 'of the target'],
  ['length', 'u64', 'bytes of its share'],
] as const satisfies Layout

export type RawLabel = StructOf<typeof LABEL>

export const labelCodec = compileLayout('target label', LABEL)
export const targetCodec = compileLayout('target', TARGET)
