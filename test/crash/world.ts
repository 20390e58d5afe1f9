/** A live filesystem and its model side by side, and how to find things in both. */
import type { Filesystem } from '../../src/fs/filesystem.ts'
import type { Handle } from '../../src/fs/handles.ts'
import { BLOCK, type Name, type Node, ROOT, type State } from './model.ts'
import type { Random } from './random.ts'
import type { Tree } from './survey.ts'

export const caller = { uid: 0, gid: 0, pid: 1, umask: 0 }
const NAMES = 9

export class World {
  fs: Filesystem
  state: State
  /** Node of the model → inode number. */
  readonly inodes = new Map<number, number>([[ROOT, 1]])
  /** Files that are open between operations. */
  readonly held = new Map<number, Handle>()
  #nextNode = 2
  #nextWrite = 1
  /** What wrote the bytes that carry its number. */
  readonly #origins = new Map<number, string>()

  constructor(fs: Filesystem, state: State) {
    this.fs = fs
    this.state = state
  }

  newNode(): number {
    return this.#nextNode++
  }

  inode(id: number): number {
    return this.inodes.get(id)!
  }

  /** Numbers of a tree that was mounted again; whatever was open is closed. */
  remounted(fs: Filesystem, state: State, tree: Tree): void {
    this.fs = fs
    this.state = state
    this.held.clear()
    this.inodes.clear()
    for (const [path, node] of state.paths()) this.inodes.set(node.id, tree.get(path)!.ino)
  }

  /** Bytes that nobody else writes: every word of the file names this write and its place. */
  uniqueBytes(id: number, offset: number, length: number): Buffer {
    const number = this.#nextWrite++
    this.#origins.set(number, `write ${number}, of ${length} bytes at ${offset} of node ${id}`)
    const first = Math.floor(offset / 8)
    const words = Math.ceil((offset + length) / 8) - first
    const buffer = Buffer.alloc(words * 8)
    for (let word = 0; word < words; word++) {
      buffer.writeUInt32BE((0x80000000 | number) >>> 0, word * 8)
      buffer.writeUInt32BE((0x40404040 | (first + word)) >>> 0, word * 8 + 4)
    }
    return buffer.subarray(offset - first * 8, offset - first * 8 + length)
  }

  originOf(word: bigint): string {
    if (word === 0n) return 'zeros'
    const number = Number((word >> 32n) & 0x7fffffffn)
    const known = this.#origins.get(number)
    return known === undefined ? `0x${word.toString(16)}` : `bytes of ${known}`
  }

  // --- choosing ---------------------------------------------------------------------------------

  files(): number[] {
    const named = this.state.names().filter(({ id }) => this.state.node(id).type === 'file')
    return [...new Set([...named.map(({ id }) => id), ...this.held.keys()])]
  }

  file(random: Random): Node | undefined {
    const files = this.files()
    return files.length === 0 ? undefined : this.state.node(random.pick(files))
  }

  directories(): number[] {
    const named = this.state.names().filter(({ id }) => this.state.node(id).type === 'directory')
    return [ROOT, ...named.map(({ id }) => id)]
  }

  /** A name that is there, of a kind that `wanted` accepts. */
  name(random: Random, wanted: (node: Node) => boolean): Name | undefined {
    const names = this.state.names().filter(({ id }) => wanted(this.state.node(id)))
    return names.length === 0 ? undefined : random.pick(names)
  }

  /** A name that may or may not be there. */
  anyPlace(random: Random): { parent: number; name: string } {
    return { parent: random.pick(this.directories()), name: `n${random.below(NAMES)}` }
  }

  /** A name that is not there, if the directory has one left. */
  freePlace(random: Random): { parent: number; name: string } | undefined {
    const parent = random.pick(this.directories())
    const { entries } = this.state.node(parent)
    for (let tries = 0; tries < NAMES; tries++) {
      const name = `n${random.below(NAMES)}`
      if (!entries.has(name)) return { parent, name }
    }
    return undefined
  }

  /** Does the file, within [from, to), lie on failed memory that the operation cannot heal? */
  touchesPoison(node: Node, from: number, to: number): boolean {
    return [...node.poisoned].some((block) => block * BLOCK < to && from < (block + 1) * BLOCK)
  }

  // --- calls ------------------------------------------------------------------------------------

  /** Runs `use` with a handle of the file: the one that is held, or one just for this. */
  withHandle<T>(id: number, use: (handle: Handle) => T): T {
    const held = this.held.get(id)
    if (held !== undefined && !held.dead) return use(held)
    const handle = this.fs.open(this.inode(id), 2, false)
    try {
      return use(handle)
    } finally {
      this.fs.release(handle)
    }
  }

  /** A maker's result counts as one reference of the kernel; given back at once. */
  made(id: number, ino: number): void {
    this.inodes.set(id, ino)
    this.fs.forget(ino, 1)
  }
}
