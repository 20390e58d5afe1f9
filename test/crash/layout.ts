/**
 * Which blocks of files hold data. The model foretells it, for it decides what may be stored in
 * place; after a mount it is asked for, for of two states that look alike one was found.
 */
import type { Filesystem } from '../../src/fs/filesystem.ts'
import { blocksOf, newGeneration, type State } from './model.ts'
import type { Tree } from './survey.ts'

/** The state with every block that holds data as such, and no other. */
export function asLaidOut(fs: Filesystem, state: State, tree: Tree): State {
  return state.change((draft) => {
    for (const [path, { id, type }] of state.paths()) {
      if (type !== 'file') continue
      const own = draft.node(id)
      const known = own.generations
      own.generations = new Map()
      for (const block of writtenBlocks(fs, tree.get(path)!.ino)) {
        own.generations.set(block, known.get(block) ?? newGeneration())
      }
    }
  })
}

/** How the blocks of a file differ from what the model foretold. */
export function layoutDifference(
  fs: Filesystem,
  state: State,
  inodes: ReadonlyMap<number, number>,
): string | undefined {
  for (const { id, type, nlink, generations } of state.nodes.values()) {
    if (type !== 'file' || nlink === 0) continue
    const written = new Set(writtenBlocks(fs, inodes.get(id)!))
    for (const block of new Set([...written, ...generations.keys()])) {
      if (written.has(block) === generations.has(block)) continue
      return `block ${block} of node ${id} ${written.has(block) ? 'holds data' : 'is a hole or preallocated'}`
    }
  }
  return undefined
}

function* writtenBlocks(fs: Filesystem, ino: number): Generator<number> {
  for (const { fileOffset, length, flags } of fs.administration.getmap(ino).extents) {
    if (!flags.includes('unwritten')) yield* blocksOf(fileOffset, fileOffset + length)
  }
}
