/** Attributes and extended attributes of an inode. */
import { INODE_ACCESS_ACL, INODE_CAPABILITY, INODE_DEFAULT_ACL } from '../media/change.ts'
import { ACCESS_ACL, chmodAcl, DEFAULT_ACL, isMinimal, modeOfAcl, parseAcl } from './acl.ts'
import {
  E2BIG,
  EEXIST,
  EINVAL,
  EISDIR,
  ENODATA,
  ENOSPC,
  EOPNOTSUPP,
  ERANGE,
  FsError,
} from './errors.ts'
import { clearBeyondEnd } from './file-blocks.ts'
import { freeBeyondEnd, resize } from './file-space.ts'
import type { CachedInode } from './inode-cache.ts'
import { isDirectory, isRegular, PERMISSIONS, S_IFMT, S_ISGID, S_ISUID, S_IXGRP } from './modes.ts'
import type { AttributeChanges, WriteOptions } from './operations.ts'
import { now, setAtime, setCtime, setMtime, type Time } from './time.ts'
import type { Transaction } from './transaction.ts'
import type { Volume } from './volume.ts'

const XATTR_CREATE = 1
const XATTR_REPLACE = 2
const XATTR_NAME_MAX = 255
const XATTR_VALUE_MAX = 64 * 1024
const XATTR_LIST_MAX = 64 * 1024

const CAPABILITY = Buffer.from('security.capability')
const NAMESPACES = ['user.', 'trusted.', 'security.'].map((name) => Buffer.from(name))

/** `fsetid`: the caller has CAP_FSETID, as root. */
export function setattr(
  volume: Volume,
  inode: CachedInode,
  changes: AttributeChanges,
  fsetid: boolean,
): void {
  const { size } = changes
  const shrinks = size !== undefined && size <= inode.row.size
  if (size !== undefined && !isRegular(inode.row.mode)) {
    throw new FsError(isDirectory(inode.row.mode) ? EISDIR : EINVAL)
  }
  if (size !== undefined) clearBeyondEnd(volume, inode, size)
  volume.withSpace(() =>
    volume.transact((transaction) => {
      transaction.touch(inode)
      if (size !== undefined) resize(volume, transaction, inode, size)
      if (changes.killPrivileges) killPrivileges(volume, transaction, inode, fsetid)
      if (changes.mode !== undefined) chmod(volume, transaction, inode, changes.mode)
      if (changes.uid !== undefined) inode.row.uid = changes.uid
      if (changes.gid !== undefined) inode.row.gid = changes.gid
      setTimes(inode, changes)
    }, shrinks),
  )
  if (shrinks) freeBeyondEnd(volume, inode)
}

function setTimes(inode: CachedInode, changes: AttributeChanges): void {
  const time = now()
  const resolve = (wanted: 'now' | Time) => (wanted === 'now' ? time : wanted)
  if (changes.atime !== undefined) setAtime(inode.row, resolve(changes.atime))
  if (changes.mtime !== undefined) setMtime(inode.row, resolve(changes.mtime))
  setCtime(inode.row, changes.ctime ?? time)
}

function chmod(volume: Volume, transaction: Transaction, inode: CachedInode, mode: number): void {
  inode.row.mode = (inode.row.mode & S_IFMT) | (mode & PERMISSIONS)
  if ((inode.row.flags & INODE_ACCESS_ACL) === 0) return
  const { ino } = inode.row
  const acl = volume.index.xattrs.get(ino, ACCESS_ACL)
  if (acl === undefined) return
  transaction.apply({ type: 'putXattr', ino, name: ACCESS_ACL, value: chmodAcl(acl, mode) })
}

/**
 * A write or chown drops suid, sgid and file capabilities. An sgid that means no execution stays
 * with CAP_FSETID, and for members of the group; who is one we are not told, so for them it goes.
 */
function killPrivileges(
  volume: Volume,
  transaction: Transaction,
  inode: CachedInode,
  fsetid: boolean,
): void {
  const { row } = inode
  if (isDirectory(row.mode)) return
  row.mode &= ~S_ISUID
  if (!fsetid || (row.mode & S_IXGRP) !== 0) row.mode &= ~S_ISGID
  dropCapability(volume, transaction, inode)
  transaction.touch(inode)
}

function dropCapability(volume: Volume, transaction: Transaction, { row }: CachedInode): void {
  if ((row.flags & INODE_CAPABILITY) === 0) return
  if (volume.index.xattrs.get(row.ino, CAPABILITY) === undefined) return
  transaction.apply({ type: 'removeXattr', ino: row.ino, name: CAPABILITY })
  row.flags &= ~INODE_CAPABILITY
}

/**
 * What a write takes from the file. Capabilities go whoever writes, root too, and the kernel says
 * so only before a write into its page cache; what comes from there later was written before.
 */
export function dropPrivileges(volume: Volume, inode: CachedInode, options: WriteOptions): void {
  if (options.killPrivileges && needsPrivilegesKilled(inode)) {
    volume.transact((transaction) => killPrivileges(volume, transaction, inode, false))
  } else if (!options.cached && (inode.row.flags & INODE_CAPABILITY) !== 0) {
    volume.transact((transaction) => {
      dropCapability(volume, transaction, inode)
      transaction.touch(inode)
    })
  }
}

function needsPrivilegesKilled(inode: CachedInode): boolean {
  const { mode, flags } = inode.row
  return (mode & (S_ISUID | S_ISGID)) !== 0 || (flags & INODE_CAPABILITY) !== 0
}

/** The inode flag that says "look": see media/change.ts. */
function flagOf(name: Uint8Array): number {
  if (ACCESS_ACL.equals(name)) return INODE_ACCESS_ACL
  if (DEFAULT_ACL.equals(name)) return INODE_DEFAULT_ACL
  return CAPABILITY.equals(name) ? INODE_CAPABILITY : 0
}

function isAcl(name: Uint8Array): boolean {
  return ACCESS_ACL.equals(name) || DEFAULT_ACL.equals(name)
}

function checkXattrName(name: Uint8Array): void {
  if (name.length === 0 || name.length > XATTR_NAME_MAX) throw new FsError(ERANGE)
  if (isAcl(name)) return
  const space = NAMESPACES.find((prefix) => prefix.equals(name.subarray(0, prefix.length)))
  if (space === undefined) throw new FsError(EOPNOTSUPP)
  if (space.length === name.length) throw new FsError(EINVAL)
}

export function getxattr(volume: Volume, inode: CachedInode, name: Uint8Array): Uint8Array {
  checkXattrName(name)
  const flag = flagOf(name)
  const value =
    flag !== 0 && (inode.row.flags & flag) === 0
      ? undefined
      : volume.index.xattrs.get(inode.row.ino, name)
  if (value === undefined) throw new FsError(ENODATA)
  return value
}

export function setxattr(
  volume: Volume,
  inode: CachedInode,
  name: Uint8Array,
  value: Uint8Array,
  flags: number,
  killSgid: boolean,
): void {
  checkXattrName(name)
  if (value.length > XATTR_VALUE_MAX) throw new FsError(E2BIG)
  volume.transact((transaction) => {
    const exists = volume.index.xattrs.get(inode.row.ino, name) !== undefined
    if (exists && (flags & XATTR_CREATE) !== 0) throw new FsError(EEXIST)
    if (!exists && (flags & XATTR_REPLACE) !== 0) throw new FsError(ENODATA)
    setCtime(inode.row, now())
    transaction.touch(inode)
    if (ACCESS_ACL.equals(name) && applyAccessAcl(transaction, inode, value, killSgid, exists))
      return
    if (DEFAULT_ACL.equals(name) && value.length === 0) {
      if (exists) dropXattr(transaction, inode, name)
      return
    }
    if (!exists) requireRoomInList(volume, inode, name)
    const copies = { name: Uint8Array.from(name), value: Uint8Array.from(value) }
    transaction.apply({ type: 'putXattr', ino: inode.row.ino, ...copies })
    inode.row.flags |= flagOf(name)
  })
}

/** Names that do not fit one listxattr(2) could not be listed, copied or backed up: E2BIG. */
function requireRoomInList(volume: Volume, inode: CachedInode, name: Uint8Array): void {
  const names = volume.index.xattrs.list(inode.row.ino)
  const length = names.reduce((sum, { length }) => sum + length + 1, name.length + 1)
  if (length > XATTR_LIST_MAX) throw new FsError(ENOSPC)
}

/** The mode follows the ACL; returns true when the mode says it all and nothing need be stored. */
function applyAccessAcl(
  transaction: Transaction,
  inode: CachedInode,
  value: Uint8Array,
  killSgid: boolean,
  exists: boolean,
): boolean {
  const { row } = inode
  const entries = value.length === 0 ? [] : parseAcl(value)
  if (entries.length > 0) row.mode = (row.mode & ~0o777) | modeOfAcl(entries)
  if (killSgid) row.mode &= ~S_ISGID
  if (!isMinimal(entries)) return false
  if (exists) dropXattr(transaction, inode, ACCESS_ACL)
  return true
}

function dropXattr(transaction: Transaction, inode: CachedInode, name: Uint8Array): void {
  transaction.apply({ type: 'removeXattr', ino: inode.row.ino, name: Uint8Array.from(name) })
  inode.row.flags &= ~flagOf(name)
}

export function removexattr(volume: Volume, inode: CachedInode, name: Uint8Array): void {
  checkXattrName(name)
  volume.transact((transaction) => {
    if (volume.index.xattrs.get(inode.row.ino, name) === undefined) {
      // An ACL that is not there says no more than the mode does: it is as good as removed.
      if (isAcl(name)) return
      throw new FsError(ENODATA)
    }
    dropXattr(transaction, inode, name)
    setCtime(inode.row, now())
    transaction.touch(inode)
  }, true)
}
