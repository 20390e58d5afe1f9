/**
 * The model of a filesystem: a tree of nodes, immutable, one State after every operation. It knows
 * nothing of blocks, journals or indexes; only what a user may see.
 */

export type NodeType = 'file' | 'directory' | 'symlink' | 'fifo'

export interface Node {
  readonly id: number
  readonly type: NodeType
  mode: number
  uid: number
  gid: number
  nlink: number
  /** Of files; others have none to compare. */
  size: number
  target: string
  /** Seconds, where setattr said so and nothing changed it since. */
  mtime: number | undefined
  /**
   * The bytes of a file, and behind `size` what the memory still holds there: in place, a later
   * state may show through an earlier one.
   */
  bytes: Buffer
  /** Of directories: name → node. */
  entries: Map<string, number>
  xattrs: Map<string, string>
  /** File blocks that lie on failed memory. */
  poisoned: Set<number>
  /**
   * File block → which filling of it this is; none while it is a hole or preallocated. As long as
   * it is the same in two states, what is written between them is stored in place.
   */
  generations: Map<number, number>
}

export const ROOT = 1
export const BLOCK = 4096

export interface Name {
  readonly parent: number
  readonly name: string
  readonly id: number
}

export class State {
  readonly nodes: ReadonlyMap<number, Node>
  #names: Name[] | undefined
  #signature: string | undefined

  constructor(nodes: ReadonlyMap<number, Node>) {
    this.nodes = nodes
  }

  /** An empty filesystem. */
  static initial(): State {
    const root = { ...emptyNode(ROOT, 'directory', 0o755), nlink: 2 }
    return new State(new Map([[ROOT, root]]))
  }

  node(id: number): Node {
    return this.nodes.get(id)!
  }

  child(parent: number, name: string): number | undefined {
    return this.node(parent).entries.get(name)
  }

  /** Every name in the tree, in the order of a walk. */
  names(): readonly Name[] {
    if (this.#names === undefined) {
      this.#names = []
      this.#walk(ROOT, this.#names)
    }
    return this.#names
  }

  #walk(parent: number, found: Name[]): void {
    const { entries } = this.node(parent)
    for (const name of [...entries.keys()].sort()) {
      const id = entries.get(name)!
      found.push({ parent, name, id })
      if (this.node(id).type === 'directory') this.#walk(id, found)
    }
  }

  /** Path → node of everything that has a name. */
  paths(): Map<string, Node> {
    const paths = new Map<string, Node>([['/', this.node(ROOT)]])
    const prefix = new Map([[ROOT, '/']])
    for (const { parent, name, id } of this.names()) {
      const path = `${prefix.get(parent)}${name}`
      const node = this.node(id)
      paths.set(path, node)
      if (node.type === 'directory') prefix.set(id, `${path}/`)
    }
    return paths
  }

  /** Everything but times and bytes as one text: equal for equal trees. */
  get signature(): string {
    this.#signature ??= signatureOf(
      [...this.paths()].map(([path, node]) => [path, node.id, node] as const),
    )
    return this.#signature
  }

  change(edit: (draft: Draft) => void): State {
    const draft = new Draft(this)
    edit(draft)
    return draft.finish()
  }
}

/** What a signature is made of; a tree that was found has it, too. */
export type Described = Pick<
  Node,
  'type' | 'mode' | 'uid' | 'gid' | 'nlink' | 'size' | 'target' | 'xattrs'
>

/** Identity is which paths lead to the same node: the first path stands for it. */
export function signatureOf(tree: readonly (readonly [string, number, Described])[]): string {
  const firstPath = new Map<number, string>()
  const sorted = [...tree].sort(([one], [other]) => (one < other ? -1 : 1))
  return sorted
    .map(([path, id, node]) => {
      const same = firstPath.get(id)
      if (same !== undefined) return `${path} = ${same}`
      firstPath.set(id, path)
      const { type, mode, uid, gid, nlink, size, target } = node
      const attributes = [...node.xattrs].sort().map(([name, value]) => `${name}=${value}`)
      const shown = type === 'file' ? size : target
      const words = [path, type, mode.toString(8), uid, gid, nlink, shown, ...attributes]
      return words.join(' ')
    })
    .join('\n')
}

export function emptyNode(id: number, type: NodeType, mode: number): Node {
  return {
    id,
    type,
    mode,
    uid: 0,
    gid: 0,
    nlink: type === 'directory' ? 2 : 1,
    size: 0,
    target: '',
    mtime: undefined,
    bytes: Buffer.alloc(0),
    entries: new Map(),
    xattrs: new Map(),
    poisoned: new Set(),
    generations: new Map(),
  }
}

let lastGeneration = 0

/** One that no block had before. */
export function newGeneration(): number {
  return ++lastGeneration
}

/** File blocks that the bytes [from, to) lie in. */
export function* blocksOf(from: number, to: number): Generator<number> {
  for (let block = Math.floor(from / BLOCK); block * BLOCK < to; block++) yield block
}

/** A state being made from another. */
export class Draft {
  readonly #nodes: Map<number, Node>
  readonly #own = new Set<number>()

  constructor(from: State) {
    this.#nodes = new Map(from.nodes)
  }

  finish(): State {
    return new State(this.#nodes)
  }

  has(id: number): boolean {
    return this.#nodes.has(id)
  }

  /** The node, as this draft's own to change. */
  node(id: number): Node {
    const node = this.#nodes.get(id)!
    if (this.#own.has(id)) return node
    const copy: Node = {
      ...node,
      bytes: Buffer.from(node.bytes),
      entries: new Map(node.entries),
      xattrs: new Map(node.xattrs),
      poisoned: new Set(node.poisoned),
      generations: new Map(node.generations),
    }
    this.#own.add(id)
    this.#nodes.set(id, copy)
    return copy
  }

  add(node: Node): void {
    this.#nodes.set(node.id, node)
    this.#own.add(node.id)
  }

  remove(id: number): void {
    this.#nodes.delete(id)
  }

  enter(parent: number, name: string, id: number): void {
    const dir = this.node(parent)
    dir.entries.set(name, id)
    dir.mtime = undefined
    if (this.node(id).type === 'directory') dir.nlink++
  }

  /** Takes a name away; the node itself stays. */
  leave(parent: number, name: string): number {
    const dir = this.node(parent)
    const id = dir.entries.get(name)!
    dir.entries.delete(name)
    dir.mtime = undefined
    if (this.node(id).type === 'directory') dir.nlink--
    return id
  }

  /** ... and drops its link: without any it is gone but for who has it open. */
  drop(parent: number, name: string): void {
    const node = this.node(this.leave(parent, name))
    node.nlink = node.type === 'directory' ? 0 : node.nlink - 1
  }

  write(id: number, offset: number, bytes: Uint8Array): void {
    const node = this.node(id)
    const end = offset + bytes.length
    if (end > node.size) this.resize(id, end)
    node.bytes.set(bytes, offset)
    node.mtime = undefined
    for (const block of [...node.poisoned]) {
      const whole = offset <= block * BLOCK && (end >= (block + 1) * BLOCK || end >= node.size)
      if (!whole) continue
      // Healed: the file moves onto another block.
      node.poisoned.delete(block)
      node.generations.delete(block)
    }
    for (const block of blocksOf(offset, end)) {
      if (!node.generations.has(block)) node.generations.set(block, newGeneration())
    }
  }

  /**
   * Unless the file grows nothing is kept behind the end, not even what a crash in the middle of
   * another truncate left.
   */
  truncate(id: number, size: number): void {
    const grows = size > this.node(id).size
    this.resize(id, size)
    if (!grows) forget(this.node(id), Math.ceil(size / BLOCK), Number.POSITIVE_INFINITY)
  }

  resize(id: number, size: number): void {
    const node = this.node(id)
    if (size > node.bytes.length) {
      const grown = Buffer.alloc(size)
      node.bytes.copy(grown)
      node.bytes = grown
    }
    const [less, more] = [Math.min(size, node.size), Math.max(size, node.size)]
    if (size > node.size) node.bytes.fill(0, node.size, size)
    // What a growing file leaves out reads zeros; zeros in a part of a block are stored in place.
    const last = size < node.size ? Number.POSITIVE_INFINITY : Math.floor(more / BLOCK)
    forget(node, Math.ceil(less / BLOCK), last)
    node.size = size
    node.mtime = undefined
    for (const block of [...node.poisoned]) {
      if (block * BLOCK >= size) node.poisoned.delete(block)
    }
  }

  /** Punch and zero: the range reads zeros. */
  clear(id: number, from: number, to: number): void {
    const node = this.node(id)
    node.bytes.fill(0, Math.min(from, node.bytes.length), Math.min(to, node.bytes.length))
    node.mtime = undefined
    forget(
      node,
      Math.ceil(from / BLOCK),
      Math.floor((to >= node.size ? to + BLOCK - 1 : to) / BLOCK),
    )
    for (const block of [...node.poisoned]) {
      const end = Math.min((block + 1) * BLOCK, node.size)
      if (from <= block * BLOCK && end <= to) node.poisoned.delete(block)
    }
  }
}

/** These blocks, from `first` to before `last`, are holes or preallocated from now on. */
function forget({ generations }: Node, first: number, last: number): void {
  for (const block of [...generations.keys()]) {
    if (first <= block && block < last) generations.delete(block)
  }
}
