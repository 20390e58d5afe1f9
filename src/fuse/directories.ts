/** Listing: OPENDIR, READDIR, READDIRPLUS, RELEASEDIR. */
import { EINVAL, ENOSYS, FsError } from '../fs/errors.ts'
import type { Handle } from '../fs/handles.ts'
import type { DirectoryEntry } from '../fs/operations.ts'
import { putU64 } from './attributes.ts'
import { DIRENT, ENTRY_OUT, OPEN_OUT } from './reply-structs.ts'
import { READ_IN } from './request-structs.ts'
import type { Session } from './session.ts'

const DOT = 0x2e

/**
 * Where the kernel may cache listings it need not tell us that it opens directories at all: cookies
 * outlive handles. ENOSYS says so, once; directories are then fh 0 in READDIR.
 */
export function opendir(session: Session): void {
  const { fs, request, policy, out } = session
  if (policy.directory !== 0) throw new FsError(ENOSYS)
  putU64(out, OPEN_OUT.at.fh, fs.opendir(request.ino).id)
  out[OPEN_OUT.at.open_flags >>> 2] = 0
  out[OPEN_OUT.at.padding >>> 2] = 0
  session.ok(OPEN_OUT.size)
}

export function readdir(session: Session): void {
  list(session, fillPlain)
}

export function readdirplus(session: Session): void {
  list(session, fillPlus)
}

type Fill = (session: Session, handle: Handle, cookie: number, size: number) => number

function list(session: Session, fill: Fill): void {
  const { fs, request, payload } = session
  const fh = request.u64(READ_IN.at.fh)
  const cookie = request.u64(READ_IN.at.offset)
  const size = Math.min(request.u32(READ_IN.at.size), payload.length)
  const handle = fh === 0 ? fs.opendir(request.ino) : fs.handle(fh)
  try {
    session.ok(fill(session, handle, cookie, size))
  } finally {
    if (fh === 0) fs.release(handle)
  }
}

const align8 = (length: number) => (length + 7) & ~7

/** Writes a fuse_dirent and returns where the next one goes, or `at` when it does not fit. */
function putDirent(session: Session, at: number, size: number, entry: DirectoryEntry): number {
  const { out, payload } = session
  const { name } = entry
  const end = at + DIRENT.size + align8(name.length)
  if (end > size) return at
  putU64(out, at + DIRENT.at.ino, entry.ino)
  putU64(out, at + DIRENT.at.off, entry.cookie)
  out[(at + DIRENT.at.namelen) >>> 2] = name.length
  out[(at + DIRENT.at.type) >>> 2] = entry.kind
  payload.set(name, at + DIRENT.size)
  payload.fill(0, at + DIRENT.size + name.length, end)
  return end
}

function fillPlain(session: Session, handle: Handle, cookie: number, size: number): number {
  let at = 0
  session.fs.readdir(handle, cookie, (entry) => {
    const next = putDirent(session, at, size, entry)
    if (next === at) return false
    at = next
    return true
  })
  if (at === 0 && size < DIRENT.size) throw new FsError(EINVAL)
  return at
}

/** First the names, then, when the filesystem is done listing, the attributes in front of them. */
function fillPlus(session: Session, handle: Handle, cookie: number, size: number): number {
  let at = 0
  session.fs.readdir(handle, cookie, (entry) => {
    const next = putDirent(session, at + ENTRY_OUT.size, size, entry)
    if (next === at + ENTRY_OUT.size) return false
    at = next
    return true
  })
  for (let entry = 0; entry < at; ) entry = putAttributes(session, handle.ino, entry)
  return at
}

function putAttributes(session: Session, parent: number, at: number): number {
  const { fs, out, payload } = session
  const start = at + ENTRY_OUT.size + DIRENT.size
  const length = out[(at + ENTRY_OUT.size + DIRENT.at.namelen) >>> 2]!
  const name = payload.subarray(start, start + length)
  // A lookup counted for '.' or '..' would never be given back; no nodeid means: just the name.
  if (isDots(name)) out.fill(0, at >>> 2, (at + ENTRY_OUT.size) >>> 2)
  else session.putEntry(at, fs.lookup(parent, name))
  return start + align8(length)
}

function isDots(name: Uint8Array): boolean {
  return name[0] === DOT && (name.length === 1 || (name.length === 2 && name[1] === DOT))
}
