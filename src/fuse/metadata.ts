/** Attributes, extended attributes, STATFS. */
import { ERANGE, FsError } from '../fs/errors.ts'
import type { Handle } from '../fs/handles.ts'
import type { AttributeChanges } from '../fs/operations.ts'
import { putAttrOut, putStatxOut, putU64, STATX_REPLY_SIZE } from './attributes.ts'
import { Fattr, SETXATTR_ACL_KILL_SGID } from './protocol.ts'
import { ATTR_OUT, GETXATTR_OUT, STATFS_OUT } from './reply-structs.ts'
import type { Request } from './request.ts'
import { GETXATTR_IN, IN_HEADER, SETATTR_IN, SETXATTR_IN } from './request-structs.ts'
import type { Session } from './session.ts'

const AFTER_SETXATTR = IN_HEADER.size + SETXATTR_IN.size
const AFTER_GETXATTR = IN_HEADER.size + GETXATTR_IN.size
const TRUSTED = Buffer.from('trusted.')

export function getattr(session: Session): void {
  putAttrOut(session.out, session.policy.valid, session.fs.getattr(session.request.ino))
  session.ok(ATTR_OUT.size)
}

export function statx(session: Session): void {
  putStatxOut(session.out, session.policy.valid, session.fs.getattr(session.request.ino))
  session.ok(STATX_REPLY_SIZE)
}

export function setattr(session: Session): void {
  const { fs, request } = session
  const valid = request.u32(SETATTR_IN.at.valid)
  // Before a write the kernel says "no suid any more" with no bit set; the WRITE then says so
  // itself. So does chown(2) with neither owner nor group, which then changes nothing.
  const inode =
    valid === 0
      ? fs.getattr(request.ino)
      : fs.setattr(request.ino, attributeChanges(request, valid), request, handleOf(session, valid))
  putAttrOut(session.out, session.policy.valid, inode)
  session.ok(ATTR_OUT.size)
}

function handleOf({ fs, request }: Session, valid: number): Handle | undefined {
  return (valid & Fattr.FH) === 0 ? undefined : fs.handle(request.u64(SETATTR_IN.at.fh))
}

function attributeChanges(request: Request, valid: number): AttributeChanges {
  const { at } = SETATTR_IN
  const changes: AttributeChanges = {}
  if (valid & Fattr.MODE) changes.mode = request.u32(at.mode)
  if (valid & Fattr.UID) changes.uid = request.u32(at.uid)
  if (valid & Fattr.GID) changes.gid = request.u32(at.gid)
  if (valid & Fattr.SIZE) changes.size = request.offset(at.size)
  if (valid & Fattr.ATIME_NOW) changes.atime = 'now'
  else if (valid & Fattr.ATIME) changes.atime = time(request, at.atime, at.atimensec)
  if (valid & Fattr.MTIME_NOW) changes.mtime = 'now'
  else if (valid & Fattr.MTIME) changes.mtime = time(request, at.mtime, at.mtimensec)
  if (valid & Fattr.CTIME) changes.ctime = time(request, at.ctime, at.ctimensec)
  if (valid & Fattr.KILL_SUIDGID) changes.killPrivileges = true
  return changes
}

function time(request: Request, seconds: number, nanoseconds: number) {
  return { seconds: request.i64(seconds), nanoseconds: request.u32(nanoseconds) }
}

/** The name, a zero, then the value. */
export function setxattr(session: Session): void {
  const { fs, request } = session
  const { at } = SETXATTR_IN
  const name = request.name(AFTER_SETXATTR)
  const value = request.bytes(AFTER_SETXATTR + name.length + 1, request.u32(at.size))
  const killSgid = (request.u32(at.setxattr_flags) & SETXATTR_ACL_KILL_SGID) !== 0
  fs.setxattr(request.ino, name, value, request.u32(at.flags), killSgid)
  session.ok(0)
}

export function getxattr(session: Session): void {
  const { fs, request, payload } = session
  const value = fs.getxattr(request.ino, request.name(AFTER_GETXATTR))
  if (!fits(session, value.length)) return
  payload.set(value)
  session.ok(value.length)
}

/** Names, each with a zero. Those of 'trusted.' are shown to root only, as on other filesystems. */
export function listxattr(session: Session): void {
  const { fs, request, payload } = session
  let names = fs.listxattr(request.ino)
  if (request.uid !== 0) names = names.filter((name) => !TRUSTED.equals(name.subarray(0, 8)))
  const length = names.reduce((sum, name) => sum + name.length + 1, 0)
  if (!fits(session, length)) return
  let at = 0
  for (const name of names) {
    payload.set(name, at)
    at += name.length
    payload[at++] = 0
  }
  session.ok(length)
}

/** Size 0 asks how long the answer would be; that answers it and returns false. */
function fits(session: Session, length: number): boolean {
  const size = session.request.u32(GETXATTR_IN.at.size)
  if (size === 0) {
    session.out[0] = length
    session.out[1] = 0
    session.ok(GETXATTR_OUT.size)
    return false
  }
  if (length > size) throw new FsError(ERANGE)
  return true
}

export function removexattr(session: Session): void {
  const { fs, request } = session
  fs.removexattr(request.ino, request.name(IN_HEADER.size))
  session.ok(0)
}

export function statfs(session: Session): void {
  const { fs, out } = session
  const { at } = STATFS_OUT
  const answer = fs.statfs()
  out.fill(0, 0, STATFS_OUT.size >>> 2)
  putU64(out, at.blocks, answer.blocks)
  putU64(out, at.bfree, answer.free)
  putU64(out, at.bavail, answer.available)
  putU64(out, at.files, answer.files)
  putU64(out, at.ffree, answer.filesFree)
  out[at.bsize >>> 2] = answer.blockSize
  out[at.frsize >>> 2] = answer.blockSize
  out[at.namelen >>> 2] = answer.nameMax
  session.ok(STATFS_OUT.size)
}
