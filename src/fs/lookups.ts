/** Kernel references per inode (nlookup): an inode without a name lives until they are gone. */
export class Lookups {
  readonly #counts = new Map<number, number>()

  add(ino: number): void {
    this.#counts.set(ino, (this.#counts.get(ino) ?? 0) + 1)
  }

  /** Returns true when no reference is left. */
  forget(ino: number, count: number): boolean {
    const left = (this.#counts.get(ino) ?? 0) - count
    if (left > 0) {
      this.#counts.set(ino, left)
      return false
    }
    this.#counts.delete(ino)
    return true
  }

  has(ino: number): boolean {
    return this.#counts.has(ino)
  }

  clear(): void {
    this.#counts.clear()
  }
}
