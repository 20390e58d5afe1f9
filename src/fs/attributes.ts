/** Attributes and extended attributes of an inode. */
import { INODE_ACCESS_ACL, INODE_CAPABILITY, INODE_DEFAULT_ACL } from '../media/change.ts'
import { ACCESS_ACL, chmodAcl, DEFAULT_ACL, isMinimal, modeOfAcl, parseAcl } from './acl.ts'
import { E2BIG, EEXIST, EINVAL, EISDIR, ENODATA, EOPNOTSUPP, ERANGE, FsError } from './errors.ts'
import { freeBeyondEnd, resize } from './file-space.ts'
import type { CachedInode } from './inode-cache.ts'
import { isDirectory, isRegular, PERMISSIONS, S_IFMT, S_ISGID, S_ISUID, S_IXGRP } from './modes.ts'
import type { AttributeChanges } from './operations.ts'
import { now, setAtime, setCtime, setMtime, type Time } from './time.ts'
import type { Transaction } from './transaction.ts'
import type { Volume } from './volume.ts'

const XATTR_CREATE = 1
const XATTR_REPLACE = 2
const XATTR_NAME_MAX = 255
const XATTR_VALUE_MAX = 64 * 1024

const CAPABILITY = Buffer.from('security.capability')
const NAMESPACES = ['user.', 'trusted.', 'security.'].map((name) => Buffer.from(name))

export function setattr(volume: Volume, inode: CachedInode, changes: AttributeChanges): void {
  const { size } = changes
  if (size !== undefined && !isRegular(inode.row.mode)) {
    throw new FsError(isDirectory(inode.row.mode) ? EISDIR : EINVAL)
  }
  volume.withSpace(() =>
    volume.transact(
      (transaction) => {
        transaction.touch(inode)
        if (size !== undefined) resize(volume, transaction, inode, size)
        if (changes.killPrivileges) killPrivileges(volume, transaction, inode)
        if (changes.mode !== undefined) chmod(volume, transaction, inode, changes.mode)
        if (changes.uid !== undefined) inode.row.uid = changes.uid
        if (changes.gid !== undefined) inode.row.gid = changes.gid
        setTimes(inode, changes)
      },
      size !== undefined && size < inode.row.size,
    ),
  )
  if (size !== undefined) freeBeyondEnd(volume, inode)
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
 * A write or chown by somebody drops suid, sgid (when it means execution) and file capabilities.
 */
export function killPrivileges(volume: Volume, transaction: Transaction, inode: CachedInode): void {
  const { row } = inode
  if (isDirectory(row.mode)) return
  row.mode &= ~S_ISUID
  if ((row.mode & S_IXGRP) !== 0) row.mode &= ~S_ISGID
  if ((row.flags & INODE_CAPABILITY) !== 0 && volume.index.xattrs.get(row.ino, CAPABILITY)) {
    transaction.apply({ type: 'removeXattr', ino: row.ino, name: CAPABILITY })
    row.flags &= ~INODE_CAPABILITY
  }
  transaction.touch(inode)
}

export function needsPrivilegesKilled(inode: CachedInode): boolean {
  const { mode, flags } = inode.row
  const sgid = (mode & S_ISGID) !== 0 && (mode & S_IXGRP) !== 0
  return (mode & S_ISUID) !== 0 || sgid || (flags & INODE_CAPABILITY) !== 0
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
  const known = NAMESPACES.some((space) => space.equals(name.subarray(0, space.length)))
  if (!known && !isAcl(name)) throw new FsError(EOPNOTSUPP)
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
    const copies = { name: Uint8Array.from(name), value: Uint8Array.from(value) }
    transaction.apply({ type: 'putXattr', ino: inode.row.ino, ...copies })
    inode.row.flags |= flagOf(name)
  })
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
    if (volume.index.xattrs.get(inode.row.ino, name) === undefined) throw new FsError(ENODATA)
    dropXattr(transaction, inode, name)
    setCtime(inode.row, now())
    transaction.touch(inode)
  }, true)
}
