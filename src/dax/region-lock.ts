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
import type { ByteRange } from './bad-ranges.ts'
import { instanceLock, parseName, targetsOf } from './name.ts'
import { keyOf, type Region, wholeKey } from './region.ts'
import {
  isRoot,
  runtimeDirectory,
  SYSTEM_DIRECTORY,
  trustedDirectories,
} from './runtime-directory.ts'

const { O_CREAT, O_NOFOLLOW, O_NONBLOCK, O_RDONLY, O_RDWR } = constants

/** From this offset to the end, however large the region is or becomes. */
const TO_THE_END = 0
const WHOLE: ByteRange = { offset: 0, length: TO_THE_END }

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
      const ranges = region.locks ?? [WHOLE]
      let taken = lockAll(node, ranges)
      if (taken && (region.kind === 'device-dax' || !node.writable)) {
        const file = openLockFile(wholeKey(region.key), fstatSync(region.fd))
        lock.#fds.push(file.fd)
        taken = lockAll(file, ranges)
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
export function probeLock(name: string, key: string): boolean | undefined {
  // Of a mapped device all targets are held, or none.
  const first = targetsOf(name)[0] ?? ''
  const { path, instance } = parseName(first)
  const range = instance === undefined ? WHOLE : instanceLock(instance.id)
  const own = key.replace(/-set$/, '')
  const isIt = (fd: number) => keyOf(fstatSync(fd, { bigint: true }), instance) === own
  const node = probeFile(path, range, isIt)
  if (node !== false) return node
  return trustedDirectories().some(
    (directory) => probeFile(lockFileIn(directory, wholeKey(own)), range) === true,
  )
}

function probeFile(
  path: string,
  { offset, length }: ByteRange,
  isIt: (fd: number) => boolean = () => true,
): boolean | undefined {
  let fd: number
  try {
    fd = openSync(path, O_RDONLY | O_NONBLOCK)
  } catch {
    return undefined
  }
  try {
    return isIt(fd) ? !native.lockRange(fd, offset, length, false) : undefined
  } catch {
    return undefined
  } finally {
    closeSync(fd)
  }
}

function lockAll({ fd, writable }: OpenLock, ranges: readonly ByteRange[]): boolean {
  return ranges.every(({ offset, length }) => native.lockRange(fd, offset, length, writable))
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
