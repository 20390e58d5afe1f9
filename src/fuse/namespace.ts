/** Operations on names: LOOKUP, the makers, UNLINK, RENAME, LINK, READLINK, FORGET. */

import {
  BATCH_FORGET_IN,
  FORGET_IN,
  FORGET_ONE,
  IN_HEADER,
  LINK_IN,
  MKDIR_IN,
  MKNOD_IN,
  RENAME_IN,
  RENAME2_IN,
} from './request-structs.ts'
import type { Session } from './session.ts'

/** Where the arguments of a request begin that has no struct of its own. */
const ARGUMENTS = IN_HEADER.size

/** Where the name begins that follows a struct. */
const after = (struct: { size: number }) => ARGUMENTS + struct.size
const AFTER_MKNOD = after(MKNOD_IN)
const AFTER_MKDIR = after(MKDIR_IN)
const AFTER_RENAME = after(RENAME_IN)
const AFTER_RENAME2 = after(RENAME2_IN)
const AFTER_LINK = after(LINK_IN)

export function lookup(session: Session): void {
  const { fs, request } = session
  session.entry(fs.lookup(request.ino, request.name(ARGUMENTS)))
}

/** No answer is wanted. */
export function forget(session: Session): void {
  const { request } = session
  session.answered = true
  forgetNode(session, request.low, request.high, request.u64(FORGET_IN.at.nlookup))
}

export function batchForget(session: Session): void {
  const { request } = session
  session.answered = true
  const count = request.u32(BATCH_FORGET_IN.at.count)
  for (let i = 0, at = after(BATCH_FORGET_IN); i < count; i++, at += FORGET_ONE.size) {
    if (at + FORGET_ONE.size > request.length) break
    forgetNode(session, request.u32(at), request.u32(at + 4), request.u64(at + 8))
  }
}

function forgetNode(session: Session, low: number, high: number, lookups: number): void {
  const ino = session.nodes.forget(low, high, lookups)
  if (ino !== 0) session.fs.forget(ino, lookups)
}

export function mknod(session: Session): void {
  const { fs, request } = session
  request.umask = request.u32(MKNOD_IN.at.umask)
  const mode = request.u32(MKNOD_IN.at.mode)
  const rdev = request.u32(MKNOD_IN.at.rdev)
  session.entry(fs.mknod(request.ino, request.name(AFTER_MKNOD), mode, rdev, request))
}

export function mkdir(session: Session): void {
  const { fs, request } = session
  request.umask = request.u32(MKDIR_IN.at.umask)
  const mode = request.u32(MKDIR_IN.at.mode)
  session.entry(fs.mkdir(request.ino, request.name(AFTER_MKDIR), mode, request))
}

/** Two strings: the name, then the target. */
export function symlink(session: Session): void {
  const { fs, request } = session
  const name = request.name(ARGUMENTS)
  const target = request.name(ARGUMENTS + name.length + 1)
  session.entry(fs.symlink(request.ino, name, target, request))
}

export function link(session: Session): void {
  const { fs, request } = session
  const ino = session.inoAt(LINK_IN.at.oldnodeid)
  session.entry(fs.link(ino, request.ino, request.name(AFTER_LINK)))
}

export function unlink(session: Session): void {
  const { fs, request } = session
  fs.unlink(request.ino, request.name(ARGUMENTS))
  session.ok(0)
}

export function rmdir(session: Session): void {
  const { fs, request } = session
  fs.rmdir(request.ino, request.name(ARGUMENTS))
  session.ok(0)
}

export function rename(session: Session): void {
  renameFrom(session, AFTER_RENAME, session.inoAt(RENAME_IN.at.newdir), 0)
}

export function rename2(session: Session): void {
  const flags = session.request.u32(RENAME2_IN.at.flags)
  renameFrom(session, AFTER_RENAME2, session.inoAt(RENAME2_IN.at.newdir), flags)
}

function renameFrom(session: Session, at: number, newParent: number, flags: number): void {
  const { fs, request } = session
  const name = request.name(at)
  const newName = request.name(at + name.length + 1)
  fs.rename(request.ino, name, newParent, newName, flags)
  session.ok(0)
  forgetMoved(session, newParent, newName)
  if (flags !== 0) forgetMoved(session, request.ino, name)
}

/**
 * A rename that was under way when its file was killed takes the kernel's entry along, and with it
 * the retired node, to a name that the revocation does not know.
 */
function forgetMoved(session: Session, parent: number, name: Uint8Array): void {
  if (session.nodes.retired > 0) session.nameMoved(parent, Uint8Array.from(name))
}

export function readlink(session: Session): void {
  const { fs, request, payload } = session
  const target = fs.readlink(request.ino)
  payload.set(target)
  session.ok(target.length)
}
