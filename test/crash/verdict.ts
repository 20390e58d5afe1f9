/**
 * Is a crash image a filesystem that a user may find? fsck, a mount with the real replay, and the
 * comparison with every state of the model that the promises allow.
 */
import { bootId } from '../../src/dax/identity.ts'
import type { SimulatedMemory } from '../../src/dax/simulated-memory.ts'
import { checkIndex } from '../../src/fs/check/check.ts'
import { examine } from '../../src/fs/check/examine.ts'
import type { Problem } from '../../src/fs/check/problem.ts'
import { ENOSPC, FsError } from '../../src/fs/errors.ts'
import type { Filesystem } from '../../src/fs/filesystem.ts'
import type { Candidates } from './history.ts'
import { BLOCK, blocksOf, type Node, type State } from './model.ts'
import { abandon, mountMemory, Plug } from './mounting.ts'
import { type Found, readFile, signatureOfTree, survey, type Tree } from './survey.ts'

const WORD = 8
const caller = { uid: 0, gid: 0, pid: 1, umask: 0 }

/** A promise that was broken. */
export class Violation extends Error {}

export interface Judgement {
  /** The state it is, with the bytes that are really there. */
  readonly state: State
  readonly tree: Tree
}

export interface JudgeOptions {
  /** Let every file grow, and look at what appears. */
  readonly grow: boolean
  /** Says what wrote a word. */
  readonly originOf: (word: bigint) => string
}

/**
 * Mounts the image, which is changed by it. Whoever listens to the memory hears the mount only.
 * Throws Violation.
 */
export function judge(
  memory: SimulatedMemory,
  candidates: Candidates,
  options: JudgeOptions,
): Judgement {
  runFsck(memory)
  const plug = new Plug(memory)
  const fs = mountImage(plug)
  memory.onPersist = undefined
  try {
    const judgement = compare(survey(fs), candidates, options.originOf)
    if (options.grow) for (const found of filesOf(judgement.tree)) requireZerosBehind(fs, found)
    requireSound('after the mount', checkMounted(fs))
    return judgement
  } finally {
    plug.pull()
    abandon(fs)
  }
}

export function checkMounted(fs: Filesystem): Problem[] {
  const { index, geometry, superblock } = fs.volume
  return checkIndex(index.database, geometry, superblock)
}

function runFsck(memory: SimulatedMemory): void {
  const stages = examine(memory, { bootId: bootId() })
  for (;;) {
    const { done, value } = stages.next()
    if (!done) continue
    value.salvaged?.index.close()
    // A crash may tear the copy that is being written; the other one serves.
    const torn = (problem: Problem) =>
      problem.code === 'superblock-damaged' && value.superblock !== undefined
    requireSound(
      'fsck',
      value.problems.filter((problem) => !torn(problem)),
    )
    return
  }
}

function requireSound(when: string, problems: readonly Problem[]): void {
  if (problems.length === 0) return
  throw new Violation(`${when}: ${problems.map(({ message }) => message).join('; ')}`)
}

function mountImage(memory: Plug): Filesystem {
  try {
    return mountMemory(memory)
  } catch (error) {
    throw new Violation(`the mount failed: ${(error as Error).message}`)
  }
}

/** The latest candidate that the tree can be. */
export function compare(
  tree: Tree,
  candidates: Candidates,
  originOf: (word: bigint) => string,
): Judgement {
  const signature = signatureOfTree(tree)
  let reason: string | undefined
  for (let at = candidates.length - 1; at >= 0; at--) {
    if (candidates[at]!.signature !== signature) continue
    const why = firstDifference(tree, candidates.slice(at), originOf)
    if (why === undefined) return { state: asFound(candidates[at]!, tree), tree }
    reason ??= why
  }
  throw new Violation(reason ?? differenceOf(signature, candidates))
}

/**
 * Why the bytes or times of the tree cannot be those of the first state, with what later ones
 * stored in place showing through.
 */
function firstDifference(
  tree: Tree,
  states: Candidates,
  originOf: (word: bigint) => string,
): string | undefined {
  for (const [path, node] of states[0]!.paths()) {
    const found = tree.get(path)!
    if (node.mtime !== undefined && node.mtime !== found.mtime) {
      return `${path} lost the time that was set: ${found.mtime} instead of ${node.mtime}`
    }
    if (node.type !== 'file') continue
    const versions = states
      .map((state) => state.nodes.get(node.id))
      .filter((one) => one !== undefined)
    const why = differingBytes(found, versions, originOf)
    if (why !== undefined) return `${path} ${why}`
  }
  return undefined
}

function differingBytes(
  found: Found,
  versions: readonly Node[],
  originOf: (word: bigint) => string,
): string | undefined {
  const { bytes, unreadable } = found
  const bad = new Set(versions.flatMap(({ poisoned }) => [...poisoned]))
  for (const block of unreadable) {
    if (!bad.has(block)) return `cannot be read in block ${block}`
  }
  const first = versions[0]!
  if (bad.size === 0 && isSame(bytes, first, 0, bytes.length)) return undefined
  for (const block of blocksOf(0, bytes.length)) {
    const start = block * BLOCK
    const end = Math.min(start + BLOCK, bytes.length)
    if (bad.has(block) || isSame(bytes, first, start, end)) continue
    const inPlace = storedInPlace(block, versions)
    const at = unknownWord(bytes, start, end, inPlace)
    if (at === undefined) continue
    const word = Buffer.alloc(WORD)
    bytes.copy(word, 0, at, Math.min(at + WORD, end))
    const kind = first.generations.has(block) ? 'block' : 'hole'
    const shown = originOf(word.readBigUInt64BE())
    return `at byte ${at} of ${bytes.length}, in ${kind} ${block}, shows ${shown}`
  }
  return undefined
}

/**
 * The versions whose bytes a block of the first one may show. In a hole or a preallocated block
 * that is none but its own: bytes in blocks that are new to a file appear whole, with their record.
 */
function storedInPlace(block: number, versions: readonly Node[]): readonly Node[] {
  const first = versions[0]!
  const generation = first.generations.get(block)
  if (generation === undefined) return [first]
  return versions.filter(({ generations }) => generations.get(block) === generation)
}

/** Where the first word is that no version has; undefined when there is none. */
function unknownWord(
  bytes: Buffer,
  start: number,
  end: number,
  versions: readonly Node[],
): number | undefined {
  for (let at = start; at < end; at += WORD) {
    const stop = Math.min(at + WORD, end)
    if (!versions.some((version) => isSame(bytes, version, at, stop))) return at
  }
  return undefined
}

function isSame(bytes: Buffer, version: Node, from: number, to: number): boolean {
  return version.bytes.length >= to && version.bytes.compare(bytes, from, to, from, to) === 0
}

function differenceOf(signature: string, candidates: Candidates): string {
  const found = signature.split('\n')
  const nearest = candidates
    .map((state) => state.signature.split('\n'))
    .map((lines) => ({
      missing: lines.filter((line) => !found.includes(line)),
      extra: found.filter((line) => !lines.includes(line)),
    }))
    .sort((a, b) => a.missing.length + a.extra.length - b.missing.length - b.extra.length)[0]!
  const list = (lines: readonly string[]) => (lines.length === 0 ? 'nothing' : lines.join(', '))
  return (
    `the tree is none of the ${candidates.length} states it may be; nearest: ` +
    `missing ${list(nearest.missing)}; instead ${list(nearest.extra)}`
  )
}

function* filesOf(tree: Tree): Generator<Found> {
  const seen = new Set<number>()
  for (const found of tree.values()) {
    if (found.type !== 'file' || seen.has(found.ino)) continue
    seen.add(found.ino)
    yield found
  }
}

/** What lies behind the end of a file must not come to light when the file grows. */
function requireZerosBehind(fs: Filesystem, { ino, size }: Found): void {
  const grown = (Math.floor(size / BLOCK) + 2) * BLOCK + 100
  try {
    fs.setattr(ino, { size: grown }, caller)
  } catch (error) {
    // Bad memory may have left no room for an image of a larger index.
    if (error instanceof FsError && error.errno === ENOSPC) return
    throw error
  }
  const unreadable = new Set<number>()
  const bytes = readFile(fs, ino, grown, unreadable)
  for (let at = size; at < grown; at++) {
    if (bytes[at] === 0 || unreadable.has(Math.floor(at / BLOCK))) continue
    throw new Violation(`inode ${ino} grew from ${size} bytes, and byte ${at} is not zero`)
  }
}

/** The state with the bytes that were found: what a run goes on with after a crash. */
function asFound(state: State, tree: Tree): State {
  return state.change((draft) => {
    for (const [path, node] of state.paths()) {
      if (node.type !== 'file') continue
      const found = tree.get(path)!
      const own = draft.node(node.id)
      const bytes = Buffer.from(found.bytes)
      own.bytes = bytes
      own.mtime = node.mtime
    }
    const named = new Set(state.names().map(({ id }) => id))
    for (const id of state.nodes.keys()) if (id !== 1 && !named.has(id)) draft.remove(id)
  })
}
