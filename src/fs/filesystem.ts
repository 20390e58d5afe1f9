/**
 * The mounted filesystem: implements what transports ask (operations.ts). Every method is one
 * operation: it calls the part that does the work and keeps memory failures inside (volume.guard).
 * What the control socket asks is `administration`.
 */
import type { DaxDevice } from '../dax/device.ts'
import { notifyFailure } from '../dax/holder.ts'
import { BLOCK_SIZE } from '../media/geometry.ts'
import { Administrator } from './administrator.ts'
import * as attributes from './attributes.ts'
import { directory, lookup, readdir } from './directory.ts'
import { EBADF, EINVAL, EIO, ENOENT, FsError } from './errors.ts'
import { locate, seek, touchAtime } from './file-read.ts'
import * as space from './file-space.ts'
import { write } from './file-write.ts'
import type { Handle } from './handles.ts'
import type { CachedInode } from './inode-cache.ts'
import { directoryNode, fileNode, link, makeNode, type NewInode, symlinkNode } from './make.ts'
import { closeVolume, failedWhileMounting, mountError, openVolume } from './mount.ts'
import { create, open, tmpfile } from './open.ts'
import {
  type AttributeChanges,
  type Caller,
  type DirectoryEntry,
  type FilesystemOperations,
  type Inode,
  type KernelCache,
  type Pieces,
  ROOT_INODE,
  type Statfs,
  type WriteOptions,
} from './operations.ts'
import { rename } from './rename.ts'
import { Revocations } from './revocations.ts'
import { Services } from './services.ts'
import { statfs } from './statfs.ts'
import { rmdir, unlink } from './unlink.ts'
import type { Volume, VolumeOptions } from './volume.ts'

export class Filesystem implements FilesystemOperations {
  readonly volume: Volume
  readonly administration: Administrator
  readonly #services: Services

  private constructor(volume: Volume) {
    this.volume = volume
    this.#services = new Services(volume)
    this.administration = new Administrator(volume, this.#services)
  }

  /** Loads the index, replays the journal, marks the region dirty. The device must be claimed. */
  static mount(device: DaxDevice, options: VolumeOptions): Filesystem {
    const filesystem = new Filesystem(openVolume(device, options))
    const { failure, orphans, checkpoints } = filesystem.#services
    device.holderOps = failure
    try {
      orphans.considerAll()
      tellKnown(device, filesystem.volume)
      if (!options.readOnly) checkpoints.dropKnown()
      checkpoints.open()
      if (filesystem.volume.needsCheckpoint) checkpoints.runNow()
      return filesystem
    } catch (error) {
      device.holderOps = undefined
      filesystem.volume.index.close()
      throw mountError(device, error, filesystem.volume.imageOffset)
    }
  }

  /**
   * Final checkpoint; the region is clean when it resolves. After a shutdown nothing is written.
   * INVARIANT: what fails is heard until no await is left, so the caller releases the device in the
   * turn in which this resolves or rejects.
   */
  async unmount(): Promise<void> {
    this.volume.emit({ event: 'unmount', time: this.volume.timestamp() })
    try {
      await this.#services.settle()
      for (const handle of [...this.volume.handles.all()]) this.release(handle)
      this.volume.lookups.clear()
      this.#services.finish()
    } catch (error) {
      this.volume.index.close()
      throw error
    } finally {
      // The index is not to be asked any more.
      this.volume.device.holderOps = undefined
      this.#services.commits.stop()
    }
    closeVolume(this.volume)
  }

  get readOnly(): boolean {
    return this.volume.options.readOnly
  }

  attach(cache: KernelCache): void {
    this.volume.cache = new Revocations(cache)
  }

  memoryFailed(offset: number): void {
    this.volume.memoryFailed(offset, BLOCK_SIZE)
  }

  thawed(): Promise<void> {
    return this.#services.freeze.thawed()
  }

  // --- names -------------------------------------------------------------------------------------

  lookup(parent: number, name: Uint8Array): Inode {
    return this.volume.guard(() => {
      const ino = lookup(this.volume, parent, name)
      if (ino === 0) throw new FsError(ENOENT)
      return this.#retain(this.volume.inode(ino))
    })
  }

  forget(ino: number, count: number): void {
    if (!this.volume.lookups.forget(ino, count)) return
    this.volume.guardQuietly(() => this.#services.orphans.forgotten(ino))
  }

  mknod(parent: number, name: Uint8Array, mode: number, rdev: number, caller: Caller): Inode {
    return this.#make(parent, name, fileNode(mode, rdev), caller)
  }

  mkdir(parent: number, name: Uint8Array, mode: number, caller: Caller): Inode {
    return this.#make(parent, name, directoryNode(mode), caller)
  }

  symlink(parent: number, name: Uint8Array, target: Uint8Array, caller: Caller): Inode {
    return this.#make(parent, name, symlinkNode(target), caller)
  }

  link(ino: number, parent: number, name: Uint8Array): Inode {
    return this.volume.change(() => this.#retain(link(this.volume, ino, parent, name)))
  }

  unlink(parent: number, name: Uint8Array): number {
    return this.volume.change(() => {
      const { ino } = unlink(this.volume, parent, name).row
      this.#services.orphans.consider(ino)
      return ino
    })
  }

  rmdir(parent: number, name: Uint8Array): number {
    return this.volume.change(() => {
      const { ino } = rmdir(this.volume, parent, name).row
      this.#services.orphans.consider(ino)
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
    this.volume.change(() => {
      const lost = rename(this.volume, parent, name, newParent, newName, flags)
      if (lost !== undefined) this.#services.orphans.consider(lost.row.ino)
    })
  }

  readlink(ino: number): Uint8Array {
    const { target } = this.#inode(ino)
    if (target === null) throw new FsError(EINVAL)
    return target
  }

  // --- attributes --------------------------------------------------------------------------------

  /** The root answers even after a shutdown: umount needs it. */
  getattr(ino: number): Inode {
    if (ino !== ROOT_INODE) return this.#inode(ino)
    const root = this.volume.guard(() => this.volume.inodes.find(ROOT_INODE))
    if (root === undefined) throw new FsError(EIO)
    return root.row
  }

  setattr(ino: number, changes: AttributeChanges, caller: Caller, handle?: Handle): Inode {
    return this.volume.change(() => {
      if (handle?.dead) throw new FsError(EIO)
      const inode = this.volume.inode(ino)
      attributes.setattr(this.volume, inode, changes, caller.uid === 0)
      return inode.row
    })
  }

  getxattr(ino: number, name: Uint8Array): Uint8Array {
    return this.volume.guard(() => {
      return attributes.getxattr(this.volume, this.volume.inode(ino), name)
    })
  }

  setxattr(
    ino: number,
    name: Uint8Array,
    value: Uint8Array,
    flags: number,
    killSgid: boolean,
  ): void {
    this.volume.change(() => {
      const inode = this.volume.inode(ino)
      attributes.setxattr(this.volume, inode, name, value, flags, killSgid)
    })
  }

  listxattr(ino: number): Uint8Array[] {
    return this.volume.guard(() => {
      this.volume.inode(ino)
      return this.volume.index.xattrs.list(ino)
    })
  }

  removexattr(ino: number, name: Uint8Array): void {
    this.volume.change(() => attributes.removexattr(this.volume, this.volume.inode(ino), name))
  }

  statfs(): Statfs {
    return statfs(this.volume)
  }

  // --- handles -----------------------------------------------------------------------------------

  create(parent: number, name: Uint8Array, mode: number, flags: number, caller: Caller): Handle {
    return this.volume.change(() => create(this.volume, parent, name, mode, flags, caller))
  }

  tmpfile(parent: number, mode: number, flags: number, caller: Caller): Handle {
    return this.volume.change(() => tmpfile(this.volume, parent, mode, flags, caller))
  }

  open(ino: number, flags: number, killPrivileges: boolean): Handle {
    return this.volume.guard(() => open(this.volume, ino, flags, killPrivileges))
  }

  opendir(ino: number): Handle {
    const { row } = this.volume.guard(() => directory(this.volume, ino))
    return this.volume.handles.open(row.ino, 0, true)
  }

  handle(id: number): Handle {
    return this.volume.handles.get(id)
  }

  release(handle: Handle): void {
    if (!this.volume.handles.close(handle)) return
    this.volume.guardQuietly(() => {
      const inode = this.volume.inodes.find(handle.ino)
      if (inode !== undefined) this.volume.allocator.releaseWindow(inode)
      this.#services.orphans.consider(handle.ino)
    })
  }

  // --- data --------------------------------------------------------------------------------------

  read(handle: Handle, offset: number, length: number, pieces: Pieces): number {
    const inode = this.#file(handle)
    const bytes = this.volume.guard(() => locate(this.volume, inode, offset, length, pieces))
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
    // Their revocation waits for these pages, so they cannot wait for the thaw.
    if (handle.dead && this.volume.frozen) throw new FsError(EIO)
    this.volume.requireThawed()
    this.volume.requireWritable()
    return this.volume.guard(() => {
      attributes.dropPrivileges(this.volume, inode, options)
      const at = options.append ? inode.row.size : offset
      return write(this.volume, inode, at, source, sourceOffset, length)
    })
  }

  fallocate(handle: Handle, mode: number, offset: number, length: number): void {
    const inode = this.#file(handle)
    this.volume.change(() => space.fallocate(this.volume, inode, mode, offset, length))
  }

  seek(handle: Handle, offset: number, whence: number): number {
    return this.volume.guard(() => seek(this.volume, this.#file(handle), offset, whence))
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
    return this.volume.change(() => {
      const copied = space.copyRange(this.volume, source, fromOffset, target, toOffset, length)
      if (copied > 0) touchAtime(this.volume, source)
      return copied
    })
  }

  readdir(handle: Handle, cookie: number, emit: (entry: DirectoryEntry) => boolean): void {
    if (handle.dead) throw new FsError(EIO)
    this.volume.guard(() => {
      readdir(this.volume, directory(this.volume, handle.ino), cookie, emit)
    })
  }

  async fsync(ino: number, dataOnly: boolean): Promise<void> {
    const inode = this.volume.inode(ino)
    if (this.readOnly) return
    this.volume.guard(() => this.#services.commits.prepareInode(inode, dataOnly))
    await this.#services.commits.commitPrepared()
    this.volume.requireAlive()
  }

  // --- inside ------------------------------------------------------------------------------------

  #inode(ino: number): Inode {
    return this.volume.guard(() => this.volume.inode(ino)).row
  }

  #retain(inode: CachedInode): Inode {
    this.volume.lookups.add(inode.row.ino)
    return inode.row
  }

  #make(parent: number, name: Uint8Array, wanted: NewInode, caller: Caller): Inode {
    return this.volume.change(() =>
      this.#retain(makeNode(this.volume, parent, name, wanted, caller)),
    )
  }

  #file(handle: Handle): CachedInode {
    if (handle.dead) throw new FsError(EIO)
    if (handle.directory) throw new FsError(EBADF)
    return this.volume.inode(handle.ino)
  }
}

/** What was bad before anybody held the device (the list of bad blocks): the same consequences. */
function tellKnown(device: DaxDevice, volume: Volume): void {
  for (const { offset, length } of device.badRanges.list()) notifyFailure(device, offset, length, 0)
  if (volume.shutdown !== undefined) throw failedWhileMounting(device, volume.shutdown.offset)
}
