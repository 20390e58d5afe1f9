/** Open files and directories: what a FUSE fh stands for. */
import { EBADF, FsError } from './errors.ts'

/**
 * INVARIANT: `dead` never goes back to false; a dead handle answers EIO to everything but release.
 */
export class Handle {
  readonly id: number
  readonly ino: number
  /** open(2) flags: O_ACCMODE, O_APPEND, … */
  readonly flags: number
  readonly directory: boolean
  dead = false

  constructor(id: number, ino: number, flags: number, directory: boolean) {
    this.id = id
    this.ino = ino
    this.flags = flags
    this.directory = directory
  }
}

export class HandleTable {
  readonly #handles = new Map<number, Handle>()
  readonly #byInode = new Map<number, Set<Handle>>()
  #nextId = 1
  /** Handles killed since the mount. */
  killed = 0

  open(ino: number, flags: number, directory: boolean): Handle {
    const handle = new Handle(this.#nextId++, ino, flags, directory)
    this.#handles.set(handle.id, handle)
    const siblings = this.#byInode.get(ino)
    if (siblings === undefined) this.#byInode.set(ino, new Set([handle]))
    else siblings.add(handle)
    return handle
  }

  get(id: number): Handle {
    const handle = this.#handles.get(id)
    if (handle === undefined) throw new FsError(EBADF)
    return handle
  }

  /** Returns true when that was the last handle of its inode. */
  close(handle: Handle): boolean {
    this.#handles.delete(handle.id)
    const siblings = this.#byInode.get(handle.ino)
    siblings?.delete(handle)
    if (siblings !== undefined && siblings.size > 0) return false
    this.#byInode.delete(handle.ino)
    return true
  }

  isOpen(ino: number): boolean {
    return this.#byInode.has(ino)
  }

  ofInode(ino: number): Iterable<Handle> {
    return this.#byInode.get(ino) ?? []
  }

  all(): Iterable<Handle> {
    return this.#handles.values()
  }

  get count(): number {
    return this.#handles.size
  }

  /** Marks every handle of the inode dead; returns how many were alive. */
  kill(ino: number): number {
    let count = 0
    for (const handle of this.ofInode(ino)) {
      if (handle.dead) continue
      handle.dead = true
      count++
    }
    this.killed += count
    return count
  }
}
