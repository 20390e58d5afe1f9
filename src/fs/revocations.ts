/**
 * A transport's cache that knows what is still on its way: a failure has had its consequences when
 * no process sees anything of what was killed any more.
 */
import type { KernelCache } from './operations.ts'

type Names = Parameters<KernelCache['revoke']>[1]

export class Revocations implements KernelCache {
  readonly #cache: KernelCache
  readonly #underWay = new Set<Promise<void>>()

  constructor(cache: KernelCache) {
    this.#cache = cache
  }

  revoke(ino: number, names: Names): Promise<void> {
    return this.#track(this.#cache.revoke(ino, names))
  }

  invalidate(ino: number, offset: number, length: number): Promise<void> {
    return this.#track(this.#cache.invalidate(ino, offset, length))
  }

  revokeAll(): Promise<void> {
    return this.#track(this.#cache.revokeAll())
  }

  /** Resolves when all that was asked for before the call is done; failures are the callers'. */
  async idle(): Promise<void> {
    await Promise.allSettled([...this.#underWay])
  }

  #track(work: Promise<void>): Promise<void> {
    this.#underWay.add(work)
    const done = () => this.#underWay.delete(work)
    work.then(done, done)
    return work
  }
}
