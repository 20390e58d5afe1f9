/**
 * Making the kernel forget. Every notification is written by a worker thread: the kernel may send
 * us dirty pages, and wait for our answer, before it returns from that write.
 */
import { setTimeout as delay, setImmediate as turnOfTheLoop } from 'node:timers/promises'
import { errnoName } from '../fs/errors.ts'
import type { KernelCache } from '../fs/operations.ts'
import { NODE_LIVE } from './nodes.ts'
import {
  INC_EPOCH_MINOR,
  NOTIFY_INC_EPOCH,
  NOTIFY_INVAL_ENTRY,
  NOTIFY_INVAL_INODE,
} from './protocol.ts'
import { NOTIFY_INVAL_ENTRY_OUT, NOTIFY_INVAL_INODE_OUT, OUT_HEADER } from './reply-structs.ts'
import type { Session } from './session.ts'

/** Notifications handed to the channel at a time when all nodes are invalidated. */
const IN_FLIGHT = 8

/**
 * How long an answer waits for a notification of attributes. Those ahead of it may wait for pages
 * that the very write to be answered has locked.
 */
const ATTRIBUTES_PATIENCE_MS = 100

const ATTRIBUTES_ONLY = -1n
/** Length 0: to the end of the file. */
const TO_THE_END = 0n

const BODY = OUT_HEADER.size

function message(code: number, bodySize: number): Buffer {
  const bytes = Buffer.alloc(BODY + bodySize)
  bytes.writeUInt32LE(bytes.length, OUT_HEADER.at.len)
  bytes.writeInt32LE(code, OUT_HEADER.at.error)
  return bytes
}

/** Nodeids are given as their two halves, see nodes.ts. */
export function invalInode(low: number, high: number, offset: bigint, length: bigint): Buffer {
  const { at, size } = NOTIFY_INVAL_INODE_OUT
  const bytes = message(NOTIFY_INVAL_INODE, size)
  bytes.writeUInt32LE(low, BODY + at.ino)
  bytes.writeUInt32LE(high, BODY + at.ino + 4)
  bytes.writeBigInt64LE(offset, BODY + at.off)
  bytes.writeBigInt64LE(length, BODY + at.len)
  return bytes
}

export function invalEntry(low: number, high: number, name: Uint8Array): Buffer {
  const { at, size } = NOTIFY_INVAL_ENTRY_OUT
  const bytes = message(NOTIFY_INVAL_ENTRY, size + name.length + 1)
  bytes.writeUInt32LE(low, BODY + at.parent)
  bytes.writeUInt32LE(high, BODY + at.parent + 4)
  bytes.writeUInt32LE(name.length, BODY + at.namelen)
  bytes.set(name, BODY + size)
  return bytes
}

export class Notifier implements KernelCache {
  readonly #session: Session
  readonly #minor: number
  readonly #log: (sentence: string) => void
  readonly #underWay = new Set<Promise<void>>()
  /** A message with names that is on its way. */
  #forgetting: Promise<void> | undefined
  #open = true

  constructor(session: Session, minor: number, log: (sentence: string) => void) {
    this.#session = session
    this.#minor = minor
    this.#log = log
    session.dropPages = (ino, offset, length) => this.invalidate(ino, offset, length)
    session.nameMoved = (parent, name) => {
      this.invalidateEntry(parent, name).catch((error: Error) => log(error.message))
    }
    session.attributesChanged = (ino) =>
      Promise.race([
        this.invalidateAttributes(ino),
        delay(ATTRIBUTES_PATIENCE_MS, undefined, { ref: false }),
      ])
  }

  revoke(ino: number, names: readonly { parent: number; name: Uint8Array }[]): Promise<void> {
    // Before anything asynchronous: whoever opens the file from here on gets the new node.
    const slot = this.#session.nodes.retire(ino)
    if (slot === 0) return Promise.resolve()
    // A write that waits for the thaw holds pages of the file: it is to fail now.
    queueMicrotask(() => this.#session.retryPostponed())
    return this.#track(this.#revokeNode(slot, names))
  }

  /**
   * The pages first: forgetting a name may have to wait for an operation in its directory. In one
   * go where that is possible, since every turn between the threads is a chance to wait for a
   * processor; but of two workers one must be free for the pages of other files.
   */
  async #revokeNode(
    slot: number,
    names: readonly { parent: number; name: Uint8Array }[],
  ): Promise<void> {
    const { nodes } = this.#session
    const high = nodes.high(slot)
    const pages = invalInode(slot, high, 0n, TO_THE_END)
    const entries = names.map(({ parent, name }) => this.#invalEntry(parent, name))
    if (this.#forgetting === undefined) await this.#forget([pages, ...entries])
    else {
      await this.#send(pages)
      while (this.#forgetting !== undefined) await this.#forgetting
      await this.#forget(entries)
    }
    // Who was on the way to a name before it was forgotten has asked by then, and looks again.
    await turnOfTheLoop()
    nodes.revoked(slot, high)
  }

  #forget(messages: readonly Uint8Array[]): Promise<void> {
    this.#forgetting = this.#send(Buffer.concat(messages)).finally(() => {
      this.#forgetting = undefined
    })
    return this.#forgetting
  }

  async invalidate(ino: number, offset: number, length: number): Promise<void> {
    const slot = this.#session.nodes.slotOf(ino)
    if (slot === 0) return
    const high = this.#session.nodes.high(slot)
    await this.#send(invalInode(slot, high, BigInt(offset), BigInt(length)))
  }

  async invalidateAttributes(ino: number): Promise<void> {
    const slot = this.#session.nodes.slotOf(ino)
    if (slot === 0) return
    await this.#send(invalInode(slot, this.#session.nodes.high(slot), ATTRIBUTES_ONLY, 0n))
  }

  /**
   * A name came, went or changed behind the kernel: what it believes of it, "none" included, is
   * void.
   */
  async invalidateEntry(parent: number, name: Uint8Array): Promise<void> {
    await this.#send(this.#invalEntry(parent, name))
  }

  /** Empty when the kernel does not know the directory. */
  #invalEntry(parent: number, name: Uint8Array): Uint8Array {
    const { nodes } = this.#session
    const slot = nodes.slotOf(parent)
    return slot === 0 ? new Uint8Array() : invalEntry(slot, nodes.high(slot), name)
  }

  revokeAll(): Promise<void> {
    return this.#track(this.#revokeAll())
  }

  async #revokeAll(): Promise<void> {
    // Kernels before 6.16 keep the names; of what they lead to, every one has to ask.
    if (this.#minor >= INC_EPOCH_MINOR) await this.#send(message(NOTIFY_INC_EPOCH, 0))
    const slots = this.#session.nodes.slots()
    await Promise.all(Array.from({ length: IN_FLIGHT }, () => this.#revokeNodes(slots)))
  }

  async #revokeNodes(slots: Iterator<number>): Promise<void> {
    const { nodes } = this.#session
    for (let next = slots.next(); !next.done; next = slots.next()) {
      const slot = next.value
      const high = nodes.high(slot)
      if (nodes.state(slot, high) !== NODE_LIVE) continue
      await this.#send(invalInode(slot, high, 0n, TO_THE_END))
    }
  }

  /** The connection has ended: its descriptor's number will soon stand for something else. */
  close(): void {
    this.#open = false
  }

  /** Resolves when nothing is under way: every revocation asked for so far has been done. */
  async idle(): Promise<void> {
    while (this.#underWay.size > 0) await Promise.allSettled(this.#underWay)
  }

  #track(work: Promise<void>): Promise<void> {
    this.#underWay.add(work)
    const done = () => this.#underWay.delete(work)
    work.then(done, done)
    return work
  }

  /** Any number of messages, one behind the other. */
  #send(messages: Uint8Array): Promise<void> {
    if (messages.length === 0 || !this.#open) return Promise.resolve()
    return this.#track(
      this.#session.channel.notify(messages).then((errno) => {
        if (errno !== 0) this.#log(`the kernel refused a notification: ${errnoName(errno)}`)
      }),
    )
  }
}
