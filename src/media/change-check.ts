/**
 * What must hold in a change beyond the widths of its fields. Both directions use it: what a replay
 * would refuse must not get into the journal, for it would make the region unmountable.
 */
import {
  type Change,
  EXTENT_UNWRITTEN,
  INODE_ACCESS_ACL,
  INODE_CAPABILITY,
  INODE_DEFAULT_ACL,
  type InodeRow,
  OWNER_CHECKPOINT,
} from './change.ts'
import { MAX_NAME, MAX_TARGET, MAX_XATTR_VALUE } from './change-layout.ts'
import { COUNTER_MAX } from './geometry.ts'

const SLASH = 0x2f
const DOT = 0x2e

/** File types (DT_*) as a set of bits: fifo, character, directory, block, regular, link, socket. */
const FILE_TYPES = 0b1_0101_0101_0110
const TYPE_LINK = 10
const INODE_FLAGS = INODE_DEFAULT_ACL | INODE_ACCESS_ACL | INODE_CAPABILITY

export function isFileType(type: number): boolean {
  return type >= 0 && type < 16 && ((FILE_TYPES >> type) & 1) === 1
}

/** Why these bytes cannot name a directory entry. */
export function direntNameFault(name: Uint8Array): string | undefined {
  const { length } = name
  if (length === 0 || length > MAX_NAME) return `a name of ${length} bytes`
  for (let at = 0; at < length; at += 1) {
    if (name[at] === 0 || name[at] === SLASH) return 'a name with a NUL or a slash'
  }
  const dots = name[0] === DOT && (length === 1 || (length === 2 && name[1] === DOT))
  return dots ? "a name that is '.' or '..'" : undefined
}

function xattrNameFault(name: Uint8Array): string | undefined {
  const { length } = name
  if (length === 0 || length > MAX_NAME) return `an attribute name of ${length} bytes`
  return name.includes(0) ? 'an attribute name with a NUL' : undefined
}

export function inodeFault(inode: InodeRow): string | undefined {
  const { ino, mode, flags, blocks, target } = inode
  if (ino < 1) return `inode number ${ino}`
  const type = mode >>> 12
  if (!isFileType(type)) return `mode 0${mode.toString(8)} of no file type`
  if (flags > INODE_FLAGS) return `flags 0x${flags.toString(16)}`
  if (blocks > COUNTER_MAX) return `${blocks} blocks`
  if (
    inode.atimeNs >= 1e9 ||
    inode.mtimeNs >= 1e9 ||
    inode.ctimeNs >= 1e9 ||
    inode.btimeNs >= 1e9
  ) {
    return 'a second or more of nanoseconds'
  }
  if ((type === TYPE_LINK) !== (target !== null)) return 'a target, or none, against its file type'
  if (target === null) return undefined
  if (target.length === 0 || target.length > MAX_TARGET) return `a target of ${target.length} bytes`
  return target.includes(0) ? 'a target with a NUL' : undefined
}

function rangeFault(block: number, blocks: number, regionBlocks: number): string | undefined {
  if (blocks < 1) return `a range of ${blocks} blocks`
  // Not block + blocks > regionBlocks: that sum need not be exact.
  if (blocks > regionBlocks - block) return `blocks [${block}, +${blocks}) outside the region`
  return undefined
}

function ownerFault(owner: number): string | undefined {
  return owner === 0 || owner < OWNER_CHECKPOINT ? `owner ${owner}` : undefined
}

/** What is wrong with a change of a region of `regionBlocks` blocks; undefined when nothing is. */
export function changeFault(change: Change, regionBlocks: number): string | undefined {
  switch (change.type) {
    case 'putInode':
      return inodeFault(change.inode)
    case 'removeInode':
      return change.ino < 1 ? `inode number ${change.ino}` : undefined
    case 'putDirent':
      if (change.ino < 1 || change.parent < 1) return `inode number 0`
      if (!isFileType(change.kind)) return `file type ${change.kind}`
      return direntNameFault(change.name)
    case 'removeDirent':
      return direntNameFault(change.name)
    case 'putXattr': {
      const { length } = change.value
      if (length > MAX_XATTR_VALUE) return `an attribute value of ${length} bytes`
      return xattrNameFault(change.name)
    }
    case 'removeXattr':
      return xattrNameFault(change.name)
    case 'putExtent': {
      const { block, blocks, owner, fileBlock, flags } = change.extent
      if ((flags & ~EXTENT_UNWRITTEN) !== 0) return `extent flags ${flags}`
      if (!Number.isSafeInteger(fileBlock + blocks)) return `file block ${fileBlock}`
      return ownerFault(owner) ?? rangeFault(block, blocks, regionBlocks)
    }
    case 'removeExtent':
      return ownerFault(change.owner) ?? rangeFault(change.block, 1, regionBlocks)
    default:
      return rangeFault(change.block, change.blocks, regionBlocks)
  }
}
