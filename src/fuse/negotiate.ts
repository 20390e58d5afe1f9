/** INIT: what the kernel offers, what we take. */
import { constants } from 'node:os'
import { FsError } from '../fs/errors.ts'
import type { CachePolicy } from './policy.ts'
import { Init, MAJOR, MAX_PAGES, MAX_WRITE, MINOR, OLDEST_MINOR } from './protocol.ts'
import { INIT_OUT } from './reply-structs.ts'
import { INIT_IN } from './request-structs.ts'
import type { Session } from './session.ts'

const { EPROTO } = constants.errno

/**
 * No advisory locks (they stay in the kernel), no export support (a forgotten nodeid cannot be
 * found again), no splice (replies come straight from the mapping).
 */
const WANTED =
  Init.ASYNC_READ |
  Init.ATOMIC_O_TRUNC |
  Init.BIG_WRITES |
  Init.DONT_MASK |
  Init.DO_READDIRPLUS |
  Init.READDIRPLUS_AUTO |
  Init.PARALLEL_DIROPS |
  Init.POSIX_ACL |
  Init.MAX_PAGES |
  Init.HANDLE_KILLPRIV_V2 |
  Init.SETXATTR_EXT |
  Init.INIT_EXT

/** Requests the kernel may have under way that no process waits for (readahead, writeback). */
const MAX_BACKGROUND = 64
const CONGESTION = 48

export interface Negotiated {
  /** The lower of the kernel's minor and ours. */
  readonly minor: number
  readonly kernelMinor: number
  readonly flags: number
  readonly flags2: number
}

/** Answers INIT. Undefined when the kernel is to try again with our major version. */
export function negotiate(session: Session): Negotiated | undefined {
  const { request, policy } = session
  const { at } = INIT_IN
  const major = request.u32(at.major)
  const kernelMinor = request.u32(at.minor)
  if (major < MAJOR || (major === MAJOR && kernelMinor < OLDEST_MINOR)) {
    throw new FsError(
      EPROTO,
      `this kernel speaks FUSE ${major}.${kernelMinor}; holdfast needs ${MAJOR}.${OLDEST_MINOR}`,
    )
  }
  const minor = Math.min(kernelMinor, MINOR)
  const agreed: Negotiated = {
    minor,
    kernelMinor,
    flags: (WANTED | policy.init) & request.u32(at.flags),
    flags2: policy.init2 & request.u32(at.flags2),
  }
  putInitOut(session, agreed, request.u32(at.max_readahead))
  session.ok(INIT_OUT.size)
  return major > MAJOR ? undefined : agreed
}

function putInitOut(session: Session, agreed: Negotiated, readahead: number): void {
  const { out } = session
  const { at } = INIT_OUT
  out.fill(0, 0, INIT_OUT.size >>> 2)
  out[at.major >>> 2] = MAJOR
  out[at.minor >>> 2] = agreed.minor
  out[at.max_readahead >>> 2] = readahead
  out[at.flags >>> 2] = agreed.flags
  // Two u16 each: max_background and congestion_threshold; max_pages and map_alignment.
  out[at.max_background >>> 2] = MAX_BACKGROUND | (CONGESTION << 16)
  out[at.max_write >>> 2] = MAX_WRITE
  out[at.time_gran >>> 2] = 1
  out[at.max_pages >>> 2] = MAX_PAGES
  out[at.flags2 >>> 2] = agreed.flags2
}

/** For the log: what was agreed. */
export function describeNegotiated(agreed: Negotiated, policy: CachePolicy): string {
  const flags = Object.entries(Init)
    .filter(([, bit]) => (agreed.flags & bit) !== 0)
    .map(([name]) => name.toLowerCase())
  const versions = `FUSE 7.${agreed.minor} (kernel 7.${agreed.kernelMinor})`
  return `${versions}, cache=${policy.mode}: ${flags.join(' ')}`
}
