/** What every operation works with: the request, the reply, the filesystem and the node table. */
import { EIO, ESTALE, FsError } from '../fs/errors.ts'
import type { FilesystemOperations, Inode, KernelCache } from '../fs/operations.ts'
import type { Channel, MapId } from '../native/binding.ts'
import { putEntry, type Words } from './attributes.ts'
import type { Durable } from './mount.ts'
import { NODE_FREE, NODE_LIVE, NodeTable } from './nodes.ts'
import type { CachePolicy } from './policy.ts'
import { opcodeName } from './protocol.ts'
import { ENTRY_OUT } from './reply-structs.ts'
import { Request } from './request.ts'

/**
 * What a transport needs to know of the region: the addon's mapping, if replies can come from it.
 */
export interface RegionView {
  readonly mapId: MapId | undefined
}

/**
 * Attributes of a healthy inode changed in a way the kernel does not expect; resolves when it
 * knows.
 */
export type AttributesChanged = (ino: number) => Promise<void>

const NOTHING = new Uint8Array(0)

/** What must be durable before the current request is answered. */
export type Awaits = 'nothing' | 'data' | 'everything'

export class Session {
  readonly fs: FilesystemOperations
  readonly channel: Channel
  readonly policy: CachePolicy
  readonly mapId: MapId | undefined
  readonly nodes = new NodeTable()
  readonly request: Request
  /** The reply's payload, as bytes and as words. */
  readonly payload: Uint8Array
  readonly out: Words
  /** Set by the transport once notifications can be sent. */
  attributesChanged: AttributesChanged = () => Promise.resolve()
  /** Likewise: the kernel drops its pages of a range of an inode, and sends us dirty ones first. */
  dropPages: KernelCache['invalidate'] = () => Promise.resolve()
  /** Names were moved while the kernel knows retired nodes; set with attributesChanged. */
  nameMoved: (parent: number, name: Uint8Array) => void = () => {}
  /**
   * Handles requests that wait for a thaw once more. Not to be called while one is being handled.
   */
  retryPostponed: () => void = () => {}
  /** Told of failures that are bugs, ours or the filesystem's. */
  bug: (error: unknown, operation: string) => void = () => {}
  /** Wire log; undefined when it is off. */
  trace: ((line: string) => void) | undefined
  awaits: Awaits = 'nothing'
  readonly durable: Durable
  /** True once the current request has been answered, or its answer has been promised. */
  answered = false
  /** For the wire log: bytes of the answer, or a negative errno. */
  result = 0
  #open = true

  constructor(
    fs: FilesystemOperations,
    channel: Channel,
    policy: CachePolicy,
    region: RegionView,
    durable: Durable = 'nothing',
  ) {
    this.fs = fs
    this.channel = channel
    this.policy = policy
    this.mapId = region.mapId
    this.durable = durable
    this.request = new Request(channel.request)
    this.payload = channel.payload
    this.out = new Uint32Array(
      channel.payload.buffer,
      channel.payload.byteOffset,
      channel.payload.byteLength >>> 2,
    )
  }

  /** Answers with payload[0, length). */
  ok(length: number): void {
    if (this.awaits !== 'nothing') {
      this.park(Promise.resolve(), this.payload.slice(0, length))
      return
    }
    this.answered = true
    this.result = length
    if (this.#open) this.channel.reply(this.request.unique, 0, length)
  }

  fail(errno: number): void {
    this.answered = true
    this.result = -errno
    if (this.#open) this.channel.reply(this.request.unique, errno, 0)
  }

  /** Answers when `promise` is settled; other requests go on meanwhile. */
  park(promise: Promise<unknown>, answer: Uint8Array = NOTHING): void {
    this.answered = true
    this.result = answer.length
    const { unique, opcode } = this.request
    Promise.all([promise, this.#durable()]).then(
      () => this.#late(unique, 0, answer),
      (error: unknown) => this.#late(unique, this.errnoOf(error, opcodeName(opcode)), NOTHING),
    )
  }

  async #durable(): Promise<void> {
    if (this.awaits === 'nothing') return
    await this.fs.fsync(this.request.ino, this.awaits === 'data')
  }

  #late(unique: number, errno: number, answer: Uint8Array): void {
    if (this.#open) this.channel.replyWith(unique, errno, answer)
  }

  errnoOf(error: unknown, operation: string): number {
    if (error instanceof FsError) return error.errno
    this.bug(error, operation)
    return EIO
  }

  /** The connection is gone: nobody waits for an answer any more. */
  close(): void {
    this.#open = false
    this.nodes.clear((ino, lookups) => {
      try {
        this.fs.forget(ino, lookups)
      } catch (error) {
        this.errnoOf(error, 'FORGET')
      }
    })
  }

  /** The inode of another nodeid in the request's arguments. */
  inoAt(at: number): number {
    const low = this.request.u32(at)
    const state = this.nodes.state(low, this.request.u32(at + 4))
    if (state === NODE_FREE) throw new FsError(ESTALE)
    if (state !== NODE_LIVE) throw new FsError(EIO)
    return this.nodes.inoOf(low)
  }

  /** Writes fuse_entry_out for an inode that was just looked up or made. */
  putEntry(at: number, inode: Inode): void {
    const slot = this.nodes.remember(inode.ino)
    putEntry(this.out, at, slot, this.nodes.high(slot), this.policy.valid, inode)
  }

  entry(inode: Inode): void {
    this.putEntry(0, inode)
    this.ok(ENTRY_OUT.size)
  }
}
