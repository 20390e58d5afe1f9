/**
 * Operations on open files: OPEN, CREATE, READ, WRITE, RELEASE, FSYNC, FALLOCATE, copies.
 */
import { constants } from 'node:fs'
import { EFBIG, EINVAL, EIO, FsError } from '../fs/errors.ts'
import type { Handle } from '../fs/handles.ts'
import { S_ISUID_ISGID } from '../fs/modes.ts'
import type { Pieces, WriteOptions } from '../fs/operations.ts'
import { GUARD_OK, type MapId } from '../native/binding.ts'
import { putU64 } from './attributes.ts'
import {
  FSYNC_FDATASYNC,
  MAX_PAGES,
  OPEN_KILL_SUIDGID,
  WRITE_CACHE,
  WRITE_KILL_SUIDGID,
} from './protocol.ts'
import { COPY_FILE_RANGE_OUT, ENTRY_OUT, OPEN_OUT, WRITE_OUT } from './reply-structs.ts'
import {
  COPY_FILE_RANGE_IN,
  CREATE_IN,
  FALLOCATE_IN,
  FSYNC_IN,
  IN_HEADER,
  OPEN_IN,
  READ_IN,
  RELEASE_IN,
  WRITE_IN,
} from './request-structs.ts'
import type { Session } from './session.ts'

const { O_DIRECT, O_SYNC, O_TRUNC } = constants
const AFTER_CREATE = IN_HEADER.size + CREATE_IN.size
const DATA = IN_HEADER.size + WRITE_IN.size
const COPY_LIMIT_32 = 0x7ffff000

function putOpenOut(session: Session, at: number, handle: Handle): void {
  const { out, policy } = session
  putU64(out, at + OPEN_OUT.at.fh, handle.id)
  out[(at + OPEN_OUT.at.open_flags) >>> 2] = policy.file
  out[(at + OPEN_OUT.at.padding) >>> 2] = 0
}

export function open(session: Session): void {
  const { fs, request } = session
  const kill = (request.u32(OPEN_IN.at.open_flags) & OPEN_KILL_SUIDGID) !== 0
  const mode = kill ? fs.getattr(request.ino).mode : 0
  const flags = request.u32(OPEN_IN.at.flags)
  const handle = fs.open(request.ino, flags, kill)
  if ((flags & O_TRUNC) !== 0 && session.durable === 'everything') session.awaits = 'everything'
  putOpenOut(session, 0, handle)
  if (kill && lostPrivileges(session, request.ino, mode))
    answerAfterModeChange(session, OPEN_OUT.size)
  else session.ok(OPEN_OUT.size)
}

function lostPrivileges(session: Session, ino: number, before: number): boolean {
  return (before & S_ISUID_ISGID) !== 0 && session.fs.getattr(ino).mode !== before
}

/**
 * The kernel leaves dropping suid and sgid to us (HANDLE_KILLPRIV_V2), but goes on believing the
 * old mode: whoever could write the file could run it with the owner's rights. So it is told before
 * its answer.
 */
function answerAfterModeChange(session: Session, length: number): void {
  session.park(session.attributesChanged(session.request.ino), session.payload.slice(0, length))
}

export function create(session: Session): void {
  const { fs, request } = session
  request.umask = request.u32(CREATE_IN.at.umask)
  const mode = request.u32(CREATE_IN.at.mode)
  const flags = request.u32(CREATE_IN.at.flags)
  answerCreated(session, fs.create(request.ino, request.name(AFTER_CREATE), mode, flags, request))
}

/** The name that follows the struct means nothing. */
export function tmpfile(session: Session): void {
  const { fs, request } = session
  request.umask = request.u32(CREATE_IN.at.umask)
  const mode = request.u32(CREATE_IN.at.mode)
  answerCreated(session, fs.tmpfile(request.ino, mode, request.u32(CREATE_IN.at.flags), request))
}

function answerCreated(session: Session, handle: Handle): void {
  session.putEntry(0, session.fs.getattr(handle.ino))
  putOpenOut(session, ENTRY_OUT.size, handle)
  session.ok(ENTRY_OUT.size + OPEN_OUT.size)
}

export function release(session: Session): void {
  const { fs, request } = session
  fs.release(fs.handle(request.u64(RELEASE_IN.at.fh)))
  session.ok(0)
}

/** Pieces of one READ: at worst every block lies elsewhere, and both ends are cut. */
const pieces: Pieces = { list: new Float64Array(2 * (MAX_PAGES + 2)), count: 0 }

export function read(session: Session): void {
  const { fs, request } = session
  const handle = fs.handle(request.u64(READ_IN.at.fh))
  const offset = request.u64(READ_IN.at.offset)
  const length = request.u32(READ_IN.at.size)
  // Beyond what a number can say, there is no file.
  if (!Number.isSafeInteger(offset + length)) session.ok(0)
  else if (session.mapId === undefined) readCopied(session, handle, offset, length)
  else readMapped(session, session.mapId, handle, offset, length)
}

function readCopied(session: Session, handle: Handle, offset: number, length: number): void {
  const got = session.fs.readInto(handle, offset, session.payload, 0, length)
  checkShort(session, offset, length, got)
  session.ok(got)
}

function readMapped(
  session: Session,
  map: MapId,
  handle: Handle,
  offset: number,
  length: number,
): void {
  const { fs, request, channel } = session
  const got = fs.read(handle, offset, length, pieces)
  checkShort(session, offset, length, got)
  const failed = channel.replyPieces(request.unique, map, pieces.list, pieces.count)
  if (failed === GUARD_OK) {
    session.answered = true
    session.result = got
    return
  }
  fs.memoryFailed(failed)
  throw new FsError(EIO)
}

/**
 * A read that ends before poison is short, but a short answer means end of file to the page cache,
 * which would cut the file there. So it fails as a whole; the kernel then asks page by page and
 * gets the healthy ones. O_DIRECT has no page cache and may see the healthy part.
 */
function checkShort(session: Session, offset: number, length: number, got: number): void {
  if (got === length || (session.request.u32(READ_IN.at.flags) & O_DIRECT) !== 0) return
  if (offset + got < session.fs.getattr(session.request.ino).size) throw new FsError(EIO)
}

/**
 * `append` is never set: the kernel holds the inode's lock and knows the end of the file, and what
 * it puts into its page cache lies where it said. (An offset of ours would also break pwritev2's
 * RWF_NOAPPEND.)
 */
const writeOptions: readonly WriteOptions[] = [0, 1, 2, 3].map((bits) => ({
  cached: (bits & 1) !== 0,
  killPrivileges: (bits & 2) !== 0,
  append: false,
}))

export function write(session: Session): void {
  const { fs, request, out } = session
  const handle = fs.handle(request.u64(WRITE_IN.at.fh))
  const offset = request.offset(WRITE_IN.at.offset)
  const length = request.u32(WRITE_IN.at.size)
  if (DATA + length > request.length) throw new FsError(EINVAL)
  const flags = request.u32(WRITE_IN.at.write_flags)
  const kill = (flags & WRITE_KILL_SUIDGID) !== 0
  const mode = kill ? fs.getattr(request.ino).mode : 0
  const options = writeOptions[(flags & WRITE_CACHE) | (kill ? 2 : 0)]!
  out[0] = fs.write(handle, offset, request.data, DATA, length, options)
  out[1] = 0
  const durability = request.u32(WRITE_IN.at.flags) & O_SYNC
  // Not every kernel sends an FSYNC of its own, none does without its page cache.
  if (durability !== 0) session.awaits = durability === O_SYNC ? 'everything' : 'data'
  if (kill && lostPrivileges(session, request.ino, mode))
    answerAfterModeChange(session, WRITE_OUT.size)
  else session.ok(WRITE_OUT.size)
}

export function fsync(session: Session): void {
  const { fs, request } = session
  const dataOnly = (request.u32(FSYNC_IN.at.fsync_flags) & FSYNC_FDATASYNC) !== 0
  session.park(fs.fsync(request.ino, dataOnly))
}

export function fallocate(session: Session): void {
  const { fs, request } = session
  const handle = fs.handle(request.u64(FALLOCATE_IN.at.fh))
  const offset = request.offset(FALLOCATE_IN.at.offset)
  const length = request.offset(FALLOCATE_IN.at.length)
  if (!Number.isSafeInteger(offset + length)) throw new FsError(EFBIG)
  fs.fallocate(handle, request.u32(FALLOCATE_IN.at.mode), offset, length)
  if (dropPrivileges(session, request.ino)) answerAfterModeChange(session, 0)
  else session.ok(0)
}

/**
 * The kernel has no flag for it here; it means callers without CAP_FSETID, as a rule all but root.
 */
function dropPrivileges(session: Session, ino: number): boolean {
  const { fs, request } = session
  if (request.uid === 0) return false
  const { mode } = fs.getattr(ino)
  if ((mode & S_ISUID_ISGID) === 0) return false
  fs.setattr(ino, { killPrivileges: true }, request)
  return lostPrivileges(session, ino, mode)
}

export function copyFileRange(session: Session): void {
  session.out[0] = copy(session, COPY_LIMIT_32)
  session.out[1] = 0
  session.ok(WRITE_OUT.size)
}

export function copyFileRange64(session: Session): void {
  putU64(session.out, 0, copy(session, Number.MAX_SAFE_INTEGER))
  session.ok(COPY_FILE_RANGE_OUT.size)
}

function copy(session: Session, limit: number): number {
  const { fs, request } = session
  const { at } = COPY_FILE_RANGE_IN
  const target = session.inoAt(at.nodeid_out)
  const from = fs.handle(request.u64(at.fh_in))
  const to = fs.handle(request.u64(at.fh_out))
  const length = Math.min(request.u64(at.len), limit)
  const copied = fs.copyFileRange(
    from,
    request.offset(at.off_in),
    to,
    request.offset(at.off_out),
    length,
  )
  if (dropPrivileges(session, target)) void session.attributesChanged(target)
  return copied
}
