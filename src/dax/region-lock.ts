/**
 * The kernel locks of a region. They belong to open files, so a crash frees them. A lock on a node
 * is a lock on its inode: a second node of the same device is free, hence the file beside it.
 */
import {
  closeSync,
  constants,
  existsSync,
  fchmodSync,
  fchownSync,
  fstatSync,
  openSync,
  type Stats,
} from 'node:fs'
import { join } from 'node:path'
import { native } from '../native/binding.ts'
import { keyOf, type Region } from './region.ts'
import {
  isRoot,
  runtimeDirectory,
  SYSTEM_DIRECTORY,
  trustedDirectories,
} from './runtime-directory.ts'

const { O_CREAT, O_NOFOLLOW, O_NONBLOCK, O_RDONLY, O_RDWR } = constants

/** From this offset to the end, however large the region is or becomes. */
const TO_THE_END = 0

/** Locks that were taken; close them to let go. */
export class RegionLock {
  readonly #fds: number[] = []

  /** Undefined when another holder was faster. Never waits. */
  static tryTake(region: Region): RegionLock | undefined {
    const lock = new RegionLock()
    try {
      const node = lock.#keepNode(region)
      // A read-only descriptor cannot take an exclusive lock; a shared one still keeps writers out,
      // and the file beside it the other readers.
      let taken = native.lockRange(node.fd, 0, TO_THE_END, node.writable)
      if (taken && (region.kind === 'device-dax' || !node.writable)) {
        const file = openLockFile(region.key, fstatSync(region.fd))
        lock.#fds.push(file.fd)
        taken = native.lockRange(file.fd, 0, TO_THE_END, file.writable)
      }
      if (taken) return lock
    } catch (error) {
      lock.release()
      throw error
    }
    lock.release()
    return undefined
  }

  release(): void {
    for (const fd of this.#fds.splice(0)) closeSync(fd)
  }

  /**
   * An open file of our own, so that the claim can outlive the device object that took it. Through
   * /proc, for the path may lead elsewhere by now.
   */
  #keepNode(region: Region): OpenLock {
    const path = `/proc/self/fd/${region.fd}`
    const node = openWritable(path, O_RDWR) ?? { fd: openSync(path, O_RDONLY), writable: false }
    this.#fds.push(node.fd)
    return node
  }
}

interface OpenLock {
  readonly fd: number
  readonly writable: boolean
}

/**
 * Whether somebody has the region locked; undefined when we may not look. A shared lock is tried
 * for an instant, so a claim must not take one refusal for an answer.
 */
export function probeLock(path: string, key: string): boolean | undefined {
  const node = probeFile(path, key)
  if (node !== false) return node
  return trustedDirectories().some((directory) => probeFile(lockFileIn(directory, key)) === true)
}

function probeFile(path: string, key?: string): boolean | undefined {
  let fd: number
  try {
    fd = openSync(path, O_RDONLY | O_NONBLOCK)
  } catch {
    return undefined
  }
  try {
    if (key !== undefined && keyOf(fstatSync(fd, { bigint: true })) !== key) return undefined
    return !native.lockRange(fd, 0, TO_THE_END, false)
  } catch {
    return undefined
  } finally {
    closeSync(fd)
  }
}

function lockFileIn(directory: string, key: string): string {
  return join(directory, `${key}.lock`)
}

/** Lock files stay: to unlink one is to race with the next who opens it. */
function openLockFile(key: string, node: Stats): OpenLock {
  if (isRoot()) {
    const fd = openSync(lockFileIn(runtimeDirectory(), key), O_RDWR | O_NOFOLLOW | O_CREAT, 0o600)
    // Whoever may open the device may join in; whoever may not must not be able to block it.
    fchownSync(fd, 0, node.gid)
    fchmodSync(fd, 0o600 | (node.mode & 0o066))
    return { fd, writable: true }
  }
  const shared = lockFileIn(SYSTEM_DIRECTORY, key)
  if (existsSync(shared)) {
    const file = openWritable(shared, O_RDWR | O_NOFOLLOW)
    if (file !== undefined) return file
  }
  // The lock on the node itself still excludes root; this one excludes a second node of our own.
  const own = lockFileIn(runtimeDirectory(), key)
  return { fd: openSync(own, O_RDWR | O_NOFOLLOW | O_CREAT, 0o600), writable: true }
}

/** Undefined when we may not write there. */
function openWritable(path: string, flags: number): OpenLock | undefined {
  try {
    return { fd: openSync(path, flags), writable: true }
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code ?? ''
    if (['EACCES', 'EPERM', 'EROFS', 'ETXTBSY'].includes(code)) return undefined
    throw error
  }
}
