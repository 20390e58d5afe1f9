/** The kernel transport: speaks the FUSE protocol on /dev/fuse itself. */
import { closeSync } from 'node:fs'
import { writeFile } from 'node:fs/promises'
import { errnoName } from '../fs/errors.ts'
import type { FilesystemOperations } from '../fs/operations.ts'
import type { Logger } from '../fs/volume.ts'
import { type Channel, native } from '../native/binding.ts'
import { Bugs } from './bugs.ts'
import { Dispatcher } from './dispatcher.ts'
import {
  CONNECTION_ENDED,
  deviceOfMount,
  durableWith,
  MountError,
  type MountFlag,
  openConnection,
  resolveMountpoint,
} from './mount.ts'
import { describeNegotiated, type Negotiated } from './negotiate.ts'
import { Notifier } from './notify.ts'
import { type CacheMode, cachePolicy } from './policy.ts'
import { MAX_WRITE } from './protocol.ts'
import { type RegionView, Session } from './session.ts'
import { unmountConnection } from './unmount.ts'

export interface KernelOptions {
  /** Default: keep. */
  readonly cache?: CacheMode
  /** Default false: when write(2) returns, the bytes are in the region. */
  readonly writeback?: boolean
  readonly allowOther?: boolean
  readonly readOnly?: boolean
  readonly flags?: readonly MountFlag[]
  /** The path of the region. */
  readonly fsname: string
  /** Default: holdfast. */
  readonly subtype?: string
  /** Bytes the kernel reads ahead; root only. Default: 1 MiB. */
  readonly readahead?: number
  readonly logger?: Logger
  /** Mount through fusermount3; default: unless we are root. */
  readonly helper?: boolean
  /** Wire log: what was agreed with the kernel, then one line per request. */
  readonly debug?: (line: string) => void
}

/** The largest WRITE with its headers; the rest of a page is for them. */
const REQUEST_SIZE = MAX_WRITE + 4096
const DEFAULT_READAHEAD = MAX_WRITE
const SILENT: Logger = { info() {}, warn() {}, error() {} }

export class KernelTransport {
  readonly mountpoint: string
  readonly session: Session
  /** Resolves when the kernel has let go: after umount, or an abort of the connection. */
  readonly closed: Promise<void>
  readonly #logger: Logger
  #notifier: Notifier | undefined
  #ended = () => {}

  constructor(mountpoint: string, session: Session, logger: Logger) {
    this.mountpoint = mountpoint
    this.session = session
    this.#logger = logger
    this.closed = new Promise((resolve) => {
      this.#ended = resolve
    })
    const bugs = new Bugs(logger)
    session.bug = (error, operation) => bugs.tell(operation, error)
  }

  /** What the failure policy and the control socket use; it exists once INIT has been agreed. */
  get cache(): Notifier {
    if (this.#notifier === undefined) throw new Error('the kernel has not sent INIT yet')
    return this.#notifier
  }

  /** `lazy` detaches the tree at once; open files keep the connection until they are closed. */
  async unmount(lazy = false): Promise<void> {
    await unmountConnection(this.mountpoint, lazy)
    if (!lazy) await this.closed
  }

  initialised(agreed: Negotiated, fs: FilesystemOperations): void {
    this.#notifier = new Notifier(this.session, agreed.minor, (sentence) =>
      this.#logger.warn(sentence),
    )
    fs.attach(this.#notifier)
    this.session.trace?.(describeNegotiated(agreed, this.session.policy))
  }

  /** Called once by the channel. */
  async connectionEnded(fd: number, errno: number): Promise<void> {
    if (!CONNECTION_ENDED.has(errno)) {
      this.#logger.error(`the FUSE connection failed: ${errnoName(errno)}`)
    }
    this.session.close()
    this.#notifier?.close()
    // A worker may still be writing a notification to the descriptor.
    await this.#notifier?.idle()
    closeSync(fd)
    this.#ended()
  }
}

/** Mounts and serves `fs`; resolves when the kernel and we agree on the protocol. */
export async function mountKernel(
  fs: FilesystemOperations,
  region: RegionView,
  mountpoint: string,
  options: KernelOptions,
): Promise<KernelTransport> {
  const resolved = resolveMountpoint(mountpoint)
  const readOnly = options.readOnly ?? fs.readOnly
  const fd = await openConnection({
    mountpoint: resolved,
    fsname: options.fsname,
    subtype: options.subtype ?? 'holdfast',
    flags: readOnly ? ['ro', ...(options.flags ?? [])] : (options.flags ?? []),
    allowOther: options.allowOther ?? false,
    helper: options.helper ?? process.geteuid?.() !== 0,
  })
  const transport = await serve(fs, region, resolved, fd, options).catch(async (error) => {
    // The kernel and we did not come to terms: nobody will serve what is mounted there.
    await unmountConnection(resolved, true).catch(() => {})
    throw error
  })
  await setReadahead(resolved, options.readahead ?? DEFAULT_READAHEAD)
  return transport
}

function serve(
  fs: FilesystemOperations,
  region: RegionView,
  mountpoint: string,
  fd: number,
  options: KernelOptions,
): Promise<KernelTransport> {
  const policy = cachePolicy(options.cache ?? 'keep', options.writeback ?? false)
  return new Promise((resolve, reject) => {
    const channel: Channel = native.openChannel(
      fd,
      REQUEST_SIZE,
      (length) => dispatcher.handle(length),
      (errno) => {
        reject(new MountError(`${mountpoint} was unmounted before it was ready`, errnoName(errno)))
        void transport.connectionEnded(fd, errno)
      },
    )
    const durable = durableWith(options.flags ?? [])
    const session = new Session(fs, channel, policy, region, durable)
    session.trace = options.debug
    const transport = new KernelTransport(mountpoint, session, options.logger ?? SILENT)
    const dispatcher = new Dispatcher(
      session,
      (agreed) => {
        transport.initialised(agreed, fs)
        resolve(transport)
      },
      reject,
    )
  })
}

/** The kernel starts with 128 KiB whatever INIT says; requests of 1 MiB read twice as fast. */
async function setReadahead(mountpoint: string, bytes: number): Promise<void> {
  const device = deviceOfMount(mountpoint)
  if (device === undefined) return
  // Only root may, and nothing depends on it.
  await writeFile(`/sys/class/bdi/${device}/read_ahead_kb`, String(bytes / 1024)).catch(() => {})
}
