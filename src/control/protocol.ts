/**
 * What is spoken on the control socket: JSON, one object a line, both ways.
 *
 *     → {"id": 1, "method": "getmap", "params": {"inode": 7}}
 *     ← {"id": 1, "result": {…}}   or   {"id": 1, "error": {"message": "…", "errno": 2}}
 *     ← {"event": "failure", …}    after a `watch`, between replies
 *
 * Replies may come in another order than their requests. A request that could not be read at all is
 * answered with id null.
 */
import type {
  FileMap,
  FilesystemEvent,
  InjectRequest,
  InjectResult,
  RmapRow,
  ScrubRequest,
  ScrubStatus,
  Status,
} from '../fs/administration.ts'

/** Longest line the daemon reads, bytes: requests are short. */
export const MAX_LINE = 64 * 1024

/** Longest reply, bytes: thousands of rmap rows with long paths, a million extents of a file. */
export const MAX_REPLY = 64 * 1024 * 1024

/** Most rmap rows in one reply; a caller goes on where the last row ended. */
export const MAX_RMAP_ROWS = 4096

export interface Methods {
  status: { params: Record<string, never>; result: Status }
  getmap: { params: { inode: number }; result: FileMap }
  rmap: { params: { offset: number; length: number; limit: number }; result: RmapRow[] }
  /** `milliseconds`: from the injection until the last handle is dead and the last mapping revoked. */
  inject: { params: InjectRequest; result: InjectResult & { milliseconds: number } }
  clearPoison: {
    params: { range: { offset: number; length: number } | 'all' }
    result: { cleared: number }
  }
  freeze: { params: Record<string, never>; result: Record<string, never> }
  thaw: { params: Record<string, never>; result: Record<string, never> }
  shutdown: { params: { reason: string }; result: Record<string, never> }
  checkpoint: {
    params: Record<string, never>
    result: { sequence: number; bytes: number; milliseconds: number }
  }
  scrub: { params: ScrubParams; result: ScrubStatus }
  watch: { params: Record<string, never>; result: Record<string, never> }
}

export type ScrubParams = { action: 'start' | 'stop' | 'status' } & ScrubRequest

export type MethodName = keyof Methods
export type Params<M extends MethodName> = Methods[M]['params']
export type Result<M extends MethodName> = Methods[M]['result']

export interface Reply {
  id: number | null
  result?: unknown
  error?: { message: string; errno: number }
}

export type ServerLine = Reply | FilesystemEvent

export function isEvent(line: ServerLine): line is FilesystemEvent {
  return 'event' in line
}

/** An answer that says no: the daemon's sentence and a positive errno. */
export class ControlError extends Error {
  readonly errno: number

  constructor(errno: number, sentence: string, options?: ErrorOptions) {
    super(sentence, options)
    this.name = 'ControlError'
    this.errno = errno
  }
}
