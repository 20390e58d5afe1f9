/** Mounting simulated memory, and leaving a mount the way a crash does. */
import { openSimulated } from '../../src/dax/device.ts'
import { fsDaxGet } from '../../src/dax/holder.ts'
import type { Memory } from '../../src/dax/memory.ts'
import type { SimulatedMemory } from '../../src/dax/simulated-memory.ts'
import { Filesystem } from '../../src/fs/filesystem.ts'
import { BLOCK_SIZE } from '../../src/media/geometry.ts'
import { readSuperblocks } from '../../src/media/superblock.ts'
import { decodeSuperblock, encodeSuperblock } from '../../src/media/superblock-codec.ts'
import { silent } from '../support/core.ts'

/** No commit comes by itself: a run must not depend on how fast the machine is. */
const NEVER_SECONDS = 24 * 3600

export function mountMemory(memory: Memory): Filesystem {
  const device = openSimulated(memory)
  fsDaxGet(device, { purpose: 'mount' })
  return Filesystem.mount(device, {
    readOnly: false,
    commitSeconds: NEVER_SECONDS,
    onFailure: 'handles',
    noatime: true,
    logger: silent,
  })
}

/** Ends a mount without another byte written. */
export function abandon(fs: Filesystem): void {
  fs.volume.shutdown ??= { reason: 'the daemon was killed', offset: 0 }
  fs.unmount().catch(() => undefined)
}

/** The host has booted since: its boot id is not the one in the superblocks. */
export function rebooted<M extends Memory>(memory: M): M {
  const { primary, backup } = readSuperblocks(memory)
  for (const [copy, offset] of [
    [primary, 0],
    [backup, memory.size - BLOCK_SIZE],
  ] as const) {
    if (copy instanceof Error) continue
    const bytes = Buffer.alloc(BLOCK_SIZE)
    memory.read(offset, bytes, 0, BLOCK_SIZE)
    const bootId = '00000000-0000-4000-8000-000000000000'
    const changed = encodeSuperblock({ ...decodeSuperblock(bytes, offset), bootId })
    memory.write(offset, changed, 0, BLOCK_SIZE)
    memory.flush(offset, BLOCK_SIZE)
  }
  return memory
}

export type UnfencedStores = (offset: number, zeros: boolean) => boolean

/** The memory as one daemon sees it: nothing of a killed daemon gets through any more. */
export class Plug implements Memory {
  readonly size: number
  readonly durableStores: boolean
  readonly mapId = undefined
  readonly #inner: SimulatedMemory
  /** Stores for which nobody waits: they stay in the cache. For mutants. */
  readonly #isUnfenced: UnfencedStores | undefined
  #pulled = false

  constructor(inner: SimulatedMemory, isUnfenced?: UnfencedStores) {
    this.size = inner.size
    this.durableStores = inner.durableStores
    this.#inner = inner
    this.#isUnfenced = isUnfenced
  }

  pull(): void {
    this.#pulled = true
  }

  get #memory(): SimulatedMemory {
    if (this.#pulled) throw new Error('this daemon was killed')
    return this.#inner
  }

  read(offset: number, target: Uint8Array, targetOffset: number, length: number): void {
    this.#memory.read(offset, target, targetOffset, length)
  }

  write(offset: number, source: Uint8Array, sourceOffset: number, length: number): void {
    const store = () => this.#memory.write(offset, source, sourceOffset, length)
    if (this.#isUnfenced?.(offset, false)) this.#withoutFence(store)
    else store()
  }

  zero(offset: number, length: number): void {
    const store = () => this.#memory.zero(offset, length)
    if (this.#isUnfenced?.(offset, true)) this.#withoutFence(store)
    else store()
  }

  /** A store whose persist point does not come about. */
  #withoutFence(store: () => void): void {
    const memory = this.#inner
    const { onPersist } = memory
    const skipped = new Error('no fence')
    memory.onPersist = () => {
      throw skipped
    }
    try {
      store()
    } catch (error) {
      if (error !== skipped) throw error
    } finally {
      memory.onPersist = onPersist
    }
  }

  move(from: number, to: number, length: number): void {
    this.#memory.move(from, to, length)
  }

  isZero(offset: number, length: number): boolean {
    return this.#memory.isZero(offset, length)
  }

  crc32c(offset: number, length: number, seed: number): number {
    return this.#memory.crc32c(offset, length, seed)
  }

  probe(offset: number, length: number): void {
    this.#memory.probe(offset, length)
  }

  flush(offset: number, length: number): void {
    if (this.#isUnfenced?.(offset, false)) return
    this.#memory.flush(offset, length)
  }

  async flushAsync(offset: number, length: number): Promise<void> {
    await this.#memory.flushAsync(offset, length)
  }

  close(): void {}
}
