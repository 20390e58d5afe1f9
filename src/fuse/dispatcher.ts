/** From request to answer: one flat table, one place where errors become errnos. */
import { constants } from 'node:os'
import { EINTR, EIO, ENOENT, ENOSYS, ESTALE, FrozenError, FsError } from '../fs/errors.ts'
import { putNegativeEntry } from './attributes.ts'
import { opendir, readdir, readdirplus } from './directories.ts'
import * as files from './files.ts'
import * as metadata from './metadata.ts'
import * as namespace from './namespace.ts'
import { type Negotiated, negotiate } from './negotiate.ts'
import { NODE_FREE, NODE_LIVE, NODE_REVOKING } from './nodes.ts'
import { OPCODE_COUNT, Opcode, opcodeName, WRITE_CACHE } from './protocol.ts'
import { ENTRY_OUT } from './reply-structs.ts'
import { INTERRUPT_IN, WRITE_IN } from './request-structs.ts'
import { lseek } from './seek.ts'
import type { Awaits, Session } from './session.ts'
import { describe } from './wire-log.ts'

const { ENOTTY } = constants.errno

type Operation = (session: Session) => void

interface Entry {
  readonly run: Operation
  /** False: the operation does not care about the request's nodeid. */
  readonly node: boolean
  readonly awaits: Awaits
}

const refuse = (errno: number): Operation => {
  return () => {
    throw new FsError(errno)
  }
}

const done: Operation = (session) => session.ok(0)
/** The whole filesystem; only kernels that were asked to send it. */
const syncfs: Operation = (session) => session.park(session.fs.fsync(session.request.ino, false))

/**
 * Operations on the request's inode. What is missing answers ENOSYS; the kernel then asks no more.
 */
const ON_NODE: readonly (readonly [number, Operation])[] = [
  [Opcode.LOOKUP, namespace.lookup],
  [Opcode.GETATTR, metadata.getattr],
  [Opcode.SETATTR, metadata.setattr],
  [Opcode.READLINK, namespace.readlink],
  [Opcode.SYMLINK, namespace.symlink],
  [Opcode.MKNOD, namespace.mknod],
  [Opcode.MKDIR, namespace.mkdir],
  [Opcode.UNLINK, namespace.unlink],
  [Opcode.RMDIR, namespace.rmdir],
  [Opcode.RENAME, namespace.rename],
  [Opcode.LINK, namespace.link],
  [Opcode.OPEN, files.open],
  [Opcode.READ, files.read],
  [Opcode.WRITE, files.write],
  [Opcode.FSYNC, files.fsync],
  [Opcode.SETXATTR, metadata.setxattr],
  [Opcode.GETXATTR, metadata.getxattr],
  [Opcode.LISTXATTR, metadata.listxattr],
  [Opcode.REMOVEXATTR, metadata.removexattr],
  [Opcode.OPENDIR, opendir],
  [Opcode.READDIR, readdir],
  [Opcode.FSYNCDIR, files.fsync],
  [Opcode.CREATE, files.create],
  [Opcode.IOCTL, refuse(ENOTTY)],
  [Opcode.FALLOCATE, files.fallocate],
  [Opcode.READDIRPLUS, readdirplus],
  [Opcode.RENAME2, namespace.rename2],
  [Opcode.LSEEK, lseek],
  [Opcode.COPY_FILE_RANGE, files.copyFileRange],
  [Opcode.SYNCFS, syncfs],
  [Opcode.TMPFILE, files.tmpfile],
  [Opcode.STATX, metadata.statx],
  [Opcode.COPY_FILE_RANGE_64, files.copyFileRange64],
]

/** Operations that work whatever has become of the node, or have none. */
const ALWAYS: readonly (readonly [number, Operation])[] = [
  [Opcode.FORGET, namespace.forget],
  [Opcode.BATCH_FORGET, namespace.batchForget],
  [Opcode.STATFS, metadata.statfs],
  [Opcode.RELEASE, files.release],
  [Opcode.RELEASEDIR, files.release],
  [Opcode.DESTROY, done],
]

/** What `-o dirsync` makes durable before it is answered; the kernel leaves that to us. */
const NAMES = new Set<number>([
  ...[Opcode.SYMLINK, Opcode.MKNOD, Opcode.MKDIR, Opcode.CREATE, Opcode.LINK],
  ...[Opcode.UNLINK, Opcode.RMDIR, Opcode.RENAME, Opcode.RENAME2],
])
/** What `-o sync` adds; of writes the kernel says so itself, and OPEN knows whether it truncates. */
const CONTENTS = new Set<number>([
  ...[Opcode.SETATTR, Opcode.SETXATTR, Opcode.REMOVEXATTR, Opcode.TMPFILE],
  ...[Opcode.FALLOCATE, Opcode.COPY_FILE_RANGE, Opcode.COPY_FILE_RANGE_64],
])

function table({ durable }: Session): (Entry | undefined)[] {
  const awaits = (opcode: number): Awaits => {
    const names = durable !== 'nothing' && NAMES.has(opcode)
    const contents = durable === 'everything' && CONTENTS.has(opcode)
    return names || contents ? 'everything' : 'nothing'
  }
  const entries = new Array<Entry | undefined>(OPCODE_COUNT).fill(undefined)
  for (const [opcode, run] of ON_NODE) entries[opcode] = { run, node: true, awaits: awaits(opcode) }
  for (const [opcode, run] of ALWAYS) entries[opcode] = { run, node: false, awaits: 'nothing' }
  return entries
}

/** A request that waits for the thaw. */
interface Postponed {
  readonly unique: number
  readonly bytes: Uint8Array
}

const NOTHING = new Uint8Array(0)

export class Dispatcher {
  readonly #session: Session
  readonly #table: (Entry | undefined)[]
  /** Requests that wait for the thaw, in the order they came. */
  #frozen: Postponed[] = []

  /** `initialised` is called once INIT has been agreed, `failed` when it cannot be. */
  constructor(
    session: Session,
    initialised: (agreed: Negotiated) => void,
    failed: (error: unknown) => void,
  ) {
    this.#session = session
    this.#table = table(session)
    session.retryPostponed = () => this.#resume()
    const plain = { node: false, awaits: 'nothing' } as const
    this.#table[Opcode.INTERRUPT] = { ...plain, run: () => this.#interrupt() }
    this.#table[Opcode.INIT] = {
      ...plain,
      run: () => {
        try {
          const agreed = negotiate(session)
          if (agreed !== undefined) initialised(agreed)
        } catch (error) {
          failed(error)
          throw error
        }
      },
    }
  }

  /** Handles the request of `length` bytes that is in the channel's buffer, and answers it. */
  handle(length: number): void {
    const session = this.#session
    const { request } = session
    request.begin(length)
    session.answered = false
    session.result = 0
    session.awaits = 'nothing'
    try {
      const entry = this.#table[request.opcode]
      if (entry === undefined) session.fail(ENOSYS)
      else {
        if (entry.node) this.#resolveNode()
        session.awaits = entry.awaits
        entry.run(session)
      }
    } catch (error) {
      if (error instanceof FrozenError) this.#postpone(length)
      else this.#answerError(error)
    }
    session.trace?.(describe(request, session.result))
  }

  /** Keeps the request until the filesystem is thawed, then handles it as if it had come then. */
  #postpone(length: number): void {
    const { fs, request } = this.#session
    this.#frozen.push({ unique: request.unique, bytes: request.data.slice(0, length) })
    if (this.#frozen.length > 1) return
    fs.thawed().then(
      () => this.#resume(),
      () => this.#resume(),
    )
  }

  /** The channel's buffer is free between two requests, and promises run there. */
  #resume(): void {
    const requests = this.#frozen
    this.#frozen = []
    for (const { bytes } of requests) {
      this.#session.request.data.set(bytes)
      this.handle(bytes.length)
    }
  }

  /**
   * Whoever waits for the thaw may be stopped by a signal. Everything else is answered before the
   * kernel can change its mind, but fsync, which is not worth stopping.
   */
  #interrupt(): void {
    const session = this.#session
    // An interrupt has no answer of its own.
    session.answered = true
    const unique = session.request.u64(INTERRUPT_IN.at.unique)
    const at = this.#frozen.findIndex((postponed) => postponed.unique === unique)
    if (at === -1) return
    this.#frozen.splice(at, 1)
    session.channel.replyWith(unique, EINTR, NOTHING)
  }

  #resolveNode(): void {
    const { nodes, request } = this.#session
    const state = nodes.state(request.low, request.high)
    if (state === NODE_FREE) throw new FsError(ESTALE)
    request.ino = nodes.inoOf(request.low)
    if (state === NODE_LIVE) return
    // The kernel looks the name up again and finds the inode's new node. On its way to an OPEN it
    // may ask for attributes, as long as it has not forgotten the names.
    const asks = request.opcode === Opcode.GETATTR || request.opcode === Opcode.STATX
    const onTheWay = asks && state === NODE_REVOKING
    if (request.opcode === Opcode.OPEN || onTheWay) throw new FsError(ESTALE)
    // Pages that were dirty when their file was killed, and are healthy, are sent while they go.
    const dirtyPages =
      request.opcode === Opcode.WRITE && (request.u32(WRITE_IN.at.write_flags) & WRITE_CACHE) !== 0
    if (state !== NODE_REVOKING || !dirtyPages) throw new FsError(EIO)
  }

  #answerError(error: unknown): void {
    const session = this.#session
    const { request, policy, out } = session
    const errno = session.errnoOf(error, opcodeName(request.opcode))
    if (session.answered) return
    if (errno !== ENOENT || request.opcode !== Opcode.LOOKUP || policy.valid === 0) {
      session.fail(errno)
      return
    }
    putNegativeEntry(out, 0, policy.valid)
    session.ok(ENTRY_OUT.size)
  }
}
