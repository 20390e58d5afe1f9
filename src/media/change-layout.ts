/** The layout of changes in a transaction record. */
import type { Change } from './change.ts'
import { compileLayout, type Layout } from './layout.ts'

export const CHANGE_HEADER = [
  ['type', 'u8', 'which change: see the list of codes'],
  ['nameLength', 'u8', 'bytes of the name behind the fixed fields; 0: none'],
  ['reserved0', 'reserved(2)', 'zero'],
  ['valueLength', 'u32', 'bytes of the value behind the name; 0: none'],
] as const satisfies Layout

export const INODE_BODY = [
  ['ino', 'u64', 'inode number'],
  ['mode', 'u32', 'type and permissions, as in stat(2)'],
  ['uid', 'u32', 'owner'],
  ['gid', 'u32', 'group'],
  ['nlink', 'u32', 'hard links'],
  ['rdev', 'u64', 'device number of a special file'],
  ['flags', 'u32', 'bit 0: has a default ACL, bit 1: an access ACL, bit 2: a capability'],
  ['atimeNs', 'u32', 'nanoseconds, below 1000000000'],
  ['mtimeNs', 'u32', 'nanoseconds'],
  ['ctimeNs', 'u32', 'nanoseconds'],
  ['btimeNs', 'u32', 'nanoseconds'],
  ['reserved0', 'reserved(4)', 'zero'],
  ['size', 'u64', 'bytes'],
  ['blocks', 'u64', 'blocks of 4 KiB'],
  ['parent', 'u64', "directories: the parent's inode number; others: 0"],
  ['atime', 'i64', 'last access, seconds since 1970'],
  ['mtime', 'i64', 'last change of content'],
  ['ctime', 'i64', 'last change of the inode'],
  ['btime', 'i64', 'birth'],
] as const satisfies Layout

export const DIRENT_BODY = [
  ['parent', 'u64', 'inode number of the directory'],
  ['cookie', 'u64', 'readdir position'],
  ['ino', 'u64', 'inode number the entry names'],
  ['kind', 'u8', 'file type, DT_*'],
] as const satisfies Layout

export const EXTENT_BODY = [
  ['block', 'u64', 'first block in the region'],
  ['blocks', 'u64', 'number of blocks'],
  ['owner', 'i64', 'inode number, or below zero: metadata'],
  ['fileBlock', 'u64', 'first block in the file'],
  ['flags', 'u32', 'bit 0: unwritten'],
] as const satisfies Layout

export const EXTENT_KEY_BODY = [
  ['block', 'u64', 'first block in the region'],
  ['owner', 'i64', 'inode number, or below zero: metadata'],
  ['fileBlock', 'u64', 'first block in the file'],
] as const satisfies Layout

export const RANGE_BODY = [
  ['block', 'u64', 'first block in the region'],
  ['blocks', 'u64', 'number of blocks'],
] as const satisfies Layout

export const INO_BODY = [['ino', 'u64', 'inode number']] as const satisfies Layout

export const PARENT_BODY = [
  ['parent', 'u64', 'inode number of the directory'],
] as const satisfies Layout

/** Codes on media: only ever append. */
export const CHANGE_TYPES = {
  putInode: 1,
  removeInode: 2,
  putDirent: 3,
  removeDirent: 4,
  putXattr: 5,
  removeXattr: 6,
  putExtent: 7,
  removeExtent: 8,
  allocate: 9,
  free: 10,
  putPoison: 11,
  removePoison: 12,
} as const satisfies Record<Change['type'], number>

/** Bytes of the longest name of an entry or an extended attribute. */
export const MAX_NAME = 255
/** Bytes of the longest target of a symbolic link. */
export const MAX_TARGET = 4095
/** Bytes of the largest value of an extended attribute. */
export const MAX_XATTR_VALUE = 65536

export const changeHeaderCodec = compileLayout('change', CHANGE_HEADER)
export const inodeCodec = compileLayout('inode change', INODE_BODY)
export const direntCodec = compileLayout('dirent change', DIRENT_BODY)
export const extentCodec = compileLayout('extent change', EXTENT_BODY)
export const extentKeyCodec = compileLayout('extent removal', EXTENT_KEY_BODY)
export const rangeCodec = compileLayout('range change', RANGE_BODY)
export const inoCodec = compileLayout('inode key', INO_BODY)
export const parentCodec = compileLayout('directory key', PARENT_BODY)
