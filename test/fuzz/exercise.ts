/** What users do to a filesystem made from a mutated region: every kind of operation, a few of each. */
import { FrozenError, FsError } from '../../src/fs/errors.ts'
import { createPieces } from '../../src/fs/file-read.ts'
import type { Filesystem } from '../../src/fs/filesystem.ts'
import type { DirectoryEntry } from '../../src/fs/operations.ts'

const CALLER = { uid: 0, gid: 0, pid: 1, umask: 0 }
const WRITE = { cached: false, killPrivileges: true, append: false }
const ENTRIES_MAX = 200

/** A file or directory that a name led to. */
interface Seen {
  readonly parent: number
  readonly name: Uint8Array
  readonly ino: number
  readonly kind: number
}

export class Exercise {
  readonly #fs: Filesystem
  /** Errors that a transport would have to call a bug. */
  readonly strange: Error[] = []

  constructor(fs: Filesystem) {
    this.#fs = fs
  }

  async run(): Promise<void> {
    const seen = this.#walk()
    for (const one of seen.slice(0, 60)) this.#look(one)
    for (const [at, one] of seen.slice(0, 40).entries()) this.#change(one, at)
    this.#make()
    this.#ask(seen)
    await this.#tryAsync(() => this.#fs.fsync(1, false))
    await this.#tryAsync(() => this.#fs.administration.checkpoint())
    this.#make()
    // Unlinked files are freed, and such work is done, between operations.
    await new Promise((resolve) => setImmediate(resolve))
  }

  #walk(): Seen[] {
    const fs = this.#fs
    const seen: Seen[] = []
    const queue = [1]
    const visited = new Set(queue)
    for (let dir = queue.shift(); dir !== undefined; dir = queue.shift()) {
      const parent = dir
      for (const { name, ino, kind } of this.#entries(parent)) {
        if (seen.length >= ENTRIES_MAX) return seen
        seen.push({ parent, name, ino, kind })
        if (kind !== 4 || visited.has(ino)) continue
        visited.add(ino)
        queue.push(ino)
      }
      this.#try(() => fs.getattr(parent))
    }
    return seen
  }

  #entries(ino: number): DirectoryEntry[] {
    const entries: DirectoryEntry[] = []
    this.#try(() => {
      const handle = this.#fs.opendir(ino)
      this.#fs.readdir(handle, 2, (entry) => {
        entries.push({ ...entry, name: Buffer.from(entry.name) })
        return entries.length < ENTRIES_MAX
      })
      this.#fs.release(handle)
    })
    return entries
  }

  #look({ parent, name, ino }: Seen): void {
    const fs = this.#fs
    this.#try(() => fs.lookup(parent, name))
    this.#try(() => fs.getattr(ino))
    this.#try(() => fs.readlink(ino))
    this.#try(() => {
      for (const attribute of fs.listxattr(ino)) fs.getxattr(ino, attribute)
    })
    this.#try(() => this.#read(ino))
    this.#try(() => fs.administration.getmap(ino))
  }

  /** The kernel opens and truncates regular files only. */
  #isRegular(ino: number): boolean {
    return (this.#fs.getattr(ino).mode & 0o170000) === 0o100000
  }

  #read(ino: number): void {
    const fs = this.#fs
    if (!this.#isRegular(ino)) return
    const handle = fs.open(ino, 0, false)
    const { size } = fs.getattr(ino)
    const buffer = Buffer.alloc(16384)
    const offsets = [0, 4096, Math.max(0, size - 5000), Math.floor(size / 2)]
    for (const offset of offsets) {
      this.#try(() => fs.readInto(handle, offset, buffer, 0, buffer.length))
      this.#try(() => fs.read(handle, offset, 2 ** 20, createPieces(64)))
      this.#try(() => fs.seek(handle, offset, 3))
      this.#try(() => fs.seek(handle, offset, 4))
    }
    fs.release(handle)
  }

  #change({ parent, name, ino, kind }: Seen, at: number): void {
    const fs = this.#fs
    const next = Buffer.from(`renamed${at}`)
    const changes = [
      () => this.#write(ino),
      () => this.#truncate(ino, 100 * at),
      () => fs.rename(parent, name, 1, next, 0),
      () => fs.link(ino, 1, next),
      () => (kind === 4 ? fs.rmdir(parent, name) : fs.unlink(parent, name)),
      () => fs.setxattr(ino, Buffer.from('user.x'), Buffer.alloc(10), 0, false),
      () => this.#punch(ino),
      () => fs.rename(parent, name, parent, name, 2),
    ]
    this.#try(changes[at % changes.length]!)
  }

  #truncate(ino: number, size: number): void {
    const changes = this.#isRegular(ino) ? { size, mode: 0o600 } : { mode: 0o600 }
    this.#fs.setattr(ino, changes, CALLER)
  }

  #write(ino: number): void {
    const fs = this.#fs
    if (!this.#isRegular(ino)) return
    const handle = fs.open(ino, 2, false)
    const bytes = Buffer.alloc(10_000, 7)
    const { size } = fs.getattr(ino)
    for (const offset of [0, 5000, size]) {
      this.#try(() => fs.write(handle, offset, bytes, 0, bytes.length, WRITE))
    }
    fs.release(handle)
  }

  #punch(ino: number): void {
    if (!this.#isRegular(ino)) return
    const handle = this.#fs.open(ino, 2, false)
    this.#try(() => this.#fs.fallocate(handle, 3, 4096, 8192))
    this.#try(() => this.#fs.fallocate(handle, 0, 0, 100_000))
    this.#fs.release(handle)
  }

  #make(): void {
    const fs = this.#fs
    for (let at = 0; at < 4; at++) {
      const name = Buffer.from(`made${at}`)
      this.#try(() => {
        const handle = fs.create(1, name, 0o644, 2, CALLER)
        const bytes = Buffer.alloc(30_000, at)
        fs.write(handle, 0, bytes, 0, bytes.length, WRITE)
        fs.release(handle)
      })
      this.#try(() => fs.mkdir(1, Buffer.from(`made${at}.d`), 0o755, CALLER))
      this.#try(() => fs.rename(1, name, 1, Buffer.from(`made${(at + 1) % 4}.d`), 2))
    }
    this.#try(() => fs.unlink(1, Buffer.from('made1')))
    this.#try(() => fs.rmdir(1, Buffer.from('made2.d')))
  }

  #ask(seen: readonly Seen[]): void {
    const { administration } = this.#fs
    this.#try(() => this.#fs.statfs())
    this.#try(() => administration.status())
    this.#try(() => administration.rmap(0, this.#fs.volume.geometry.size, 100))
    const ino = seen.find(({ kind }) => kind === 8)?.ino
    if (ino === undefined) return
    const target = { kind: 'file', inode: ino, fileOffset: 0 } as const
    this.#try(() => administration.inject({ target, length: 4096, method: 'soft' }))
    this.#try(() => administration.clearPoison('all'))
  }

  #try(operation: () => unknown): void {
    try {
      operation()
    } catch (error) {
      this.#judge(error)
    }
  }

  async #tryAsync(operation: () => Promise<unknown>): Promise<void> {
    try {
      await operation()
    } catch (error) {
      this.#judge(error)
    }
  }

  #judge(error: unknown): void {
    if (error instanceof FsError || error instanceof FrozenError) return
    this.strange.push(error as Error)
  }
}
