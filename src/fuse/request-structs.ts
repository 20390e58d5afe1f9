/** The structs of <linux/fuse.h> that the kernel sends. Names are the header's. */
import { type Fields, struct, type WireStruct } from './wire-struct.ts'

export const IN_HEADER = struct([
  ['len', 'u32'],
  ['opcode', 'u32'],
  ['unique', 'u64'],
  ['nodeid', 'u64'],
  ['uid', 'u32'],
  ['gid', 'u32'],
  ['pid', 'u32'],
  ['total_extlen', 'u16'],
  ['padding', 'u16'],
])

/** Arguments of a request: they follow the header, and their offsets count from its start. */
function request<const F extends Fields>(fields: F): WireStruct<F[number][0]> {
  return struct(fields, IN_HEADER.size)
}

export const INIT_IN = request([
  ['major', 'u32'],
  ['minor', 'u32'],
  ['max_readahead', 'u32'],
  ['flags', 'u32'],
  ['flags2', 'u32'],
  ...Array.from({ length: 11 }, (_, i) => [`unused_${i}`, 'u32'] as const),
])
export const FORGET_IN = request([['nlookup', 'u64']])
export const BATCH_FORGET_IN = request([
  ['count', 'u32'],
  ['dummy', 'u32'],
])
export const GETATTR_IN = request([
  ['getattr_flags', 'u32'],
  ['dummy', 'u32'],
  ['fh', 'u64'],
])
export const STATX_IN = request([
  ['getattr_flags', 'u32'],
  ['reserved', 'u32'],
  ['fh', 'u64'],
  ['sx_flags', 'u32'],
  ['sx_mask', 'u32'],
])
export const MKNOD_IN = request([
  ['mode', 'u32'],
  ['rdev', 'u32'],
  ['umask', 'u32'],
  ['padding', 'u32'],
])
export const MKDIR_IN = request([
  ['mode', 'u32'],
  ['umask', 'u32'],
])
export const RENAME_IN = request([['newdir', 'u64']])
export const RENAME2_IN = request([
  ['newdir', 'u64'],
  ['flags', 'u32'],
  ['padding', 'u32'],
])
export const LINK_IN = request([['oldnodeid', 'u64']])
export const SETATTR_IN = request([
  ['valid', 'u32'],
  ['padding', 'u32'],
  ['fh', 'u64'],
  ['size', 'u64'],
  ['lock_owner', 'u64'],
  ['atime', 'u64'],
  ['mtime', 'u64'],
  ['ctime', 'u64'],
  ['atimensec', 'u32'],
  ['mtimensec', 'u32'],
  ['ctimensec', 'u32'],
  ['mode', 'u32'],
  ['unused4', 'u32'],
  ['uid', 'u32'],
  ['gid', 'u32'],
  ['unused5', 'u32'],
])
export const OPEN_IN = request([
  ['flags', 'u32'],
  ['open_flags', 'u32'],
])
export const CREATE_IN = request([
  ['flags', 'u32'],
  ['mode', 'u32'],
  ['umask', 'u32'],
  ['open_flags', 'u32'],
])
export const RELEASE_IN = request([
  ['fh', 'u64'],
  ['flags', 'u32'],
  ['release_flags', 'u32'],
  ['lock_owner', 'u64'],
])
export const READ_IN = request([
  ['fh', 'u64'],
  ['offset', 'u64'],
  ['size', 'u32'],
  ['read_flags', 'u32'],
  ['lock_owner', 'u64'],
  ['flags', 'u32'],
  ['padding', 'u32'],
])
export const WRITE_IN = request([
  ['fh', 'u64'],
  ['offset', 'u64'],
  ['size', 'u32'],
  ['write_flags', 'u32'],
  ['lock_owner', 'u64'],
  ['flags', 'u32'],
  ['padding', 'u32'],
])
export const FSYNC_IN = request([
  ['fh', 'u64'],
  ['fsync_flags', 'u32'],
  ['padding', 'u32'],
])
/** Of FUSE_SETXATTR_EXT; without that flag the struct ends after `flags`. */
export const SETXATTR_IN = request([
  ['size', 'u32'],
  ['flags', 'u32'],
  ['setxattr_flags', 'u32'],
  ['padding', 'u32'],
])
export const GETXATTR_IN = request([
  ['size', 'u32'],
  ['padding', 'u32'],
])
export const INTERRUPT_IN = request([['unique', 'u64']])
export const FALLOCATE_IN = request([
  ['fh', 'u64'],
  ['offset', 'u64'],
  ['length', 'u64'],
  ['mode', 'u32'],
  ['padding', 'u32'],
])
export const LSEEK_IN = request([
  ['fh', 'u64'],
  ['offset', 'u64'],
  ['whence', 'u32'],
  ['padding', 'u32'],
])
export const COPY_FILE_RANGE_IN = request([
  ['fh_in', 'u64'],
  ['off_in', 'u64'],
  ['nodeid_out', 'u64'],
  ['fh_out', 'u64'],
  ['off_out', 'u64'],
  ['len', 'u64'],
  ['flags', 'u64'],
])
/** Element of BATCH_FORGET's list. */
export const FORGET_ONE = struct([
  ['nodeid', 'u64'],
  ['nlookup', 'u64'],
])
