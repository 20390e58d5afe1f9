/** Paths of the core, as the kernel walks them: what a transport gets is inodes and names. */
import { ELOOP, ENOENT, ENOTDIR, FsError } from '../../src/fs/errors.ts'
import type { Filesystem } from '../../src/fs/filesystem.ts'
import { isDirectory, S_IFLNK, S_IFMT } from '../../src/fs/modes.ts'
import { type Inode, ROOT_INODE } from '../../src/fs/operations.ts'

const LINKS_MAX = 40

/** A directory and the name in it that a path ends with. */
export interface End {
  readonly parent: number
  readonly name: Buffer
}

export const isLink = (mode: number) => (mode & S_IFMT) === S_IFLNK

export class CorePaths {
  readonly #fs: Filesystem

  constructor(fs: Filesystem) {
    this.#fs = fs
  }

  /** The inode of a name, or ENOENT; no reference is kept. */
  child({ parent, name }: End): Inode {
    const inode = this.#fs.lookup(parent, name)
    this.#fs.forget(inode.ino, 1)
    return inode
  }

  /** As `child`, but undefined when it is not there. */
  existing(end: End): Inode | undefined {
    try {
      return this.child(end)
    } catch (error) {
      if (error instanceof FsError && error.errno === ENOENT) return undefined
      throw error
    }
  }

  /** Where the path ends; symbolic links before its last name are followed. */
  end(path: string, from = ROOT_INODE, links = 0): End {
    const names = path.split('/')
    const last = names.pop()!
    const parent = names.reduce((at, name) => this.#into(at, name, links), from)
    if (!isDirectory(this.#fs.getattr(parent).mode)) throw new FsError(ENOTDIR)
    return { parent, name: Buffer.from(last) }
  }

  /** Where the path ends when a symbolic link at its end is followed, too; it need not exist. */
  followed(path: string, from = ROOT_INODE, links = 0): End {
    const end = this.end(path, from, links)
    const inode = this.existing(end)
    if (inode === undefined || !isLink(inode.mode)) return end
    if (links === LINKS_MAX) throw new FsError(ELOOP)
    return this.followed(this.#target(inode), end.parent, links + 1)
  }

  inode(path: string, follow: boolean): Inode {
    return this.child(follow ? this.followed(path) : this.end(path))
  }

  /** The directory that `name` leads to. */
  #into(at: number, name: string, links: number): number {
    if (!isDirectory(this.#fs.getattr(at).mode)) throw new FsError(ENOTDIR)
    if (name === '..') return this.#fs.getattr(at).parent
    const inode = this.child({ parent: at, name: Buffer.from(name) })
    if (!isLink(inode.mode)) return inode.ino
    if (links === LINKS_MAX) throw new FsError(ELOOP)
    return this.child(this.followed(this.#target(inode), at, links + 1)).ino
  }

  #target({ ino }: Inode): string {
    return Buffer.from(this.#fs.readlink(ino)).toString()
  }
}
