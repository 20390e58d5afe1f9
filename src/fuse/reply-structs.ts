/**
 * The structs of <linux/fuse.h> that we answer and notify with. Names are the header's; offsets
 * count from the start of the payload.
 */
import { type Fields, struct } from './wire-struct.ts'

export const OUT_HEADER = struct([
  ['len', 'u32'],
  ['error', 'i32'],
  ['unique', 'u64'],
])

const ATTR_FIELDS = [
  ['ino', 'u64'],
  ['size', 'u64'],
  ['blocks', 'u64'],
  ['atime', 'u64'],
  ['mtime', 'u64'],
  ['ctime', 'u64'],
  ['atimensec', 'u32'],
  ['mtimensec', 'u32'],
  ['ctimensec', 'u32'],
  ['mode', 'u32'],
  ['nlink', 'u32'],
  ['uid', 'u32'],
  ['gid', 'u32'],
  ['rdev', 'u32'],
  ['blksize', 'u32'],
  ['flags', 'u32'],
] as const satisfies Fields

export const ATTR = struct(ATTR_FIELDS)
export const ENTRY_OUT = struct([
  ['nodeid', 'u64'],
  ['generation', 'u64'],
  ['entry_valid', 'u64'],
  ['attr_valid', 'u64'],
  ['entry_valid_nsec', 'u32'],
  ['attr_valid_nsec', 'u32'],
  // `attr` is the offset of the struct embedded here: its first field is its own `ino`.
  ['attr', 'u64'],
  ...ATTR_FIELDS.slice(1),
])
export const ATTR_OUT = struct([
  ['attr_valid', 'u64'],
  ['attr_valid_nsec', 'u32'],
  ['dummy', 'u32'],
  ['attr', 'u64'],
  ...ATTR_FIELDS.slice(1),
])

const sxTime = <const N extends string>(name: N) =>
  [
    [`${name}_sec`, 'i64'],
    [`${name}_nsec`, 'u32'],
    [`${name}_reserved`, 'i32'],
  ] as const

export const STATX = struct([
  ['mask', 'u32'],
  ['blksize', 'u32'],
  ['attributes', 'u64'],
  ['nlink', 'u32'],
  ['uid', 'u32'],
  ['gid', 'u32'],
  ['mode', 'u16'],
  ['spare0', 'u16'],
  ['ino', 'u64'],
  ['size', 'u64'],
  ['blocks', 'u64'],
  ['attributes_mask', 'u64'],
  ...sxTime('atime'),
  ...sxTime('btime'),
  ...sxTime('ctime'),
  ...sxTime('mtime'),
  ['rdev_major', 'u32'],
  ['rdev_minor', 'u32'],
  ['dev_major', 'u32'],
  ['dev_minor', 'u32'],
  ...Array.from({ length: 14 }, (_, i) => [`spare2_${i}`, 'u64'] as const),
])
export const STATX_OUT = struct([
  ['attr_valid', 'u64'],
  ['attr_valid_nsec', 'u32'],
  ['flags', 'u32'],
  ['spare_0', 'u64'],
  ['spare_1', 'u64'],
])
export const OPEN_OUT = struct([
  ['fh', 'u64'],
  ['open_flags', 'u32'],
  ['padding', 'u32'],
])
export const WRITE_OUT = struct([
  ['size', 'u32'],
  ['padding', 'u32'],
])
export const GETXATTR_OUT = WRITE_OUT
export const LSEEK_OUT = struct([['offset', 'u64']])
export const COPY_FILE_RANGE_OUT = struct([['bytes_copied', 'u64']])
export const STATFS_OUT = struct([
  ['blocks', 'u64'],
  ['bfree', 'u64'],
  ['bavail', 'u64'],
  ['files', 'u64'],
  ['ffree', 'u64'],
  ['bsize', 'u32'],
  ['namelen', 'u32'],
  ['frsize', 'u32'],
  ['padding', 'u32'],
  ...Array.from({ length: 6 }, (_, i) => [`spare_${i}`, 'u32'] as const),
])
export const INIT_OUT = struct([
  ['major', 'u32'],
  ['minor', 'u32'],
  ['max_readahead', 'u32'],
  ['flags', 'u32'],
  ['max_background', 'u16'],
  ['congestion_threshold', 'u16'],
  ['max_write', 'u32'],
  ['time_gran', 'u32'],
  ['max_pages', 'u16'],
  ['map_alignment', 'u16'],
  ['flags2', 'u32'],
  ['max_stack_depth', 'u32'],
  ['request_timeout', 'u16'],
  ...Array.from({ length: 11 }, (_, i) => [`unused_${i}`, 'u16'] as const),
])
/** Followed by the name, padded to 8 bytes. */
export const DIRENT = struct([
  ['ino', 'u64'],
  ['off', 'u64'],
  ['namelen', 'u32'],
  ['type', 'u32'],
])
export const NOTIFY_INVAL_INODE_OUT = struct([
  ['ino', 'u64'],
  ['off', 'i64'],
  ['len', 'i64'],
])
/** Followed by the name and a zero. */
export const NOTIFY_INVAL_ENTRY_OUT = struct([
  ['parent', 'u64'],
  ['namelen', 'u32'],
  ['flags', 'u32'],
])
