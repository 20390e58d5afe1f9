/**
 * Where holder records, lock files and control sockets lie: nobody else may be able to plant one.
 */
import { chmodSync, existsSync, lstatSync, mkdirSync } from 'node:fs'
import { constants } from 'node:os'
import { join } from 'node:path'
import { DaxError } from './errors.ts'

const { ENOTDIR, EPERM } = constants.errno

/** Root's directory; everybody may read it, only root writes it. */
export const SYSTEM_DIRECTORY = '/run/holdfast'

/** Our own directory, made when it is not there yet. */
export function runtimeDirectory(): string {
  const path = ownDirectory()
  const mode = isRoot() ? 0o755 : 0o700
  try {
    mkdirSync(path, { mode })
    // The umask may have taken bits that others need.
    chmodSync(path, mode)
  } catch (error) {
    const cause = error as NodeJS.ErrnoException
    if (cause.code !== 'EEXIST') {
      const errno = Math.abs(cause.errno ?? EPERM)
      throw new DaxError(errno, `cannot make the runtime directory ${path}: ${cause.message}`, {
        cause,
      })
    }
  }
  verify(path, mode)
  return path
}

/** Directories whose contents can be believed: root's, and those that may be our own. */
export function trustedDirectories(): string[] {
  const paths = new Set([SYSTEM_DIRECTORY])
  if (!isRoot()) {
    // A login shell and a cron job of one user differ in XDG_RUNTIME_DIR: look in both.
    const session = sessionDirectory()
    if (session !== undefined) paths.add(session)
    paths.add(temporaryDirectory())
  }
  return [...paths].filter((path) => {
    const owner = path === SYSTEM_DIRECTORY ? 0 : userId()
    const stats = lstatSync(path, { throwIfNoEntry: false })
    return stats?.isDirectory() === true && stats.uid === owner && (stats.mode & 0o022) === 0
  })
}

/** Where the daemon that holds region `key` listens, if we are that daemon's user. */
export function socketPath(key: string): string {
  return join(runtimeDirectory(), `${key}.sock`)
}

/** The control socket of region `key`, in whichever trusted directory it is. */
export function findSocket(key: string): string | undefined {
  return trustedDirectories()
    .map((directory) => join(directory, `${key}.sock`))
    .find((path) => existsSync(path))
}

export function isRoot(): boolean {
  return userId() === 0
}

function userId(): number {
  return process.geteuid?.() ?? -1
}

function ownDirectory(): string {
  if (isRoot()) return SYSTEM_DIRECTORY
  return sessionDirectory() ?? temporaryDirectory()
}

function sessionDirectory(): string | undefined {
  const session = process.env.XDG_RUNTIME_DIR
  if (session === undefined || !session.startsWith('/')) return undefined
  // After su the variable may still name the directory of the user before.
  const stats = lstatSync(session, { throwIfNoEntry: false })
  return stats?.isDirectory() && stats.uid === userId() ? join(session, 'holdfast') : undefined
}

function temporaryDirectory(): string {
  return `/tmp/holdfast-${userId()}`
}

/** In /tmp anybody could have made the name first: as a link, or to read along. */
function verify(path: string, mode: number): void {
  const stats = lstatSync(path)
  if (!stats.isDirectory()) throw new DaxError(ENOTDIR, `${path} is not a directory: remove it`)
  if (stats.uid !== userId()) {
    throw new DaxError(EPERM, `${path} belongs to user ${stats.uid}, not to us: have it removed`)
  }
  if ((stats.mode & 0o777) !== mode) chmodSync(path, mode)
}
