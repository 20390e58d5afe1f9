/**
 * The fuse-native transport: the path-based operations of libfuse 2, through the npm binding, over
 * the same core. docs/TRANSPORTS.md tells what it cannot do.
 */
import { EIO, FrozenError, FsError } from '../fs/errors.ts'
import type { Filesystem } from '../fs/filesystem.ts'
import type { Handle } from '../fs/handles.ts'
import type { AttributeChanges, Caller, DirectoryEntry } from '../fs/operations.ts'
import { ROOT_INODE } from '../fs/operations.ts'
import type { Logger } from '../fs/volume.ts'
import { Bugs } from './bugs.ts'
import {
  answerCount,
  type BindingOperations,
  type BindingStat,
  bindingStat,
  clamp,
  durableOperations,
  type FuseNative,
  type FuseNativeOptions,
  letGo,
  loadFuseNative,
  makeFuse,
  ms,
  type NameOperation,
  type OwnOperations,
  optionString,
  REPLACED,
  requireText,
  watch,
  writeOptions,
} from './fuse-native-binding.ts'
import { MountError, resolveMountpoint } from './mount.ts'
import { RETIRING, Reopener } from './reopen.ts'
import { unmountConnection } from './unmount.ts'

const SILENT: Logger = { info() {}, warn() {}, error() {} }
/** The binding copies the option string into so many bytes. */
const OPTIONS_MAX = 1000
const O_RDWR = 2
/** How libfuse names what is unlinked, or renamed over, while it is open. */
const HIDDEN = '/.fuse_hidden'
const UNCHANGED = 0xffff_ffff
/** What an open gets that only drops pages after a shutdown; no handle has this number. */
const REVOKING_FH = 0x7fff_fff0
/** libfuse threads may still run in memory that these own. */
const immortal = new Set<FuseNative>()

/** Paths to inodes, errors to errnos, and the operations themselves. */
class PathOperations {
  readonly #fs: Filesystem
  readonly #bugs: Bugs
  readonly #directIo: boolean
  /** Operations whose answer waits until what they did is durable. */
  readonly #durable: ReadonlySet<string>
  /** After a shutdown: what a revocation has to get through to by path. */
  readonly revoking = new Map<string, number>()
  /** Second names that exist only between link and rename of a retirement: path to the first. */
  readonly #aliases = new Map<string, string>()
  /** What libfuse calls the retired nodes; the core has no such names. */
  readonly #retired = new Set<string>()
  readonly #caller: Caller = {
    uid: process.geteuid?.() ?? 0,
    gid: process.getegid?.() ?? 0,
    pid: 0,
    // libfuse 2 lets the kernel apply it.
    umask: 0,
  }

  constructor(fs: Filesystem, { logger = SILENT, directIo, flags = [] }: FuseNativeOptions) {
    this.#fs = fs
    this.#bugs = new Bugs(logger)
    this.#directIo = directIo ?? false
    this.#durable = durableOperations(flags)
  }

  resolve(path: string): number {
    requireText(path)
    if (this.#retired.has(path)) throw new FsError(EIO)
    const alias = this.#aliases.get(path)
    if (alias !== undefined) return this.resolve(alias)
    let ino = ROOT_INODE
    for (const name of path.split('/')) if (name !== '') ino = this.#child(ino, Buffer.from(name))
    return ino
  }

  #child(parent: number, name: Uint8Array): number {
    const { ino } = this.#fs.lookup(parent, name)
    this.#fs.forget(ino, 1)
    return ino
  }

  #rename(from: string, to: string): void {
    if (this.#aliases.delete(from)) return
    if (to.includes(HIDDEN) && [...this.#aliases.values()].includes(from)) this.#retired.add(to)
    else this.#fs.rename(...this.#place(from), ...this.#place(to), 0)
  }

  #link(from: string, to: string): void {
    if (to.endsWith(RETIRING)) this.#aliases.set(to, from)
    else this.#made(this.#fs.link(this.resolve(from), ...this.#place(to)))
  }

  #unlink(path: string): void {
    if (!this.#retired.delete(path)) this.#fs.unlink(...this.#place(path))
  }

  #place(path: string): [number, Buffer] {
    requireText(path)
    const slash = path.lastIndexOf('/')
    return [this.resolve(path.slice(0, slash)), Buffer.from(path.slice(slash + 1))]
  }

  /** Runs an operation, again after a thaw, and answers with its value or a negative errno. */
  #run<T>(name: string, answer: (errno: number, value?: T) => void, operation: () => T): void {
    let value: T
    try {
      value = operation()
    } catch (error) {
      if (error instanceof FrozenError) {
        void this.#fs.thawed().then(() => this.#run(name, answer, operation))
      } else answer(-this.#errno(name, error))
      return
    }
    if (!this.#durable.has(name)) answer(0, value)
    else {
      const sent = (errno: number) => answer(errno, errno === 0 ? value : undefined)
      this.#fsync(name, () => ROOT_INODE, false, sent)
    }
  }

  #errno(name: string, error: unknown): number {
    if (error instanceof FsError) return error.errno
    this.#bugs.tell(name, error)
    return EIO
  }

  #alive(fh: number): Handle {
    const handle = this.#fs.handle(fh)
    if (handle.dead) throw new FsError(EIO)
    return handle
  }

  #made(inode: { readonly ino: number }): void {
    this.#fs.forget(inode.ino, 1)
  }

  #getattr(path: string): BindingStat {
    const ino = this.revoking.get(path)
    const inode = ino === undefined ? undefined : this.#fs.volume.inodes.find(ino)
    return bindingStat(inode === undefined ? this.#fs.getattr(this.resolve(path)) : inode.row)
  }

  #open(path: string, flags: number): number {
    if (this.revoking.has(path)) return REVOKING_FH
    return this.#fs.open(this.resolve(path), flags, false).id
  }

  #readdir(path: string): [string[], BindingStat[]] {
    const fs = this.#fs
    const handle = fs.opendir(this.resolve(path))
    const names: string[] = []
    const stats: BindingStat[] = []
    const blank = bindingStat(fs.getattr(handle.ino))
    const emit = ({ name, ino, kind }: DirectoryEntry) => {
      const text = Buffer.from(name).toString('utf8')
      if (!text.includes(REPLACED)) {
        names.push(text)
        stats.push({ ...blank, mode: kind << 12, ino })
      }
      return true
    }
    try {
      fs.readdir(handle, 0, emit)
    } finally {
      fs.release(handle)
    }
    return [names, stats]
  }

  /** A short answer means end of file to the page cache, see checkShort in files.ts. */
  #read(fh: number, target: Buffer, length: number, offset: number): number {
    const handle = this.#alive(fh)
    const got = this.#fs.readInto(handle, offset, target, 0, length)
    if (got === length || this.#directIo) return got
    if (offset + got < this.#fs.getattr(handle.ino).size) throw new FsError(EIO)
    return got
  }

  #create(path: string, mode: number): number {
    const [parent, name] = this.#place(path)
    const handle = this.#fs.create(parent, name, mode, O_RDWR, this.#caller)
    this.#fs.forget(handle.ino, 1)
    return handle.id
  }

  #fsync(name: string, ino: () => number, dataOnly: boolean, done: (errno: number) => void): void {
    const wait = async () => this.#fs.fsync(ino(), dataOnly)
    wait().then(
      () => done(0),
      (error) => done(-this.#errno(name, error)),
    )
  }

  #set(ino: number, changes: AttributeChanges, handle?: Handle): void {
    this.#fs.setattr(ino, changes, this.#caller, handle)
  }

  binding(): BindingOperations {
    return { ...this.#files(), ...this.#names() }
  }

  #files(): Omit<BindingOperations, NameOperation> {
    const fs = this.#fs
    return {
      statfs: (_path, done) =>
        this.#run('statfs', done, () => {
          const now = fs.statfs()
          return {
            ...{ bsize: now.blockSize, frsize: now.blockSize, namemax: now.nameMax },
            ...{ blocks: clamp(now.blocks), bfree: clamp(now.free), bavail: clamp(now.available) },
            files: clamp(now.files),
            ffree: clamp(now.filesFree),
            favail: clamp(now.filesFree),
          }
        }),
      getattr: (path, done) => this.#run('getattr', done, () => this.#getattr(path)),
      readdir: (path, done) => {
        const answer = (errno: number, found?: [string[], BindingStat[]]) =>
          done(errno, found?.[0], found?.[1])
        this.#run('readdir', answer, () => this.#readdir(path))
      },
      truncate: (path, size, done) =>
        this.#run('truncate', done, () => this.#set(this.resolve(path), { size })),
      ftruncate: (_path, fh, size, done) =>
        this.#run('ftruncate', done, () => {
          const handle = this.#alive(fh)
          this.#set(handle.ino, { size }, handle)
        }),
      utimens: (path, atime, mtime, done) =>
        this.#run('utimens', done, () =>
          this.#set(this.resolve(path), { atime: ms(atime), mtime: ms(mtime) }),
        ),
      readlink: (path, done) =>
        this.#run('readlink', done, () => Buffer.from(fs.readlink(this.resolve(path))).toString()),
      chown: (path, uid, gid, done) =>
        this.#run('chown', done, () =>
          this.#set(this.resolve(path), {
            ...(uid !== UNCHANGED && { uid }),
            ...(gid !== UNCHANGED && { gid }),
          }),
        ),
      chmod: (path, mode, done) =>
        this.#run('chmod', done, () => this.#set(this.resolve(path), { mode: mode & 0o7777 })),
      setxattr: (path, name, value, _position, flags, done) =>
        this.#run('setxattr', done, () =>
          // libfuse's buffer is gone after the answer.
          fs.setxattr(this.resolve(path), Buffer.from(name), Buffer.from(value), flags, false),
        ),
      removexattr: (path, name, done) =>
        this.#run('removexattr', done, () => fs.removexattr(this.resolve(path), Buffer.from(name))),
      open: (path, flags, done) => this.#run('open', done, () => this.#open(path, flags)),
      create: (path, mode, done) => this.#run('create', done, () => this.#create(path, mode)),
      read: (_path, fh, target, length, offset, done) =>
        this.#run('read', answerCount(done), () => this.#read(fh, target, length, offset)),
      write: (_path, fh, source, length, offset, done) =>
        this.#run('write', answerCount(done), () =>
          fs.write(this.#alive(fh), offset, source, 0, length, writeOptions(this.#directIo)),
        ),
      release: (_path, fh, done) =>
        this.#run('release', done, () => {
          if (fh !== REVOKING_FH) fs.release(fs.handle(fh))
        }),
      flush: (_path, _fh, done) => done(0),
      fsync: (_path, dataOnly, fh, done) =>
        this.#fsync('fsync', () => this.#alive(fh).ino, dataOnly !== 0, done),
      fsyncdir: (path, dataOnly, _fh, done) =>
        this.#fsync('fsyncdir', () => this.resolve(path), dataOnly !== 0, done),
    }
  }

  #names(): Pick<BindingOperations, NameOperation> {
    const fs = this.#fs
    const caller = this.#caller
    return {
      mknod: (path, mode, rdev, done) =>
        this.#run('mknod', done, () =>
          this.#made(fs.mknod(...this.#place(path), mode, rdev, caller)),
        ),
      unlink: (path, done) => this.#run('unlink', done, () => this.#unlink(path)),
      rmdir: (path, done) => this.#run('rmdir', done, () => void fs.rmdir(...this.#place(path))),
      mkdir: (path, mode, done) =>
        this.#run('mkdir', done, () => this.#made(fs.mkdir(...this.#place(path), mode, caller))),
      rename: (from, to, done) => this.#run('rename', done, () => this.#rename(from, to)),
      link: (from, to, done) => this.#run('link', done, () => this.#link(from, to)),
      symlink: (target, path, done) =>
        this.#run('symlink', done, () =>
          this.#made(fs.symlink(...this.#place(path), Buffer.from(target), caller)),
        ),
    }
  }

  own(): OwnOperations {
    const fs = this.#fs
    return {
      fgetattr: (_path, fh, done) =>
        this.#run('fgetattr', done, () => bindingStat(fs.getattr(this.#alive(fh).ino))),
      getxattr: (path, name, done) =>
        this.#run('getxattr', done, () => fs.getxattr(this.resolve(path), Buffer.from(name))),
      listxattr: (path, done) =>
        this.#run('listxattr', done, () => {
          const end = Buffer.alloc(1)
          return Buffer.concat(fs.listxattr(this.resolve(path)).flatMap((name) => [name, end]))
        }),
    }
  }
}

/** Mounts and serves `fs`; resolves when the mount answers. */
export async function mountFuseNative(
  fs: Filesystem,
  mountpoint: string,
  options: FuseNativeOptions,
): Promise<{ closed: Promise<void>; unmount(lazy?: boolean): Promise<void> }> {
  const resolved = resolveMountpoint(mountpoint)
  const Fuse = await loadFuseNative()
  const operations = new PathOperations(fs, options)
  const given = optionString(options, options.readOnly ?? fs.readOnly)
  const fuse = makeFuse(Fuse, resolved, operations.binding(), operations.own(), given)
  if (Buffer.byteLength(fuse._fuseOptions()) > OPTIONS_MAX || Buffer.byteLength(resolved) > 1000) {
    throw new MountError('the paths of region and mountpoint are too long for fuse-native')
  }
  immortal.add(fuse)
  await new Promise<void>((resolve, reject) => {
    fuse.mount((error) => {
      if (!error) resolve()
      else reject(new MountError(`cannot mount on ${resolved}: ${error.message}`))
    })
  })
  fs.attach(new Reopener(fs, resolved, operations.revoking))
  const closed = watch(resolved).then(() => letGo(Fuse, fuse))
  return {
    closed,
    async unmount(lazy = false) {
      await unmountConnection(resolved, lazy)
      if (!lazy) await closed
    },
  }
}
