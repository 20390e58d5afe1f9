/**
 * The typed surface of the C addon: only what JavaScript cannot do.
 *
 * Guarded calls on mapped memory return GUARD_OK, or the region offset (>= 0) of the first byte
 * that could not be touched (SIGBUS inside the guard, or EFAULT from a system call). They never
 * throw for bad memory; they throw RangeError for arguments outside the mapping or the buffer.
 * Calls that wrap a system call throw an Error whose `code` is the errno name ('EBUSY', ...) and
 * whose `errno` is its positive number.
 */
import { createRequire } from 'node:module'

export const GUARD_OK = -1

/** Kinds of a mapping, which decide how a store becomes durable. */
export const MAP_FILE = 0
export const MAP_DEVICE_DAX = 1

/** A mapping of a region: an index into the addon's table of mappings. */
export type MapId = number

export interface Mapping {
  readonly id: MapId
  /** True when cache-line write-back is enough (device-dax, or MAP_SYNC on a DAX filesystem). */
  readonly sync: boolean
}

/** A bus error met outside a guard, or the kernel's early notice of poison. */
export interface BusError {
  readonly map: MapId
  readonly offset: number
  readonly length: number
  readonly actionRequired: boolean
}

export interface Channel {
  /** The request being handled, header included; valid until the handler returns. */
  readonly request: Uint8Array
  /** Where a handler builds the payload of a reply before it calls reply(). */
  readonly payload: Uint8Array
  /**
   * Answers `unique` with header + payload[0, length); error is 0 or a positive errno. Returns 0 or
   * the errno of the write: ENOENT when the request was interrupted, so that the kernel never saw
   * the answer (an OPEN is then not open, a LOOKUP not counted).
   */
  reply(unique: number, error: number, length: number): number
  /** Answers `unique` with a payload that is not the channel's own (parked requests). */
  replyWith(unique: number, error: number, payload: Uint8Array): number
  /**
   * Answers a READ straight from the mapping: `pieces` holds `count` pairs (region offset, length);
   * offset -1 is a hole and reads as zeros. One writev, no copy in user space. Returns GUARD_OK, or
   * the failing region offset: then nothing was answered and the caller still owes a reply. (If a
   * page fails between the check and the writev, the kernel has answered EIO itself; the reply then
   * gets ENOENT.) More than 1023 pieces go through `payload`.
   */
  replyPieces(unique: number, map: MapId, pieces: Float64Array, count: number): number
  /**
   * Writes notifications (each with its fuse_out_header, one behind the other) from a worker
   * thread, for the kernel may call back into this very process before it returns. Resolves to the
   * first errno that does not mean that there is nothing to forget, or 0; EINVAL when a length is
   * wrong. Calls start in their order, at most two at a time.
   */
  notify(messages: Uint8Array): Promise<number>
  /** Stops polling, leaves the fd open. */
  stop(): void
}

export interface Binding {
  // map.c
  map(fd: number, fileOffset: number, length: number, kind: number, readOnly: boolean): Mapping
  /**
   * Maps pieces of files end to end into one contiguous range: `pieces` holds triples (descriptor,
   * file offset, length), whole pages all but the last.
   */
  mapPieces(pieces: Float64Array, kind: number, readOnly: boolean): Mapping
  unmap(id: MapId): void
  // guard.c
  copyOut(
    id: MapId,
    offset: number,
    target: Uint8Array,
    targetOffset: number,
    length: number,
  ): number
  /**
   * On a sync mapping `durable` uses streaming stores / clwb and a fence; elsewhere it is ignored.
   */
  copyIn(
    id: MapId,
    offset: number,
    source: Uint8Array,
    sourceOffset: number,
    length: number,
    durable: boolean,
  ): number
  zero(id: MapId, offset: number, length: number, durable: boolean): number
  /** memmove inside the mapping. */
  move(id: MapId, from: number, to: number, length: number, durable: boolean): number
  /** Touches one byte of every page. */
  probe(id: MapId, offset: number, length: number): number
  /** True when every byte of the range is zero; -2 stands for "no", GUARD_OK for yes. */
  isZero(id: MapId, offset: number, length: number): number
  /** CRC32C of mapped bytes, or -1 - failing offset. `seed` is 0 or the CRC of what came before. */
  crc32c(id: MapId, offset: number, length: number, seed: number): number
  /** CRC32C of a buffer. */
  crc32cBuffer(buffer: Uint8Array, offset: number, length: number, seed: number): number
  /**
   * Bytes the kernel said are damaged where the last guarded call failed: 4096, or what one entry
   * of the page table maps when a machine check told of it.
   */
  failedUnit(): number
  /** clwb/clflushopt of the range + sfence; for sync mappings. */
  writeBack(id: MapId, offset: number, length: number): number
  /** msync(MS_SYNC), blocking, for file mappings; throws on EIO. */
  msync(id: MapId, offset: number, length: number): void
  /** The same from a worker thread. */
  msyncAsync(id: MapId, offset: number, length: number): Promise<void>
  // signal.c
  /**
   * Installs the SIGBUS handler (once per process) and asks for early notices (PR_MCE_KILL_EARLY).
   */
  onBusError(handler: (event: BusError) => void): void
  /** Calls the handler for what has come already, instead of when the event loop turns. */
  deliverBusErrors(): void
  // poison.c
  /**
   * Makes the pages of the range really fault in this process: 'userfaultfd' on shmem, else
   * 'remap'.
   */
  poison(id: MapId, offset: number, length: number): 'userfaultfd' | 'remap'
  unpoison(id: MapId, offset: number, length: number): void
  /**
   * madvise(MADV_HWPOISON), which needs CAP_SYS_ADMIN: the kernel itself takes the pages for failed
   * until it boots again. True when its SIGBUS came, which waits as a bus error of these pages.
   */
  hwpoison(id: MapId, offset: number, length: number): boolean
  // nvdimm.c
  /** Calls `onChange` whenever the sysfs attribute was notified; returns what ends that. */
  watchAttribute(fd: number, onChange: () => void): () => void
  /**
   * ND_CMD_CLEAR_ERROR on an open /dev/ndctlN: asks the platform to clear poison at a physical
   * address. Returns the bytes it cleared; throws ENOTTY where it has no such command.
   */
  clearError(fd: number, address: number, length: number): number
  // extents.c
  /** Where a file lies on its disk (FIEMAP): offset, place and length of each extent, in turn. */
  fileExtents(fd: number): number[]
  // lock.c
  /**
   * Tries an exclusive (or shared) OFD lock over [start, start+length); false when another holds
   * it.
   */
  lockRange(fd: number, start: number, length: number, exclusive: boolean): boolean
  unlockRange(fd: number, start: number, length: number): void
  // mount.c
  mount(source: string, target: string, type: string, flags: number, data: string): void
  umount(target: string, flags: number): void
  socketPair(): [number, number]
  /**
   * Blocking recvmsg of one descriptor (SCM_RIGHTS), close-on-exec; throws when the peer closed.
   */
  receiveDescriptor(socket: number): number
  /** pidfd_open: stands for this very process, also when its pid is used again. */
  openProcess(pid: number): number
  /** Sends `signal` with value to the process of a pidfd, si_code SI_QUEUE. */
  signalProcess(pidfd: number, signal: number, value: number): void
  /** The peer of a connected unix socket: SO_PEERCRED. */
  peerCredentials(fd: number): { pid: number; uid: number; gid: number }
  // channel.c
  /**
   * Polls the FUSE descriptor on the event loop and calls `onRequest(length)` for every request
   * read into channel.request. `onClosed(errno)` is called once when the connection is gone
   * (ENODEV after unmount).
   */
  openChannel(
    fd: number,
    requestSize: number,
    onRequest: (length: number) => void,
    onClosed: (errno: number) => void,
  ): Channel
}

const require = createRequire(import.meta.url)

/** Loads the compiled addon; the sentence is for people whose checkout is not built yet. */
function load(): Binding {
  try {
    return require('./build/Release/holdfast.node') as Binding
  } catch (cause) {
    throw new Error('the native addon is not built: run `npm run build` in the holdfast checkout', {
      cause,
    })
  }
}

export const native: Binding = load()
