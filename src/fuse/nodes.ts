/**
 * The kernel's names for inodes. A nodeid is not an inode number: when every handle of an inode is
 * killed its nodeid is retired, and the next LOOKUP gives the same inode (same st_ino) a new one,
 * that is, a new kernel inode with an empty page cache. With one and the same nodeid the first read
 * by a new opener would fill the shared page cache again, and the dead handles and mappings with
 * it.
 *
 * A nodeid is a slot (low half) and the slot's generation (high half), so that a number is never
 * used twice. Slots live in flat arrays: a node costs about 60 bytes, most of them in the map.
 */
import { ROOT_INODE } from '../fs/operations.ts'
import { ROOT_NODEID } from './protocol.ts'

/** States of a node. */
export const NODE_FREE = 0
export const NODE_LIVE = 1
/**
 * Retired; its pages and names are on their way out, and what is dirty among the pages may be
 * written.
 */
export const NODE_REVOKING = 2
export const NODE_RETIRED = 3

/** Nodeids stay safe integers: a slot whose generation would pass this is not used again. */
const GENERATION_LIMIT = 2 ** 21 - 1
const FIRST_CAPACITY = 1024
const NO_SLOT = 0

export class NodeTable {
  /** Inode numbers by slot; of free slots, the next free one. */
  #ino = new Float64Array(FIRST_CAPACITY)
  #nlookup = new Float64Array(FIRST_CAPACITY)
  #generation = new Uint32Array(FIRST_CAPACITY)
  #state = new Uint8Array(FIRST_CAPACITY)
  /** INVARIANT: names the live node of an inode, if it has one; retired ones are not in here. */
  readonly #byIno = new Map<number, number>()
  #used = ROOT_NODEID + 1
  #firstFree = NO_SLOT
  /** Nodes that were retired and that the kernel still knows. */
  retired = 0
  /** Nodes the kernel knows, the root and retired ones included. */
  count = 1

  constructor() {
    this.#ino[ROOT_NODEID] = ROOT_INODE
    this.#state[ROOT_NODEID] = NODE_LIVE
    this.#byIno.set(ROOT_INODE, ROOT_NODEID)
  }

  /** NODE_FREE for a nodeid nobody was given, or that was forgotten. */
  state(low: number, high: number): number {
    return low < this.#used && this.#generation[low] === high ? this.#state[low]! : NODE_FREE
  }

  /** The inode behind a nodeid; only when state() is not NODE_FREE. */
  inoOf(low: number): number {
    return this.#ino[low]!
  }

  /** Counts one lookup of the inode and returns the slot of its nodeid (see `high`). */
  remember(ino: number): number {
    const known = this.#byIno.get(ino)
    if (known !== undefined) {
      this.#nlookup[known]!++
      return known
    }
    const slot = this.#takeSlot()
    this.#ino[slot] = ino
    this.#nlookup[slot] = 1
    this.#state[slot] = NODE_LIVE
    this.#byIno.set(ino, slot)
    this.count++
    return slot
  }

  /** The high half of the nodeid whose low half is `slot`. */
  high(slot: number): number {
    return this.#generation[slot]!
  }

  /** The slot of the inode's live node, 0 when the kernel knows none. */
  slotOf(ino: number): number {
    return this.#byIno.get(ino) ?? NO_SLOT
  }

  /** Returns the inode number that lost `lookups` references, 0 for root and strangers. */
  forget(low: number, high: number, lookups: number): number {
    if (low === ROOT_NODEID || this.state(low, high) === NODE_FREE) return 0
    const ino = this.#ino[low]!
    const left = this.#nlookup[low]! - lookups
    this.#nlookup[low] = left
    if (left <= 0) this.#drop(low)
    return ino
  }

  /** Returns the slot of the node that is now NODE_REVOKING, 0 when the kernel knows none. */
  retire(ino: number): number {
    const slot = this.#byIno.get(ino)
    if (slot === undefined || slot === ROOT_NODEID) return NO_SLOT
    this.#byIno.delete(ino)
    this.#state[slot] = NODE_REVOKING
    this.retired++
    return slot
  }

  /** The pages and names of a retired node are gone. */
  revoked(low: number, high: number): void {
    if (this.state(low, high) === NODE_REVOKING) this.#state[low] = NODE_RETIRED
  }

  /** Slots of all nodes in use, the root's included. The table may change between two steps. */
  *slots(): Generator<number> {
    for (let slot = ROOT_NODEID; slot < this.#used; slot++) {
      if (this.#state[slot] !== NODE_FREE) yield slot
    }
  }

  /** Empties the table; calls `emit` for every reference the kernel will not give back any more. */
  clear(emit: (ino: number, lookups: number) => void): void {
    for (const slot of this.slots()) {
      if (slot === ROOT_NODEID) continue
      const ino = this.#ino[slot]!
      const lookups = this.#nlookup[slot]!
      this.#drop(slot)
      emit(ino, lookups)
    }
  }

  #drop(slot: number): void {
    if (this.#state[slot] === NODE_LIVE) this.#byIno.delete(this.#ino[slot]!)
    else this.retired--
    this.#state[slot] = NODE_FREE
    this.count--
    const generation = this.#generation[slot]! + 1
    this.#generation[slot] = generation
    if (generation >= GENERATION_LIMIT) return
    this.#ino[slot] = this.#firstFree
    this.#firstFree = slot
  }

  #takeSlot(): number {
    const slot = this.#firstFree
    if (slot !== NO_SLOT) {
      this.#firstFree = this.#ino[slot]!
      return slot
    }
    if (this.#used === this.#ino.length) this.#grow(this.#used * 2)
    return this.#used++
  }

  #grow(capacity: number): void {
    const ino = new Float64Array(capacity)
    const nlookup = new Float64Array(capacity)
    const generation = new Uint32Array(capacity)
    const state = new Uint8Array(capacity)
    ino.set(this.#ino)
    nlookup.set(this.#nlookup)
    generation.set(this.#generation)
    state.set(this.#state)
    this.#ino = ino
    this.#nlookup = nlookup
    this.#generation = generation
    this.#state = state
  }
}
