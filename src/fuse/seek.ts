/**
 * LSEEK: where data and holes are. The kernel does not send us what a mapping stored before it
 * asks, so a hole of ours may be data of its page cache. Before we call anything a hole, the kernel
 * drops its pages of it, and dirty ones come to us first.
 */
import { ENOSYS, ENXIO, FsError } from '../fs/errors.ts'
import { SEEK_DATA } from '../fs/file-read.ts'
import type { Handle } from '../fs/handles.ts'
import { putU64 } from './attributes.ts'
import { LSEEK_OUT } from './reply-structs.ts'
import { LSEEK_IN } from './request-structs.ts'
import type { Session } from './session.ts'

interface Hole {
  start: number
  end: number
}

/**
 * With write-back the kernel's sizes may be ahead of ours: then it must see no holes at all.
 */
export function lseek(session: Session): void {
  const { fs, request, policy } = session
  if (policy.writeback) throw new FsError(ENOSYS)
  const handle = fs.handle(request.u64(LSEEK_IN.at.fh))
  const offset = request.u64(LSEEK_IN.at.offset)
  const whence = request.u32(LSEEK_IN.at.whence)
  const hole = holeFor(session, handle, offset, whence)
  if (hole === undefined) {
    putU64(session.out, 0, fs.seek(handle, offset, whence))
    session.ok(LSEEK_OUT.size)
    return
  }
  const answer = new Uint32Array(LSEEK_OUT.size / 4)
  const found = seekWrittenBack(session, handle, request.ino, offset, whence, hole)
  session.park(
    found.then((at) => putU64(answer, 0, at)),
    new Uint8Array(answer.buffer),
  )
}

/** The hole that the answer would rest on; undefined when it rests on none. */
function holeFor(session: Session, handle: Handle, at: number, whence: number): Hole | undefined {
  const { size } = session.fs.getattr(handle.ino)
  if (at >= size) return undefined
  const start = whence === SEEK_DATA ? at : session.fs.seek(handle, at, whence)
  const end = start < size ? nextData(session, handle, start, size) : start
  return start < end ? { start, end } : undefined
}

function nextData({ fs }: Session, handle: Handle, from: number, size: number): number {
  try {
    return fs.seek(handle, from, SEEK_DATA)
  } catch (error) {
    if (error instanceof FsError && error.errno === ENXIO) return size
    throw error
  }
}

/** Until the hole is one that was asked about: data that came may have moved the answer on. */
async function seekWrittenBack(
  session: Session,
  handle: Handle,
  ino: number,
  offset: number,
  whence: number,
  hole: Hole,
): Promise<number> {
  let next: Hole | undefined = hole
  let done = offset
  while (next !== undefined && next.end > done) {
    done = next.end
    await session.dropPages(ino, next.start, next.end - next.start)
    next = holeFor(session, handle, offset, whence)
  }
  return session.fs.seek(handle, offset, whence)
}
