/**
 * The calls of calls.ts on the core, without a kernel: what the kernel decides before it asks a
 * filesystem is decided here, and marked so. All else, errno included, is the core's own.
 */
import type { SimulatedMemory } from '../../src/dax/simulated-memory.ts'
import { checkIndex } from '../../src/fs/check/check.ts'
import {
  EACCES,
  EEXIST,
  EINVAL,
  EISDIR,
  ELOOP,
  ENODATA,
  ENOENT,
  ENOTDIR,
  ENOTEMPTY,
  EPERM,
  errnoName,
  FsError,
} from '../../src/fs/errors.ts'
import type { Filesystem } from '../../src/fs/filesystem.ts'
import type { Handle } from '../../src/fs/handles.ts'
import { isDirectory, isRegular, S_IFREG } from '../../src/fs/modes.ts'
import {
  type AttributeChanges,
  type Inode,
  RENAME_EXCHANGE,
  RENAME_NOREPLACE,
  ROOT_INODE,
} from '../../src/fs/operations.ts'
import { remount, scratchFilesystem } from '../support/core.ts'
import type { Call, CallName, Instant, On, OpenFlag } from './calls.ts'
import { CorePaths, isLink } from './core-paths.ts'
import {
  changed,
  clocks,
  describe,
  digestOf,
  type Found,
  namesIn,
  survey,
  xattrNames,
} from './core-survey.ts'
import { payload } from './file-model.ts'

const SIZE = 32 * 2 ** 20
const UMASK = 0o022
const O_RDWR = 2
const O_TRUNC = 0o1000
const TYPES = { fifo: 0o010000, socket: 0o140000, device: 0o020000, file: S_IFREG }
const NULL_DEVICE = (1 << 8) | 3
const plain = { cached: false, killPrivileges: false, append: false }
const WHENCE = { data: 3, hole: 4 }
const BOTH = RENAME_NOREPLACE | RENAME_EXCHANGE
const DEFAULT_ACL = 'system.posix_acl_default'

/** What is not the filesystem's to judge. */
class Refused extends Error {}

interface OpenFile {
  readonly handle: Handle
  readonly writable: boolean
}

/** What a call gives, awaited: words, or nothing. */
type Performers = { [Name in CallName]: (call: On<Name>) => unknown }

export class CoreCalls {
  #fs: Filesystem
  #memory: SimulatedMemory
  #paths: CorePaths
  #user = 0
  /** Files that never had a name. */
  readonly #unnamed = new Set<number>()
  readonly #slots = new Map<number, OpenFile>()

  constructor(mode: 'cacheline' | 'page') {
    const { fs, memory } = scratchFilesystem(SIZE, mode)
    this.#fs = fs
    this.#memory = memory
    this.#paths = new CorePaths(fs)
    // As a directory that a program has just made.
    fs.setattr(1, { mode: 0o755, uid: 0, gid: 0 }, this.#caller)
  }

  /** What each call gave, and at last what is there in the end. */
  async run(calls: readonly Call[]): Promise<string[]> {
    const said: string[] = []
    for (const call of calls) said.push(await this.#make(call))
    this.#closeAll()
    said.push(survey(this.#fs))
    return said
  }

  /** Takes it down; returns what the checker says against it. */
  async end(): Promise<string | undefined> {
    this.#closeAll()
    await this.#fs.unmount()
    this.#mount()
    const { index, geometry, superblock } = this.#fs.volume
    const problems = checkIndex(index.database, geometry, superblock)
    await this.#fs.unmount()
    return problems.length === 0 ? undefined : problems.map(({ message }) => message).join('; ')
  }

  get #caller() {
    return { uid: this.#user, gid: this.#user, pid: 1, umask: UMASK }
  }

  async #make(call: Call): Promise<string> {
    if (!call.watched) return this.#attempt(call)
    const before = clocks(this.#fs, this.#open())
    // The clock goes on meanwhile, that of tmpfs by ticks.
    await new Promise((resolve) => setTimeout(resolve, 2))
    const said = await this.#attempt(call)
    return said + changed(before, clocks(this.#fs, this.#open()))
  }

  async #attempt(call: Call): Promise<string> {
    this.#user = call.user
    try {
      const perform = this.#performers[call.do] as (call: Call) => unknown
      const given = await perform(call)
      return given === undefined ? 'ok' : `ok ${given}`
    } catch (error) {
      if (error instanceof Refused) return error.message
      if (error instanceof FsError) return errnoName(error.errno)
      throw error
    }
  }

  readonly #performers: Performers = {
    open: (call) => this.#openPath(call),
    tmpfile: ({ slot, path, mode }) => {
      const { ino, mode: kind } = this.#paths.inode(path, true)
      if (!isDirectory(kind)) throw new FsError(ENOTDIR)
      const handle = this.#fs.tmpfile(ino, mode, O_RDWR, this.#caller)
      this.#unnamed.add(handle.ino)
      return this.#keep(slot, handle, true, 1)
    },
    linkSlot: ({ slot, path }) => {
      const { ino } = this.#file(slot)
      const { parent, name } = this.#paths.end(path)
      // The kernel's part: what lost its names gets no new one, what never had one may.
      if (this.#paths.existing({ parent, name }) !== undefined) throw new FsError(EEXIST)
      const { nlink } = this.#fs.getattr(ino)
      if (nlink === 0 && !this.#unnamed.has(ino)) throw new FsError(ENOENT)
      this.#made(this.#fs.link(ino, parent, name))
      this.#unnamed.delete(ino)
    },
    close: ({ slot }) => {
      if (!this.#slots.has(slot)) throw new Refused('closed')
      this.#close(slot)
      return ''
    },
    fstat: ({ slot }) => {
      const open = this.#slots.get(slot)
      if (open === undefined) throw new Refused('closed')
      return describe(this.#fs.getattr(open.handle.ino))
    },
    fsync: async ({ slot }) => {
      await this.#fs.fsync(this.#file(slot).ino, false)
    },
    read: ({ slot, offset, length }) => {
      const bytes = Buffer.alloc(length)
      return digestOf(
        bytes.subarray(0, this.#fs.readInto(this.#file(slot), offset, bytes, 0, length)),
      )
    },
    write: ({ slot, offset, length, number }) => {
      const bytes = payload(number, length)
      return `${this.#fs.write(this.#file(slot, true), offset, bytes, 0, length, plain)}`
    },
    ftruncate: ({ slot, size }) => {
      const handle = this.#file(slot, true)
      this.#fs.setattr(handle.ino, { size }, this.#caller, handle)
    },
    fallocate: ({ slot, offset, length, mode }) =>
      void this.#fs.fallocate(this.#file(slot, true), mode, offset, length),
    copy: ({ slot, offset, length, to, onto }) => {
      const [from, into] = [this.#file(slot), this.#file(to, true)]
      return `${this.#fs.copyFileRange(from, offset, into, onto, length)}`
    },
    seek: ({ slot, offset, whence }) =>
      `${this.#fs.seek(this.#file(slot), offset, WHENCE[whence])}`,
    truncate: ({ path, size }) => {
      const { ino } = this.#paths.inode(path, true)
      this.#fs.setattr(ino, { size }, this.#caller)
    },
    stat: ({ path, follow }) => describe(this.#paths.inode(path, follow)),
    list: ({ path }) => {
      const { ino, mode } = this.#paths.inode(path, true)
      if (!isDirectory(mode)) throw new FsError(ENOTDIR)
      return namesIn(this.#fs, ino).join(' ')
    },
    readlink: ({ path }) => {
      const { ino, mode } = this.#paths.inode(path, false)
      if (!isLink(mode)) throw new FsError(EINVAL)
      return Buffer.from(this.#fs.readlink(ino)).toString()
    },
    mkdir: ({ path, mode }) => {
      const { parent, name } = this.#paths.end(path)
      // The kernel's part: a new directory is given neither suid nor sgid.
      this.#made(this.#fs.mkdir(parent, name, mode & 0o1777, this.#caller))
    },
    mknod: ({ path, kind, mode }) => {
      const { parent, name } = this.#paths.end(path)
      const device = kind === 'device' ? NULL_DEVICE : 0
      this.#made(this.#fs.mknod(parent, name, TYPES[kind] | mode, device, this.#caller))
    },
    symlink: ({ path, target }) => {
      const { parent, name } = this.#paths.end(path)
      this.#made(this.#fs.symlink(parent, name, Buffer.from(target), this.#caller))
    },
    link: ({ path, onto }) => {
      const { ino } = this.#paths.inode(path, false)
      const { parent, name } = this.#paths.end(onto)
      this.#made(this.#fs.link(ino, parent, name))
    },
    rename: ({ path, onto, flags }) => {
      // The kernel's part: flags, then the old name, then the new one.
      if (flags === BOTH) throw new FsError(EINVAL)
      const [from, to] = [this.#paths.end(path), this.#paths.end(onto)]
      this.#paths.child(from)
      // … and nothing takes the place of a directory it lies in.
      const target = this.#paths.existing(to)
      if (target !== undefined && (flags & RENAME_NOREPLACE) !== 0) throw new FsError(EEXIST)
      if (target !== undefined && this.#lies(from.parent, target.ino) && flags === 0) {
        throw new FsError(ENOTEMPTY)
      }
      this.#fs.rename(from.parent, from.name, to.parent, to.name, flags)
    },
    unlink: ({ path }) => {
      const { parent, name } = this.#paths.end(path)
      this.#fs.unlink(parent, name)
    },
    rmdir: ({ path }) => {
      const { parent, name } = this.#paths.end(path)
      this.#fs.rmdir(parent, name)
    },
    chmod: ({ path, mode }) => this.#change(path, true, { mode }),
    chown: ({ path, uid, gid }) => this.#chown(path, uid, gid),
    utime: ({ path, atime, mtime }) => this.#utime(path, atime, mtime),
    setxattr: ({ path, name, value, flags }) => {
      const inode = this.#withXattrs(path, name, EPERM)
      if (name === DEFAULT_ACL && !isDirectory(inode.mode)) throw new FsError(EACCES)
      this.#fs.setxattr(inode.ino, Buffer.from(name), Buffer.from(value, 'hex'), flags, false)
    },
    getxattr: ({ path, name }) =>
      digestOf(this.#fs.getxattr(this.#withXattrs(path, name, ENODATA).ino, Buffer.from(name))),
    listxattr: ({ path }) => xattrNames(this.#fs, this.#paths.inode(path, true).ino).join(' '),
    removexattr: ({ path, name }) =>
      void this.#fs.removexattr(this.#withXattrs(path, name, EPERM).ino, Buffer.from(name)),
    remount: async () => {
      this.#closeAll()
      await this.#fs.unmount()
      return this.#again()
    },
    crash: async () => {
      this.#closeAll()
      // Times that wait for a record are nobody's to lose: see DURABILITY.md.
      await this.#fs.administration.freeze()
      return this.#again()
    },
    checkpoint: async () => {
      await this.#fs.administration.checkpoint()
      return ''
    },
  }

  #openPath({ slot, path, flags, mode }: On<'open'>): string {
    const has = (flag: OpenFlag) => flags.includes(flag)
    if (this.#isSpecial(path)) throw new Refused('special')
    const writable = has('WRITE')
    const follow = !has('NOFOLLOW') && !(has('CREAT') && has('EXCL'))
    const end = follow ? this.#paths.followed(path) : this.#paths.end(path)
    const there = has('CREAT') ? this.#paths.existing(end) : this.#paths.child(end)
    if (there === undefined) {
      const { parent, name } = end
      const handle = this.#fs.create(parent, name, mode, writable ? O_RDWR : 0, this.#caller)
      return this.#keep(slot, handle, writable, 1)
    }
    refuseOpen(there, flags)
    if (isDirectory(there.mode)) return this.#keep(slot, this.#fs.opendir(there.ino), false)
    const bits = (writable ? O_RDWR : 0) | (has('TRUNC') ? O_TRUNC : 0)
    return this.#keep(slot, this.#fs.open(there.ino, bits, false), writable)
  }

  /** Is the directory `within` the other one, or it itself? */
  #lies(directory: number, within: number): boolean {
    for (let at = directory; at !== ROOT_INODE; at = this.#fs.getattr(at).parent) {
      if (at === within) return true
    }
    return false
  }

  /** Opening it is not the filesystem's affair. */
  #isSpecial(path: string): boolean {
    try {
      const { mode } = this.#paths.inode(path, true)
      return !isRegular(mode) && !isDirectory(mode)
    } catch {
      return false
    }
  }

  /** `lookups` are those that making it counted. */
  #keep(slot: number, handle: Handle, writable: boolean, lookups = 0): string {
    this.#close(slot)
    this.#slots.set(slot, { handle, writable })
    if (lookups > 0) this.#fs.forget(handle.ino, lookups)
    return describe(this.#fs.getattr(handle.ino))
  }

  #close(slot: number): void {
    const open = this.#slots.get(slot)
    if (open === undefined) return
    this.#fs.release(open.handle)
    this.#slots.delete(slot)
  }

  #closeAll(): void {
    for (const slot of [...this.#slots.keys()]) this.#close(slot)
  }

  #file(slot: number, writes = false): Handle {
    const open = this.#slots.get(slot)
    if (open === undefined) throw new Refused('closed')
    if (!isRegular(this.#fs.getattr(open.handle.ino).mode)) throw new Refused('no file')
    if (writes && !open.writable) throw new Refused('read-only')
    return open.handle
  }

  #made({ ino }: Inode): void {
    this.#fs.forget(ino, 1)
  }

  #open(): Found[] {
    return [...this.#slots].map(([slot, { handle }]) => ({ path: `slot ${slot}`, ino: handle.ino }))
  }

  #change(path: string, follow: boolean, changes: AttributeChanges): void {
    this.#fs.setattr(this.#paths.inode(path, follow).ino, changes, this.#caller)
  }

  /** The kernel's part: of a file both bits go, sgid only where it means execution. */
  #chown(path: string, uid: number, gid: number): void {
    const { mode } = this.#paths.inode(path, false)
    const killPrivileges = !isDirectory(mode)
    const owner = { ...(uid >= 0 && { uid }), ...(gid >= 0 && { gid }) }
    this.#change(path, false, { ...owner, ...(killPrivileges && { killPrivileges }) })
  }

  #utime(path: string, atime: Instant, mtime: Instant): void {
    const wanted = (time: Instant) =>
      typeof time === 'number' ? { seconds: time, nanoseconds: 0 } : (time ?? undefined)
    const changes: AttributeChanges = {}
    const [access, change] = [wanted(atime), wanted(mtime)]
    if (access !== undefined) changes.atime = access
    if (change !== undefined) changes.mtime = change
    // Nothing to set: the kernel does not even look for it.
    if (access !== undefined || change !== undefined) this.#change(path, true, changes)
  }

  /** The kernel's part: no `user.` on what is neither file nor directory. */
  #withXattrs(path: string, name: string, errno: number): Inode {
    const inode = this.#paths.inode(path, true)
    const may = isRegular(inode.mode) || isDirectory(inode.mode)
    if (name.startsWith('user.') && !may) throw new FsError(errno)
    return inode
  }

  #again(): string {
    this.#memory = this.#memory.crash()
    this.#mount()
    return survey(this.#fs)
  }

  #mount(): void {
    this.#fs = remount(this.#memory)
    this.#paths = new CorePaths(this.#fs)
  }
}

/** The kernel's part of open(2), in its order. */
function refuseOpen({ mode }: Inode, flags: readonly OpenFlag[]): void {
  const has = (flag: OpenFlag) => flags.includes(flag)
  if (has('CREAT') && has('EXCL')) throw new FsError(EEXIST)
  if (has('CREAT') && isDirectory(mode)) throw new FsError(EISDIR)
  if (has('DIRECTORY') && !isDirectory(mode)) throw new FsError(ENOTDIR)
  if (isLink(mode)) throw new FsError(ELOOP)
  if (isDirectory(mode) && (has('WRITE') || has('TRUNC'))) throw new FsError(EISDIR)
}
