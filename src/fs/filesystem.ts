/**
 * The mounted filesystem: one object that a transport, the control socket and the device talk to.
 * Every method is one operation: it checks, calls the part that does the work, and keeps memory
 * failures inside (volume.guard).
 */
import type { DaxDevice } from '../dax/device.ts'
import type { HolderOperations } from '../dax/holder.ts'
import { BLOCK_SIZE } from '../media/geometry.ts'
import type {
  Administration,
  FileMap,
  FilesystemEvent,
  InjectRequest,
  InjectResult,
  RmapRow,
  Status,
} from './administration.ts'
import * as attributes from './attributes.ts'
import { type CheckpointResult, Checkpoints } from './checkpoints.ts'
import { Commits } from './commits.ts'
import { EBADF, EEXIST, EINVAL, EIO, EISDIR, ENOENT, FrozenError, FsError } from './errors.ts'
import { FailurePolicy } from './failure.ts'
import { locate, seek, touchAtime } from './file-read.ts'
import * as space from './file-space.ts'
import { write } from './file-write.ts'
import { Freeze } from './freeze.ts'
import type { Handle } from './handles.ts'
import type { CachedInode } from './inode-cache.ts'
import { isDirectory, isRegular, PERMISSIONS, S_IFMT, S_IFREG } from './modes.ts'
import { closeVolume, openVolume } from './mount.ts'
import * as namespace from './namespace.ts'
import { NAME_MAX } from './namespace.ts'
import type {
  AttributeChanges,
  Caller,
  DirectoryEntry,
  FilesystemOperations,
  Inode,
  KernelCache,
  Pieces,
  Statfs,
  WriteOptions,
} from './operations.ts'
import { ROOT_INODE } from './operations.ts'
import { Operator } from './operator.ts'
import { Orphans } from './orphans.ts'
import type { Volume, VolumeOptions } from './volume.ts'

const O_EXCL = 0o200
const O_TRUNC = 0o1000
const O_ACCMODE = 3

export class Filesystem implements FilesystemOperations, Administration, HolderOperations {
  readonly volume: Volume
  readonly #orphans: Orphans
  readonly #checkpoints: Checkpoints
  readonly #commits: Commits
  readonly #failure: FailurePolicy
  readonly #operator: Operator
  readonly #freeze: Freeze

  private constructor(volume: Volume) {
    this.volume = volume
    this.#orphans = new Orphans(volume)
    this.#checkpoints = new Checkpoints(volume)
    this.#failure = new FailurePolicy(volume, this.#checkpoints)
    this.#commits = new Commits(volume, (error) => this.#commitFailed(error as Error))
    this.#freeze = new Freeze(volume, this.#commits)
    this.#operator = new Operator(volume, this.#failure)
    volume.hooks = {
      dirtied: () => {
        this.#commits.arm()
        this.#checkpoints.startIfNeeded()
      },
      makeSpace: () => this.#makeSpace(),
      makeJournalRoom: () => this.#checkpoints.runNow(),
      reserveImage: (freesSpace) => this.#checkpoints.reserveImage(freesSpace),
      checkpointFailed: (error) => this.#commitFailed(error),
    }
  }

  /** Loads the index, replays the journal, marks the region dirty. The device must be claimed. */
  static mount(device: DaxDevice, options: VolumeOptions): Filesystem {
    const filesystem = new Filesystem(openVolume(device, options))
    device.holderOps = filesystem
    for (const ino of filesystem.volume.index.inodes.orphans()) filesystem.#orphans.consider(ino)
    return filesystem
  }

  /**
   * Final checkpoint; the region is clean when it resolves. After a shutdown nothing is written.
   */
  async unmount(): Promise<void> {
    this.#commits.stop()
    this.volume.emit({ event: 'unmount', time: this.volume.timestamp() })
    await this.#checkpoints.idle()
    for (const handle of [...this.volume.handles.all()]) this.release(handle)
    this.volume.lookups.clear()
    if (this.volume.shutdown === undefined && !this.volume.options.readOnly) {
      this.volume.frozen = false
      this.volume.guard(() => {
        this.#orphans.considerAll()
        this.#orphans.reap()
        this.#commits.writeTimes()
        this.#checkpoints.runNow()
      })
    }
    this.#commits.stop()
    closeVolume(this.volume)
  }

  // --- HolderOperations -----------------------------------------------------------------------

  notifyFailure(_device: DaxDevice, offset: number, length: number, flags: number): number {
    return this.#failure.notify(offset, length, flags)
  }

  attach(cache: KernelCache): void {
    this.#failure.cache = cache
    this.#operator.cache = cache
  }

  memoryFailed(offset: number): void {
    this.volume.memoryFailed(offset, BLOCK_SIZE)
  }

  // --- FilesystemOperations: names ------------------------------------------------------------

  get readOnly(): boolean {
    return this.volume.options.readOnly
  }

  lookup(parent: number, name: Uint8Array): Inode {
    const ino = namespace.resolve(this.volume, parent, name)
    if (ino === 0) throw new FsError(ENOENT)
    return this.#retain(this.volume.inode(ino)).row
  }

  forget(ino: number, count: number): void {
    const { lookups } = this.volume
    const left = (lookups.get(ino) ?? 0) - count
    if (left > 0) {
      lookups.set(ino, left)
      return
    }
    lookups.delete(ino)
    this.#orphans.consider(ino)
  }

  mknod(parent: number, name: Uint8Array, mode: number, rdev: number, caller: Caller): Inode {
    const type = mode & S_IFMT
    const wanted = {
      mode: (type === 0 ? S_IFREG : type) | (mode & PERMISSIONS),
      rdev,
      target: null,
    }
    return this.#make(parent, name, wanted, caller)
  }

  mkdir(parent: number, name: Uint8Array, mode: number, caller: Caller): Inode {
    return this.#make(parent, name, namespace.directoryNode(mode), caller)
  }

  symlink(parent: number, name: Uint8Array, target: Uint8Array, caller: Caller): Inode {
    return this.#make(parent, name, namespace.symlinkNode(target), caller)
  }

  link(ino: number, parent: number, name: Uint8Array): Inode {
    return this.#change(() => this.#retain(namespace.link(this.volume, ino, parent, name)).row)
  }

  unlink(parent: number, name: Uint8Array): number {
    return this.#change(() => {
      const { ino } = namespace.unlink(this.volume, parent, name).row
      this.#orphans.consider(ino)
      return ino
    })
  }

  rmdir(parent: number, name: Uint8Array): number {
    return this.#change(() => {
      const { ino } = namespace.rmdir(this.volume, parent, name).row
      this.#orphans.consider(ino)
      return ino
    })
  }

  rename(
    parent: number,
    name: Uint8Array,
    newParent: number,
    newName: Uint8Array,
    flags: number,
  ): void {
    this.#change(() => {
      const lost = namespace.rename(this.volume, parent, name, newParent, newName, flags)
      if (lost !== undefined) this.#orphans.consider(lost.row.ino)
    })
  }

  readlink(ino: number): Uint8Array {
    const { target } = this.volume.inode(ino).row
    if (target === null) throw new FsError(EINVAL)
    return target
  }

  // --- FilesystemOperations: attributes -------------------------------------------------------

  /** The root answers even after a shutdown: umount needs it. */
  getattr(ino: number): Inode {
    if (ino !== ROOT_INODE) return this.volume.inode(ino).row
    const root = this.volume.inodes.find(ROOT_INODE)
    if (root === undefined) throw new FsError(EIO)
    return root.row
  }

  setattr(ino: number, changes: AttributeChanges, _caller: Caller, handle?: Handle): Inode {
    return this.#change(() => {
      if (handle?.dead) throw new FsError(EIO)
      const inode = this.volume.inode(ino)
      attributes.setattr(this.volume, inode, changes)
      return inode.row
    })
  }

  getxattr(ino: number, name: Uint8Array): Uint8Array {
    return attributes.getxattr(this.volume, this.volume.inode(ino), name)
  }

  setxattr(
    ino: number,
    name: Uint8Array,
    value: Uint8Array,
    flags: number,
    killSgid: boolean,
  ): void {
    this.#change(() => {
      const inode = this.volume.inode(ino)
      attributes.setxattr(this.volume, inode, name, value, flags, killSgid)
    })
  }

  listxattr(ino: number): Uint8Array[] {
    this.volume.inode(ino)
    return this.volume.index.xattrs.list(ino)
  }

  removexattr(ino: number, name: Uint8Array): void {
    this.#change(() => attributes.removexattr(this.volume, this.volume.inode(ino), name))
  }

  statfs(): Statfs {
    const { allocator, geometry, inodeCount } = this.volume
    const free = allocator.freeBlocks
    // An inode costs index space, not a slot in a table: what is free bounds it loosely.
    const filesFree = free * 8
    return {
      blockSize: BLOCK_SIZE,
      blocks: geometry.dataEndBlock - geometry.dataStartBlock,
      free,
      available: free,
      files: inodeCount + filesFree,
      filesFree,
      nameMax: NAME_MAX,
    }
  }

  // --- FilesystemOperations: handles ----------------------------------------------------------

  create(parent: number, name: Uint8Array, mode: number, flags: number, caller: Caller): Handle {
    return this.#change(() => {
      const existing = namespace.resolve(this.volume, parent, name)
      if (existing === 0) {
        const wanted = { mode: S_IFREG | (mode & PERMISSIONS), rdev: 0, target: null }
        const inode = namespace.makeNode(this.volume, parent, name, wanted, caller)
        return this.volume.handles.open(this.#retain(inode).row.ino, flags, false)
      }
      if ((flags & O_EXCL) !== 0) throw new FsError(EEXIST)
      const handle = this.open(existing, flags, false)
      this.#retain(this.volume.inode(existing))
      return handle
    })
  }

  tmpfile(parent: number, mode: number, flags: number, caller: Caller): Handle {
    return this.#change(() => {
      const wanted = S_IFREG | (mode & PERMISSIONS)
      const inode = this.#retain(namespace.makeUnnamed(this.volume, parent, wanted, caller))
      return this.volume.handles.open(inode.row.ino, flags, false)
    })
  }

  open(ino: number, flags: number, killPrivileges: boolean): Handle {
    const inode = this.volume.inode(ino)
    if (isDirectory(inode.row.mode)) throw new FsError(EISDIR)
    if ((flags & O_ACCMODE) !== 0) this.volume.requireWritable()
    if ((flags & O_TRUNC) !== 0 && isRegular(inode.row.mode)) {
      this.#change(() => attributes.setattr(this.volume, inode, { size: 0, killPrivileges }))
    }
    return this.volume.handles.open(ino, flags, false)
  }

  opendir(ino: number): Handle {
    return this.volume.handles.open(namespace.directory(this.volume, ino).row.ino, 0, true)
  }

  handle(id: number): Handle {
    return this.volume.handles.get(id)
  }

  release(handle: Handle): void {
    if (!this.volume.handles.close(handle)) return
    const inode = this.volume.inodes.find(handle.ino)
    if (inode !== undefined) this.volume.allocator.releaseWindow(inode)
    this.#orphans.consider(handle.ino)
  }

  // --- FilesystemOperations: data -------------------------------------------------------------

  read(handle: Handle, offset: number, length: number, pieces: Pieces): number {
    const inode = this.#file(handle)
    const bytes = locate(this.volume, inode, offset, length, pieces)
    if (bytes > 0) touchAtime(this.volume, inode)
    return bytes
  }

  readInto(
    handle: Handle,
    offset: number,
    target: Uint8Array,
    targetOffset: number,
    length: number,
  ): number {
    const inode = this.#file(handle)
    touchAtime(this.volume, inode)
    return this.volume.guard(() =>
      space.readInto(this.volume, inode, offset, target, targetOffset, length),
    )
  }

  write(
    handle: Handle,
    offset: number,
    source: Uint8Array,
    sourceOffset: number,
    length: number,
    options: WriteOptions,
  ): number {
    // Pages written back while a killed file is being revoked still hold healthy data.
    const inode = options.cached ? this.volume.inode(handle.ino) : this.#file(handle)
    this.#requireThawed()
    this.volume.requireWritable()
    return this.volume.guard(() => {
      if (options.killPrivileges && attributes.needsPrivilegesKilled(inode)) {
        this.volume.transact((transaction) => {
          attributes.killPrivileges(this.volume, transaction, inode)
        })
      }
      const at = options.append ? inode.row.size : offset
      return write(this.volume, inode, at, source, sourceOffset, length)
    })
  }

  fallocate(handle: Handle, mode: number, offset: number, length: number): void {
    const inode = this.#file(handle)
    this.#change(() => space.fallocate(this.volume, inode, mode, offset, length))
  }

  seek(handle: Handle, offset: number, whence: number): number {
    return seek(this.volume, this.#file(handle), offset, whence)
  }

  copyFileRange(
    from: Handle,
    fromOffset: number,
    to: Handle,
    toOffset: number,
    length: number,
  ): number {
    const source = this.#file(from)
    const target = this.#file(to)
    return this.#change(() =>
      space.copyRange(this.volume, source, fromOffset, target, toOffset, length),
    )
  }

  readdir(handle: Handle, cookie: number, emit: (entry: DirectoryEntry) => boolean): void {
    if (handle.dead) throw new FsError(EIO)
    const dir = namespace.directory(this.volume, handle.ino)
    namespace.readdir(this.volume, dir, cookie, emit)
  }

  async fsync(ino: number, dataOnly: boolean): Promise<void> {
    const inode = this.volume.inode(ino)
    if (this.readOnly) return
    for (const handle of this.volume.handles.ofInode(ino)) if (handle.dead) throw new FsError(EIO)
    this.volume.guard(() => this.#commits.prepareInode(inode, dataOnly))
    await this.#commits.commitPrepared()
    this.volume.requireAlive()
  }

  // --- Administration -------------------------------------------------------------------------

  status(): Omit<Status, 'mountpoint' | 'transport' | 'holder' | 'region'> {
    return this.#operator.status()
  }

  getmap(inode: number): FileMap {
    return this.#operator.getmap(inode)
  }

  rmap(offset: number, length: number, limit: number): RmapRow[] {
    return this.#operator.rmap(offset, length, limit)
  }

  inject(request: InjectRequest): InjectResult {
    return this.#operator.inject(request)
  }

  clearPoison(range: { offset: number; length: number } | 'all'): number {
    return this.#change(() => this.#operator.clearPoison(range))
  }

  freeze(): Promise<void> {
    return this.#freeze.freeze()
  }

  thaw(): void {
    this.#freeze.thaw()
  }

  shutdown(reason: string): void {
    this.#failure.shutdown('forced', reason, 0, [])
    this.#freeze.thaw()
  }

  async checkpoint(): Promise<CheckpointResult> {
    this.volume.requireWritable()
    this.volume.guard(() => this.#commits.writeTimes())
    return this.#checkpoints.run()
  }

  subscribe(listener: (event: FilesystemEvent) => void): () => void {
    return this.volume.subscribe(listener)
  }

  thawed(): Promise<void> {
    return this.#freeze.thawed()
  }

  // --- inside ---------------------------------------------------------------------------------

  #retain(inode: CachedInode): CachedInode {
    const { ino } = inode.row
    this.volume.lookups.set(ino, (this.volume.lookups.get(ino) ?? 0) + 1)
    return inode
  }

  #make(parent: number, name: Uint8Array, wanted: namespace.NewInode, caller: Caller): Inode {
    return this.#change(
      () => this.#retain(namespace.makeNode(this.volume, parent, name, wanted, caller)).row,
    )
  }

  #file(handle: Handle): CachedInode {
    if (handle.dead) throw new FsError(EIO)
    if (handle.directory) throw new FsError(EBADF)
    return this.volume.inode(handle.ino)
  }

  #requireThawed(): void {
    this.volume.requireAlive()
    if (this.volume.frozen) throw new FrozenError()
  }

  #change<T>(operation: () => T): T {
    this.#requireThawed()
    return this.volume.guard(operation)
  }

  /** Space that only waits: unlinked files not freed yet, freed blocks not durable yet. */
  #makeSpace(): boolean {
    const reaped = this.#orphans.reap()
    if (this.volume.allocator.pendingBlocks === 0) return reaped
    this.volume.commitNow()
    return true
  }

  #commitFailed(error: Error): void {
    const sentence = `what was written cannot be made durable: ${error.message}`
    this.#failure.shutdown('io-error', sentence, 0, [])
  }
}
