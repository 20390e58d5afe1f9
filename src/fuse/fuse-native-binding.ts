/**
 * The npm package fuse-native (libfuse 2) as this project uses it: its types, how it is loaded, and
 * what has to be done differently from its index.js, which the handlers below replace.
 */
import { existsSync, statSync } from 'node:fs'
import { constants } from 'node:os'
import { FsError } from '../fs/errors.ts'
import type { Inode, WriteOptions } from '../fs/operations.ts'
import type { Logger } from '../fs/volume.ts'
import { deviceOfMount, durableWith, type MountFlag } from './mount.ts'

export interface FuseNativeOptions {
  /** The path of the region, shown as the source of the mount. */
  readonly fsname: string
  readonly allowOther?: boolean
  readonly readOnly?: boolean
  readonly flags?: readonly MountFlag[]
  /** No page cache: a dead handle answers EIO whatever was read before; no shared mmap. */
  readonly directIo?: boolean
  readonly logger?: Logger
}

export type Done = (errno: number) => void
export type Answer<T> = (errno: number, value?: T) => void

/** The operations of the binding; errnos are negative. */
export interface BindingOperations {
  statfs(path: string, done: Answer<BindingStatfs>): void
  getattr(path: string, done: Answer<BindingStat>): void
  readdir(
    path: string,
    done: (errno: number, names?: string[], stats?: BindingStat[]) => void,
  ): void
  truncate(path: string, size: number, done: Done): void
  ftruncate(path: string, fh: number, size: number, done: Done): void
  utimens(path: string, atimeMs: number, mtimeMs: number, done: Done): void
  readlink(path: string, done: Answer<string>): void
  chown(path: string, uid: number, gid: number, done: Done): void
  chmod(path: string, mode: number, done: Done): void
  mknod(path: string, mode: number, rdev: number, done: Done): void
  setxattr(
    path: string,
    name: string,
    value: Buffer,
    position: number,
    flags: number,
    done: Done,
  ): void
  removexattr(path: string, name: string, done: Done): void
  open(path: string, flags: number, done: Answer<number>): void
  create(path: string, mode: number, done: Answer<number>): void
  read(
    path: string,
    fh: number,
    target: Buffer,
    length: number,
    offset: number,
    done: Answer<number>,
  ): void
  write(
    path: string,
    fh: number,
    source: Buffer,
    length: number,
    offset: number,
    done: Answer<number>,
  ): void
  release(path: string, fh: number, done: Done): void
  flush(path: string, fh: number, done: Done): void
  fsync(path: string, dataOnly: number, fh: number, done: Done): void
  fsyncdir(path: string, dataOnly: number, fh: number, done: Done): void
  unlink(path: string, done: Done): void
  rmdir(path: string, done: Done): void
  mkdir(path: string, mode: number, done: Done): void
  rename(from: string, to: string, done: Done): void
  link(from: string, to: string, done: Done): void
  symlink(target: string, path: string, done: Done): void
}

/** What index.js cannot ask for properly; we answer these ourselves. */
export interface OwnOperations {
  fgetattr(path: string, fh: number, done: Answer<BindingStat>): void
  getxattr(path: string, name: string, done: Answer<Uint8Array>): void
  listxattr(path: string, done: Answer<Uint8Array>): void
}

export interface BindingStat {
  mode: number
  uid: number
  gid: number
  size: number
  nlink: number
  ino: number
  rdev: number
  blksize: number
  blocks: number
  /** Milliseconds. */
  atime: number
  mtime: number
  ctime: number
}

export interface BindingStatfs {
  bsize: number
  frsize: number
  blocks: number
  bfree: number
  bavail: number
  files: number
  ffree: number
  favail: number
  namemax: number
}

type Signal = (result: number, value?: unknown) => void
type Handler = (locals: Buffer, opcode: number, ...args: number[]) => void

export interface FuseNative {
  mount(done: (error?: Error | null) => void): void
  close(done: (error?: Error | null) => void): void
  _fuseOptions(): string
  _handlers: (Handler | undefined)[]
  _op_getattr(signal: Signal, path: string): void
  _op_fgetattr(signal: Signal, path: string, fh: number): void
  _op_getxattr(signal: Signal, path: string, name: string, target: Buffer): void
  _op_listxattr(signal: Signal, path: string, target: Buffer): void
  _op_utimens(signal: Signal, path: string, ...halves: number[]): void
}

export interface FuseNativeClass {
  new (
    mountpoint: string,
    operations: BindingOperations & Record<'fgetattr' | 'getxattr' | 'listxattr', unknown>,
    options: Record<string, unknown>,
  ): FuseNative
  unmount(mountpoint: string, done: (error?: Error | null) => void): void
}

export class BindingMissingError extends Error {
  constructor(cause: unknown) {
    const why = cause instanceof Error ? cause.message.split('\n', 1)[0] : String(cause)
    super(
      `transport=fuse-native needs the npm package fuse-native and libfuse.so.2 ` +
        `(Debian: libfuse2), use transport=kernel: ${why}`,
      { cause },
    )
    this.name = 'BindingMissingError'
  }
}

export async function loadFuseNative(): Promise<FuseNativeClass> {
  // Not a literal: the package has no types, and it is an optional dependency.
  const name: string = 'fuse-native'
  try {
    const module: { default: FuseNativeClass } = await import(name)
    return module.default
  } catch (cause) {
    throw new BindingMissingError(cause)
  }
}

const ERANGE = -34
const OP_UTIMENS = 12
/** Of `atime` and `mtime` in fuse-native 2.2.6's fuse_thread_locals_t on a 64-bit machine. */
const ATIME_AT = 104
const MTIME_AT = 112
const TWO_32 = 0x1_0000_0000

/** A binding instance with the corrected handlers. */
export function makeFuse(
  Fuse: FuseNativeClass,
  mountpoint: string,
  operations: BindingOperations,
  own: OwnOperations,
  options: Record<string, unknown>,
): FuseNative {
  // Marked as implemented by being there; the handlers set below never call them.
  const marks = { fgetattr: true, getxattr: true, listxattr: true }
  const fuse = new Fuse(mountpoint, { ...operations, ...marks }, options)
  const getattr = fuse._op_getattr
  // index.js asks getattr with the path, which knows nothing of a dead handle.
  fuse._op_fgetattr = (signal, path, fh) =>
    own.fgetattr(path, fh, (errno, stat) => {
      if (errno < 0) signal(errno)
      else
        getattr.call({ ops: { getattr: (_: string, done: Done2) => done(0, stat) } }, signal, path)
    })
  // index.js checks no sizes: a longer value would be read from beyond libfuse's buffer.
  fuse._op_getxattr = (signal, path, name, target) =>
    own.getxattr(path, name, (errno, value) => answerBytes(signal, errno, value, target))
  fuse._op_listxattr = (signal, path, target) =>
    own.listxattr(path, (errno, value) => answerBytes(signal, errno, value, target))
  correctUtimens(fuse, operations)
  return fuse
}

type Done2 = (errno: number, stat?: BindingStat) => void

function answerBytes(
  signal: Signal,
  errno: number,
  value: Uint8Array | undefined,
  target: Buffer,
): void {
  if (errno < 0 || value === undefined) signal(errno, target.buffer)
  else if (target.length === 0) signal(value.length, target.buffer)
  else if (value.length > target.length) signal(ERANGE, target.buffer)
  else {
    target.set(value)
    signal(value.length, target.buffer)
  }
}

/**
 * The C code passes atime twice, but the handler gets the struct that both times are in. Unless the
 * atime found there is the one that was passed, this is another layout, and atime stands for both.
 */
function correctUtimens(fuse: FuseNative, operations: BindingOperations): void {
  const original = fuse._handlers[OP_UTIMENS]
  if (original === undefined) return
  let locals: Buffer | undefined
  fuse._op_utimens = (signal, path, low = 0, high = 0) => {
    const atime = signed(low, high)
    const known = locals !== undefined && milliseconds(locals, ATIME_AT) === atime
    const mtime = known && locals !== undefined ? milliseconds(locals, MTIME_AT) : atime
    operations.utimens(path, atime, mtime, (errno) => signal(errno))
  }
  fuse._handlers[OP_UTIMENS] = (buffer, ...rest) => {
    locals = buffer
    original(buffer, ...rest)
  }
}

function milliseconds(locals: Buffer, at: number): number {
  return locals.length < at + 8 ? Number.NaN : Number(locals.readBigInt64LE(at))
}

function signed(low: number, high: number): number {
  return low + (high | 0) * TWO_32
}

const UINT32_MAX = TWO_32 - 1

/** The binding truncates what is more than 32 bits, so counts are clamped. */
export function clamp(count: number): number {
  return Math.min(count, UINT32_MAX)
}

/** Times before 1970 do not fit: libfuse would read them as far in the future. */
function timeOf(seconds: number, nanoseconds: number): number {
  return Math.max(0, seconds * 1000 + Math.floor(nanoseconds / 1e6))
}

export function bindingStat(inode: Inode): BindingStat {
  const { mode, uid, gid, size, nlink, ino, rdev } = inode
  return {
    ...{ mode, uid, gid, size, nlink, ino, rdev },
    blksize: 4096,
    blocks: inode.blocks * 8,
    atime: timeOf(inode.atime, inode.atimeNs),
    mtime: timeOf(inode.mtime, inode.mtimeNs),
    ctime: timeOf(inode.ctime, inode.ctimeNs),
  }
}

export function optionString(
  options: FuseNativeOptions,
  readOnly: boolean,
): Record<string, unknown> {
  const quote = (text: string) => text.replace(/[\\,]/g, '\\$&')
  // The binding knows neither of the options behind the type, but hands the string on as it is.
  // use_ino: st_ino is ours, for the control socket. Without noforget, kernel_cache and auto_cache
  // every open drops the pages, which is what revocation stands on.
  const smuggled = ['holdfast', 'big_writes', 'use_ino', ...(options.flags ?? [])]
  if (readOnly) smuggled.push('ro')
  if (options.directIo) smuggled.push('direct_io', 'attr_timeout=0', 'entry_timeout=0')
  return {
    timeout: false,
    defaultPermissions: true,
    allowOther: options.allowOther ?? false,
    fsname: quote(options.fsname),
    subtype: smuggled.join(','),
  }
}

const WRITE: WriteOptions = { cached: false, killPrivileges: false, append: false }
const DIRECT_WRITE: WriteOptions = { ...WRITE, killPrivileges: true }

/**
 * The kernel drops suid and sgid before writes into its page cache only, and we are not told who
 * writes: with direct_io they go with every write.
 */
export function writeOptions(directIo: boolean): WriteOptions {
  return directIo ? DIRECT_WRITE : WRITE
}

const NAMES = ['mknod', 'mkdir', 'symlink', 'create', 'link', 'unlink', 'rmdir', 'rename']
const CONTENTS = ['truncate', 'ftruncate', 'utimens', 'chown', 'chmod', 'setxattr', 'removexattr']

/** Operations that are durable before they are answered; of writes the kernel says nothing here. */
export function durableOperations(flags: readonly MountFlag[] = []): ReadonlySet<string> {
  const durable = durableWith(flags)
  if (durable === 'everything') return new Set([...NAMES, ...CONTENTS, 'write'])
  return new Set(durable === 'names' ? NAMES : [])
}

const POLL_MS = 500

/**
 * The binding does not tell when the kernel lets go. The bdi of the connection lives as long as it
 * does, also when it was detached lazily; its inode tells it from a later one of the same number.
 */
export function watch(mountpoint: string): Promise<void> {
  const device = deviceOfMount(mountpoint)
  const bdi = `/sys/class/bdi/${device}/`
  const inode = existsSync(bdi) ? statSync(bdi).ino : undefined
  const there = () =>
    inode === undefined
      ? device !== undefined && deviceOfMount(mountpoint) === device
      : statSync(bdi, { throwIfNoEntry: false })?.ino === inode
  return new Promise((resolve) => {
    const timer = setInterval(() => {
      if (there()) return
      clearInterval(timer)
      resolve()
    }, POLL_MS)
  })
}

/** close() would unmount by a shell command; only what lets the event loop end is wanted. */
export function letGo(Fuse: FuseNativeClass, fuse: FuseNative): void {
  Fuse.unmount = (_mountpoint, done) => done(null)
  fuse.close(() => {})
}

/** The binding sends one number: the count, or the errno. */
export function answerCount(done: (errno: number, value?: number) => void) {
  return (errno: number, count?: number) => done(errno < 0 ? errno : (count ?? 0), count)
}

/** Far from now milliseconds are too coarse to tell what is left over. */
export function ms(time: number): { seconds: number; nanoseconds: number } {
  const seconds = Math.floor(time / 1000)
  const rest = Math.min(Math.max(0, time - seconds * 1000), 999)
  return { seconds, nanoseconds: rest * 1e6 }
}

export type NameOperation = 'mknod' | 'unlink' | 'rmdir' | 'mkdir' | 'rename' | 'link' | 'symlink'

/** Bytes that are no UTF-8 arrive as this: better an error than another file. */
export const REPLACED = '\ufffd'

export function requireText(path: string): void {
  if (path.includes(REPLACED)) throw new FsError(constants.errno.EILSEQ)
}
