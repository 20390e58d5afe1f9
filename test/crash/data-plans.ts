/** The operations on the bytes and the shape of files. */
import { COPY_PIECE } from '../../src/fs/file-space.ts'
import { BLOCK, type Draft, emptyNode, type Node, type State } from './model.ts'
import { FREES_ONE_BY_ONE } from './narrow.ts'
import type { Kind } from './operations.ts'
import type { Plan, Planner } from './plans.ts'
import type { Random } from './random.ts'
import { caller, type World } from './world.ts'

const OFFSET_MAX = 60_000
const LENGTH_MAX = 20_000
const FALLOC_KEEP = 1
const FALLOC_PUNCH = 3
const FALLOC_ZERO = 0x10
/** Blocks that a filled region has left. */
const LEFT_BLOCKS = 24

interface Range {
  readonly offset: number
  readonly length: number
}

function someRange(random: Random, node: Node): Range {
  const offset = random.below(3) === 0 ? random.below(OFFSET_MAX) : random.below(node.size + 5000)
  const length = 1 + random.below(random.pick([16, 5000, LENGTH_MAX]))
  if (random.below(3) > 0) return { offset, length }
  return { offset: offset - (offset % BLOCK), length: Math.ceil(length / BLOCK) * BLOCK }
}

/** Failed memory is healed by whole blocks only: anything else is EIO, which is not our subject. */
function healing(world: World, node: Node, range: Range): Range {
  if (!world.touchesPoison(node, range.offset, range.offset + range.length)) return range
  const offset = range.offset - (range.offset % BLOCK)
  return { offset, length: Math.ceil((range.offset + range.length) / BLOCK) * BLOCK - offset }
}

function writePlan(world: World, node: Node, { offset, length }: Range, append: boolean): Plan {
  const { id } = node
  const bytes = world.uniqueBytes(id, offset, length)
  const killPrivileges = (node.mode & 0o6000) !== 0
  const stepsFor = (count: number): State[] => {
    const killed = world.state.change((draft) => {
      draft.node(id).mode &= (node.mode & 0o010) === 0 ? ~0o4000 : ~0o6000
    })
    const before = killPrivileges ? killed : world.state
    const after = before.change((draft) => draft.write(id, offset, bytes.subarray(0, count)))
    return killPrivileges ? [killed, after] : [after]
  }
  return {
    text: `write ${length} bytes at ${offset} of node ${id}${append ? ' (append)' : ''}`,
    steps: stepsFor(length),
    run() {
      const options = { cached: false, killPrivileges, append }
      return world.withHandle(id, (handle) =>
        world.fs.write(handle, append ? 0 : offset, bytes, 0, length, options),
      )
    },
    after: (count) => stepsFor(count as number),
  }
}

function write(world: World, random: Random): Plan | undefined {
  const node = world.file(random)
  if (node === undefined) return undefined
  return writePlan(world, node, healing(world, node, someRange(random, node)), false)
}

function append(world: World, random: Random): Plan | undefined {
  const node = world.file(random)
  if (node === undefined) return undefined
  const range = { offset: node.size, length: 1 + random.below(LENGTH_MAX) }
  if (world.touchesPoison(node, node.size - 1, node.size + 1)) return undefined
  return writePlan(world, node, range, true)
}

function overwrite(world: World, random: Random): Plan | undefined {
  const node = world.file(random)
  if (node === undefined || node.size === 0) return undefined
  const offset = random.below(node.size)
  const length = 1 + random.below(Math.min(node.size - offset, LENGTH_MAX))
  if (world.touchesPoison(node, offset, offset + length)) return undefined
  return writePlan(world, node, { offset, length }, false)
}

function truncate(world: World, random: Random): Plan | undefined {
  const node = world.file(random)
  if (node === undefined) return undefined
  const { id } = node
  const size = random.pick([0, random.below(node.size + 1), node.size + random.below(9000)])
  return {
    text: `truncate node ${id} from ${node.size} to ${size}`,
    steps: [world.state.change((draft) => draft.truncate(id, size))],
    run: () => world.fs.setattr(world.inode(id), { size }, caller),
  }
}

function fallocate(
  world: World,
  random: Random,
  mode: number,
  edits: (node: Node, range: Range) => ((draft: Draft) => void)[],
): Plan | undefined {
  const node = world.file(random)
  if (node === undefined) return undefined
  const { id } = node
  const range = healing(world, node, someRange(random, node))
  const steps: State[] = []
  for (const edit of edits(node, range)) {
    steps.push((steps.at(-1) ?? world.state).change(edit))
  }
  return {
    text: `fallocate mode ${mode} of ${range.length} bytes at ${range.offset} of node ${id}`,
    steps,
    run() {
      world.withHandle(id, (handle) => world.fs.fallocate(handle, mode, range.offset, range.length))
    },
  }
}

function growTo(node: Node, { offset, length }: Range): (draft: Draft) => void {
  return (draft) => {
    if (offset + length > node.size) draft.resize(node.id, offset + length)
    draft.node(node.id).mtime = undefined
  }
}

/** All at once; where one record frees one extent only, first the edges, then block by block. */
function clearing({ id }: Node, { offset, length }: Range): ((draft: Draft) => void)[] {
  const end = offset + length
  const whole = (draft: Draft) => draft.clear(id, offset, end)
  if (!FREES_ONE_BY_ONE) return [whole]
  const first = Math.ceil(offset / BLOCK)
  const last = Math.floor(end / BLOCK)
  const edges = (draft: Draft) => {
    draft.clear(id, offset, Math.min(end, first * BLOCK))
    if (first <= last) draft.clear(id, last * BLOCK, end)
  }
  const blocks = Array.from({ length: Math.max(0, last - first) }, (_, index) => {
    return (draft: Draft) => draft.clear(id, (last - 1 - index) * BLOCK, end)
  })
  return [edges, ...blocks, whole]
}

function copy(world: World, random: Random): Plan | undefined {
  const from = world.file(random)
  const to = world.file(random)
  if (from === undefined || to === undefined || from === to || from.size === 0) return undefined
  const offset = random.below(from.size)
  const length = Math.min(from.size - offset, 1 + random.below(LENGTH_MAX))
  const at = random.below(to.size + 5000)
  if (world.touchesPoison(from, offset, offset + length)) return undefined
  if (world.touchesPoison(to, at, at + length) || (to.mode & 0o6000) !== 0) return undefined
  const stepsFor = (count: number) => {
    const pieces = Array.from({ length: Math.ceil(count / COPY_PIECE) }, (_, piece) => {
      return Math.min((piece + 1) * COPY_PIECE, count)
    })
    return pieces.map((done) =>
      world.state.change((draft) => {
        draft.write(to.id, at, from.bytes.subarray(offset, offset + done))
      }),
    )
  }
  return {
    text: `copy ${length} bytes at ${offset} of node ${from.id} to ${at} of node ${to.id}`,
    steps: stepsFor(length),
    run: () =>
      world.withHandle(from.id, (source) =>
        world.withHandle(to.id, (target) =>
          world.fs.copyFileRange(source, offset, target, at, length),
        ),
      ),
    after: (count) => stepsFor(count as number),
  }
}

/** A file without bytes that has nearly all blocks: whoever wants some gets freed ones. */
function fill(world: World): Plan | undefined {
  const id = [...world.directories(), ...world.files()].length
  const name = `fill${id}`
  const node = world.newNode()
  const made = world.state.change((draft) => {
    const parent = draft.node(1)
    draft.add(emptyNode(node, 'file', 0o600))
    parent.entries.set(name, node)
    parent.mtime = undefined
  })
  return {
    text: `fill the region but for ${LEFT_BLOCKS} blocks`,
    steps: [made],
    run() {
      const handle = world.fs.create(1, Buffer.from(name), 0o600, 2, caller)
      const blocks = world.fs.statfs().free - LEFT_BLOCKS
      if (blocks > 0) world.fs.fallocate(handle, FALLOC_KEEP, 0, blocks * BLOCK)
      world.fs.release(handle)
      world.made(node, handle.ino)
    },
  }
}

function poisonFile(world: World, random: Random): Plan | undefined {
  const node = world.file(random)
  if (node === undefined || node.size === 0 || node.poisoned.size > 0) return undefined
  const { id } = node
  const { extents } = world.fs.administration.getmap(world.inode(id))
  const inside = extents.filter(({ fileOffset, flags }) => {
    return fileOffset < node.size && !flags.includes('unwritten')
  })
  if (inside.length === 0) return undefined
  const { fileOffset } = random.pick(inside)
  const block = Math.floor(fileOffset / BLOCK)
  return {
    text: `memory failure under block ${block} of node ${id}`,
    steps: [world.state.change((draft) => draft.node(id).poisoned.add(block))],
    run() {
      const target = { kind: 'file', inode: world.inode(id), fileOffset } as const
      world.fs.administration.inject({ target, length: BLOCK, method: 'soft' })
      world.held.delete(id)
    },
  }
}

function poisonFree(world: World): Plan {
  return {
    text: 'memory failure in free space',
    steps: [],
    run: () =>
      world.fs.administration.inject({ target: { kind: 'free' }, length: BLOCK, method: 'soft' }),
  }
}

/** Under the checkpoint slot that is not in use, or where no record lies that is needed. */
function poisonMetadata(world: World, random: Random): Plan | undefined {
  const { superblock, journal, geometry, device } = world.fs.volume
  const standby = superblock.slots[superblock.checkpoint.slot === 0 ? 1 : 0]
  const inUse = journal.rangesInUse()
  const unused = geometry.journal.flatMap(({ offset, length }) => {
    const used = inUse.find((range) => range.offset === offset)?.length ?? 0
    const start = offset + Math.ceil(used / BLOCK + 2) * BLOCK
    return start < offset + length ? [{ start, end: offset + length }] : []
  })
  const slots = standby.map(({ block, blocks }) => {
    return { start: block * BLOCK, end: (block + blocks) * BLOCK }
  })
  const { start, end } = random.pick(random.chance(0.5) || unused.length === 0 ? slots : unused)
  // Near the start of what is unused, where the journal soon comes by.
  const reach = random.pick([4, (end - start) / BLOCK])
  const offset = start + random.below(Math.min(reach, (end - start) / BLOCK)) * BLOCK
  if (device.badRanges.overlaps(offset, BLOCK)) return undefined
  return {
    text: `memory failure at ${offset}, in metadata not in use`,
    steps: [],
    run: () => device.memoryFailure(offset, BLOCK),
  }
}

function clearPoison(world: World): Plan | undefined {
  const hurt = [...world.state.nodes.values()].some(({ poisoned }) => poisoned.size > 0)
  if (hurt) return undefined
  return { text: 'clear poison', steps: [], run: () => world.fs.administration.clearPoison('all') }
}

export const dataPlans: Partial<Record<Kind, Planner>> = {
  write,
  append,
  overwrite,
  truncate,
  copy,
  fill,
  poisonFile,
  poisonFree,
  poisonMetadata,
  clearPoison,
  allocate: (world, random) => fallocate(world, random, 0, (node, range) => [growTo(node, range)]),
  keep: (world, random) =>
    fallocate(world, random, FALLOC_KEEP, (node) => [
      (draft) => {
        draft.node(node.id).mtime = undefined
      },
    ]),
  punch: (world, random) =>
    fallocate(world, random, FALLOC_PUNCH, (node, range) => clearing(node, range)),
  zero: (world, random) =>
    fallocate(world, random, FALLOC_ZERO, (node, range) => [
      ...clearing(node, range),
      growTo(node, range),
    ]),
}
