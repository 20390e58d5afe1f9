/**
 * Operating errors of the filesystem: a positive errno, thrown by src/fs, mapped by the transports.
 */
import { constants } from 'node:os'

const names = new Map(Object.entries(constants.errno).map(([name, number]) => [number, name]))

export const { E2BIG, EPERM, ENOENT, EINTR, EIO, ENXIO, EBADF, EAGAIN, ENOMEM, EACCES } =
  constants.errno
export const { EBUSY, EEXIST, EXDEV, ENODEV, ENOTDIR, EISDIR, EINVAL, EMFILE } = constants.errno
export const { EFBIG, ENOSPC, ESPIPE, EROFS, EMLINK, ERANGE, ENAMETOOLONG } = constants.errno
export const { ENOTEMPTY, ELOOP, ENODATA, ENOSYS, EOPNOTSUPP, ESTALE } = constants.errno

/** 'ENOENT' for 2. */
export function errnoName(errno: number): string {
  return names.get(errno) ?? `errno ${errno}`
}

export class FsError extends Error {
  readonly errno: number

  constructor(errno: number, sentence?: string) {
    super(sentence ?? errnoName(errno))
    this.name = 'FsError'
    this.errno = errno
  }
}

/** ENOSPC, and nothing else. */
export function isNoSpace(error: unknown): boolean {
  return error instanceof FsError && error.errno === ENOSPC
}

/** The filesystem is frozen: the transport keeps the request and asks again after thawed(). */
export class FrozenError extends Error {
  constructor() {
    super('the filesystem is frozen')
    this.name = 'FrozenError'
  }
}
