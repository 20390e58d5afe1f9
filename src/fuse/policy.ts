/** What the kernel may cache, and for how long. */
import { FOREVER } from './attributes.ts'
import {
  FOPEN_CACHE_DIR,
  FOPEN_DIRECT_IO,
  FOPEN_KEEP_CACHE,
  FOPEN_NOFLUSH,
  Init,
  Init2,
} from './protocol.ts'

/**
 * keep: names, attributes and pages, until we say otherwise. Safe, for the holder is exclusive.
 * auto: names and attributes; a file's pages are dropped when it is opened.
 * none: nothing; every read(2) and write(2) comes to us.
 */
export type CacheMode = 'keep' | 'auto' | 'none'

export interface CachePolicy {
  readonly mode: CacheMode
  readonly writeback: boolean
  /** Seconds for names and attributes. */
  readonly valid: number
  /** FOPEN flags. */
  readonly file: number
  readonly directory: number
  /** Flags added to INIT. */
  readonly init: number
  readonly init2: number
}

export function cachePolicy(mode: CacheMode, writeback: boolean): CachePolicy {
  if (mode === 'none') {
    return {
      mode,
      writeback: false,
      valid: 0,
      file: FOPEN_DIRECT_IO,
      directory: 0,
      init: 0,
      init2: Init2.DIRECT_IO_ALLOW_MMAP,
    }
  }
  // A close need not flush what write(2) has already sent; dirty pages of mappings are sent at
  // munmap.
  const keep = mode === 'keep' ? FOPEN_KEEP_CACHE : 0
  return {
    mode,
    writeback,
    valid: FOREVER,
    file: keep | (writeback ? 0 : FOPEN_NOFLUSH),
    directory: FOPEN_KEEP_CACHE | FOPEN_CACHE_DIR,
    init: Init.CACHE_SYMLINKS | Init.EXPLICIT_INVAL_DATA | (writeback ? Init.WRITEBACK_CACHE : 0),
    init2: 0,
  }
}
