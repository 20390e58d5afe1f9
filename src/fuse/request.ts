/**
 * The request being handled: a view on the channel's buffer, one object for all of them. Nothing
 * here allocates but name() and bytes(), whose views hold until the handler returns.
 */
import { endianness } from 'node:os'
import { EFBIG, EINVAL, FsError } from '../fs/errors.ts'
import type { Caller } from '../fs/operations.ts'
import { IN_HEADER } from './request-structs.ts'

if (endianness() !== 'LE') throw new Error('the kernel transport needs a little-endian machine')

const TWO_32 = 2 ** 32
/** The high half of the first u64 that is no safe integer. */
const UNSAFE_HIGH = 2 ** 21

const { opcode, unique, nodeid, uid, gid, pid, total_extlen } = IN_HEADER.at

export class Request implements Caller {
  readonly data: Uint8Array
  readonly #words: Uint32Array
  /** Bytes of the whole request, and where its arguments end (extensions follow them). */
  length = 0
  end = 0
  opcode = 0
  unique = 0
  /** The two halves of header.nodeid. */
  low = 0
  high = 0
  /** The inode behind the nodeid, 0 where an operation has none. */
  ino = 0
  uid = 0
  gid = 0
  pid = 0
  umask = 0

  constructor(data: Uint8Array) {
    this.data = data
    this.#words = new Uint32Array(data.buffer, data.byteOffset, data.byteLength >>> 2)
  }

  /** Takes the request of `length` bytes that is in the buffer now. */
  begin(length: number): void {
    const words = this.#words
    this.length = length
    this.end = length - (words[total_extlen >>> 2]! & 0xffff) * 8
    this.opcode = words[opcode >>> 2]!
    this.unique = words[unique >>> 2]! + words[(unique >>> 2) + 1]! * TWO_32
    this.low = words[nodeid >>> 2]!
    this.high = words[(nodeid >>> 2) + 1]!
    this.ino = 0
    this.uid = words[uid >>> 2]!
    this.gid = words[gid >>> 2]!
    this.pid = words[pid >>> 2]!
    this.umask = 0
  }

  /**
   * Offsets count from the start of the message. A field beyond its end reads as what was there.
   */
  u32(at: number): number {
    return this.#words[at >>> 2]!
  }

  /** Handles, counts, seconds: never beyond the safe integers unless they are nonsense. */
  u64(at: number): number {
    return this.#words[at >>> 2]! + this.#words[(at >>> 2) + 1]! * TWO_32
  }

  /** Signed: times before 1970, and offsets, which the kernel keeps in signed 64 bits. */
  i64(at: number): number {
    return this.#words[at >>> 2]! + (this.#words[(at >>> 2) + 1]! | 0) * TWO_32
  }

  /** A position in a file; what is no safe integer is larger than any file. */
  offset(at: number): number {
    if (this.#words[(at >>> 2) + 1]! >= UNSAFE_HIGH) throw new FsError(EFBIG)
    return this.u64(at)
  }

  /** The bytes up to the next zero. */
  name(at: number): Uint8Array {
    const stop = this.data.indexOf(0, at)
    if (stop === -1 || stop >= this.end) throw new FsError(EINVAL)
    return this.data.subarray(at, stop)
  }

  bytes(at: number, length: number): Uint8Array {
    if (at + length > this.end) throw new FsError(EINVAL)
    return this.data.subarray(at, at + length)
  }
}
