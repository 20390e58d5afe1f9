/**
 * Attributes on the wire: fuse_attr, fuse_entry_out, fuse_attr_out, fuse_statx.
 *
 * What the kernel keeps for ever (cache=keep, auto) and why it stays true: we are the only holder
 * of the region, so every change comes through this kernel, which itself marks what an operation
 * has made stale. Seen on 6.18: write, fallocate and copy_file_range: size, times and blocks of the
 * file; unlink, rename, link, setxattr: link count and ctime of the inode (hard links share one
 * kernel inode) and all of the directories; a read that had to ask us: atime. The kernel keeps no
 * atime of its own in FUSE: the filesystem does, when a READ arrives. Missing from the kernel's
 * list: the mode after a write that drops suid (files.ts tells it), and what the control socket
 * changes (notify.ts).
 */
import type { Inode } from '../fs/operations.ts'
import { ATTR, ATTR_OUT, ENTRY_OUT, STATX, STATX_OUT } from './reply-structs.ts'

/** Words (32 bits) of the payload a reply is built in. */
export type Words = Uint32Array

const BLOCK_SIZE = 4096
const SECTORS_PER_BLOCK = BLOCK_SIZE / 512
const TWO_32 = 2 ** 32

const STATX_BASIC_STATS = 0x7ff
const STATX_BTIME = 0x800

/** How long the kernel may believe an answer, seconds. */
export const FOREVER = 0xffffffff

/** `at` is a byte offset, a multiple of 4. Negative values come out in two's complement. */
export function putU64(words: Words, at: number, value: number): void {
  words[at >>> 2] = value
  words[(at >>> 2) + 1] = Math.floor(value / TWO_32)
}

/** See ATTR; `at` is where the struct starts. */
export function putAttr(words: Words, at: number, inode: Inode): void {
  const { at: field } = ATTR
  putU64(words, at + field.ino, inode.ino)
  putU64(words, at + field.size, inode.size)
  putU64(words, at + field.blocks, inode.blocks * SECTORS_PER_BLOCK)
  putU64(words, at + field.atime, inode.atime)
  putU64(words, at + field.mtime, inode.mtime)
  putU64(words, at + field.ctime, inode.ctime)
  words[(at + field.atimensec) >>> 2] = inode.atimeNs
  words[(at + field.mtimensec) >>> 2] = inode.mtimeNs
  words[(at + field.ctimensec) >>> 2] = inode.ctimeNs
  words[(at + field.mode) >>> 2] = inode.mode
  words[(at + field.nlink) >>> 2] = inode.nlink
  words[(at + field.uid) >>> 2] = inode.uid
  words[(at + field.gid) >>> 2] = inode.gid
  words[(at + field.rdev) >>> 2] = inode.rdev
  words[(at + field.blksize) >>> 2] = BLOCK_SIZE
  words[(at + field.flags) >>> 2] = 0
}

/** Everything of fuse_entry_out before the attributes. nodeid 0 says: there is no such name. */
function putEntryHead(
  words: Words,
  at: number,
  low: number,
  high: number,
  entryValid: number,
  attrValid: number,
): void {
  const { at: field } = ENTRY_OUT
  words[(at + field.nodeid) >>> 2] = low
  words[((at + field.nodeid) >>> 2) + 1] = high
  putU64(words, at + field.generation, 0)
  putU64(words, at + field.entry_valid, entryValid)
  putU64(words, at + field.attr_valid, attrValid)
  words[(at + field.entry_valid_nsec) >>> 2] = 0
  words[(at + field.attr_valid_nsec) >>> 2] = 0
}

export function putEntry(
  words: Words,
  at: number,
  low: number,
  high: number,
  valid: number,
  inode: Inode,
): void {
  putEntryHead(words, at, low, high, valid, valid)
  putAttr(words, at + ENTRY_OUT.at.attr, inode)
}

/** No such name, and that may be believed as long as any other answer. */
export function putNegativeEntry(words: Words, at: number, valid: number): void {
  words.fill(0, at >>> 2, (at + ENTRY_OUT.size) >>> 2)
  putEntryHead(words, at, 0, 0, valid, 0)
}

export function putAttrOut(words: Words, valid: number, inode: Inode): void {
  putU64(words, ATTR_OUT.at.attr_valid, valid)
  words[ATTR_OUT.at.attr_valid_nsec >>> 2] = 0
  words[ATTR_OUT.at.dummy >>> 2] = 0
  putAttr(words, ATTR_OUT.at.attr, inode)
}

function putStatxTime(words: Words, at: number, seconds: number, nanoseconds: number): void {
  putU64(words, at, seconds)
  words[(at + 8) >>> 2] = nanoseconds
}

export const STATX_REPLY_SIZE = STATX_OUT.size + STATX.size

export function putStatxOut(words: Words, valid: number, inode: Inode): void {
  const at = STATX_OUT.size
  const { at: field } = STATX
  words.fill(0, 0, STATX_REPLY_SIZE >>> 2)
  putU64(words, STATX_OUT.at.attr_valid, valid)
  words[(at + field.mask) >>> 2] = STATX_BASIC_STATS | STATX_BTIME
  words[(at + field.blksize) >>> 2] = BLOCK_SIZE
  words[(at + field.nlink) >>> 2] = inode.nlink
  words[(at + field.uid) >>> 2] = inode.uid
  words[(at + field.gid) >>> 2] = inode.gid
  // Sixteen bits and a spare that is zero.
  words[(at + field.mode) >>> 2] = inode.mode
  putU64(words, at + field.ino, inode.ino)
  putU64(words, at + field.size, inode.size)
  putU64(words, at + field.blocks, inode.blocks * SECTORS_PER_BLOCK)
  putStatxTime(words, at + field.atime_sec, inode.atime, inode.atimeNs)
  putStatxTime(words, at + field.btime_sec, inode.btime, inode.btimeNs)
  putStatxTime(words, at + field.ctime_sec, inode.ctime, inode.ctimeNs)
  putStatxTime(words, at + field.mtime_sec, inode.mtime, inode.mtimeNs)
  // rdev is the kernel's 32-bit encoding (new_encode_dev).
  words[(at + field.rdev_major) >>> 2] = (inode.rdev & 0xfff00) >>> 8
  words[(at + field.rdev_minor) >>> 2] = (inode.rdev & 0xff) | ((inode.rdev >>> 12) & 0xfff00)
}
