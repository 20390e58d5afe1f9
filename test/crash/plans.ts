/** What an operation means in the tree it meets: the calls, and the states they lead through. */
import { RENAME_EXCHANGE, RENAME_NOREPLACE } from '../../src/fs/operations.ts'
import { dataPlans } from './data-plans.ts'
import { emptyNode, type NodeType, type State } from './model.ts'
import type { Kind } from './operations.ts'
import type { Random } from './random.ts'
import { attributeText } from './survey.ts'
import { caller, type World } from './world.ts'

export interface Plan {
  readonly text: string
  /** The states it leads through when it succeeds, the last being its result. */
  readonly steps: readonly State[]
  run(): unknown
  /** The states after all, when the call did less than it was asked for. */
  after?(result: unknown): readonly State[]
}

export type Planner = (world: World, random: Random) => Plan | undefined

const S_IFIFO = 0o010000
const O_RDWR_EXCL = 0o202

const bytesOf = (text: string) => Buffer.from(text)

function make(
  world: World,
  random: Random,
  type: NodeType,
  call: (parent: number, name: Buffer, mode: number) => number,
): Plan | undefined {
  const place = world.freePlace(random)
  if (place === undefined) return undefined
  const mode = random.pick([0o644, 0o600, 0o755])
  const id = world.newNode()
  const step = world.state.change((draft) => {
    const node = emptyNode(id, type, type === 'symlink' ? 0o777 : mode)
    if (type === 'symlink') node.target = targetOf(id)
    draft.add(node)
    draft.enter(place.parent, place.name, id)
  })
  return {
    text: `${type} ${place.name} in node ${place.parent} as node ${id}`,
    steps: [step],
    run() {
      world.made(id, call(world.inode(place.parent), bytesOf(place.name), mode))
    },
  }
}

const targetOf = (id: number) => `target/of/${id}`

function tmpfile(world: World, random: Random): Plan {
  const parent = random.pick(world.directories())
  const id = world.newNode()
  const node = { ...emptyNode(id, 'file', 0o600), nlink: 0 }
  return {
    text: `tmpfile as node ${id}`,
    steps: [world.state.change((draft) => draft.add(node))],
    run() {
      const handle = world.fs.tmpfile(world.inode(parent), 0o600, O_RDWR_EXCL, caller)
      world.held.set(id, handle)
      world.made(id, handle.ino)
    },
  }
}

function linkTo(world: World, random: Random, id: number | undefined): Plan | undefined {
  const place = world.freePlace(random)
  if (id === undefined || place === undefined) return undefined
  return {
    text: `link node ${id} as ${place.name} in node ${place.parent}`,
    steps: [
      world.state.change((draft) => {
        draft.node(id).nlink++
        draft.enter(place.parent, place.name, id)
      }),
    ],
    run() {
      const { ino } = world.fs.link(world.inode(id), world.inode(place.parent), bytesOf(place.name))
      world.fs.forget(ino, 1)
    },
  }
}

function linkHeld(world: World, random: Random): Plan | undefined {
  const unnamed = [...world.held.keys()].filter((id) => world.state.node(id).nlink === 0)
  return unnamed.length === 0 ? undefined : linkTo(world, random, random.pick(unnamed))
}

function link(world: World, random: Random): Plan | undefined {
  return linkTo(world, random, world.name(random, ({ type }) => type !== 'directory')?.id)
}

function unlink(world: World, random: Random): Plan | undefined {
  const found = world.name(random, ({ type }) => type !== 'directory')
  if (found === undefined) return undefined
  const { parent, name, id } = found
  return {
    text: `unlink ${name} in node ${parent} (node ${id})`,
    steps: [world.state.change((draft) => draft.drop(parent, name))],
    run: () => world.fs.unlink(world.inode(parent), bytesOf(name)),
  }
}

function rmdir(world: World, random: Random): Plan | undefined {
  const found = world.name(
    random,
    ({ type, entries }) => type === 'directory' && entries.size === 0,
  )
  if (found === undefined) return undefined
  const { parent, name, id } = found
  return {
    text: `rmdir ${name} in node ${parent} (node ${id})`,
    steps: [world.state.change((draft) => draft.drop(parent, name))],
    run: () => world.fs.rmdir(world.inode(parent), bytesOf(name)),
  }
}

function renameInto(
  world: World,
  found: { parent: number; name: string; id: number },
  place: { parent: number; name: string },
  flags: number,
): Plan {
  const { parent, name, id } = found
  const step = world.state.change((draft) => {
    const target = draft.node(place.parent).entries.get(place.name)
    if (target === id) return
    if (target !== undefined) draft.drop(place.parent, place.name)
    draft.leave(parent, name)
    draft.enter(place.parent, place.name, id)
  })
  return {
    text: `rename ${name} in node ${parent} to ${place.name} in node ${place.parent}`,
    steps: [step],
    run() {
      const { fs } = world
      const to = [world.inode(place.parent), bytesOf(place.name)] as const
      fs.rename(world.inode(parent), bytesOf(name), ...to, flags)
    },
  }
}

function rename(world: World, random: Random): Plan | undefined {
  const found = world.name(random, () => true)
  if (found === undefined) return undefined
  return renameInto(world, found, world.anyPlace(random), random.pick([0, RENAME_NOREPLACE]))
}

function renameOver(world: World, random: Random): Plan | undefined {
  const files = (node: { type: NodeType }) => node.type !== 'directory'
  const found = world.name(random, files)
  const place = world.name(random, files)
  return found === undefined ? undefined : renameInto(world, found, place!, 0)
}

function exchange(world: World, random: Random): Plan | undefined {
  const one = world.name(random, () => true)
  const other = world.name(random, () => true)
  if (one === undefined || other === undefined) return undefined
  return {
    text: `exchange ${one.name} in node ${one.parent} and ${other.name} in node ${other.parent}`,
    steps: [
      world.state.change((draft) => {
        if (one.id === other.id) return
        draft.leave(one.parent, one.name)
        draft.leave(other.parent, other.name)
        draft.enter(other.parent, other.name, one.id)
        draft.enter(one.parent, one.name, other.id)
      }),
    ],
    run() {
      const { fs } = world
      const to = [world.inode(other.parent), bytesOf(other.name)] as const
      fs.rename(world.inode(one.parent), bytesOf(one.name), ...to, RENAME_EXCHANGE)
    },
  }
}

function setxattr(world: World, random: Random, length: number): Plan | undefined {
  const files = [...world.directories(), ...world.files()]
  const id = random.pick(files)
  const name = `user.a${random.below(3)}`
  const value = world.uniqueBytes(id, 0, length)
  return {
    text: `setxattr ${name} of node ${id}, ${length} bytes`,
    steps: [world.state.change((draft) => draft.node(id).xattrs.set(name, attributeText(value)))],
    run: () => world.fs.setxattr(world.inode(id), bytesOf(name), value, 0, false),
  }
}

function removexattr(world: World, random: Random): Plan | undefined {
  const found = world.name(random, ({ xattrs }) => xattrs.size > 0)
  if (found === undefined) return undefined
  const name = random.pick([...world.state.node(found.id).xattrs.keys()])
  return {
    text: `removexattr ${name} of node ${found.id}`,
    steps: [world.state.change((draft) => draft.node(found.id).xattrs.delete(name))],
    run: () => world.fs.removexattr(world.inode(found.id), bytesOf(name)),
  }
}

function setattr(world: World, random: Random, what: 'mode' | 'owner' | 'mtime'): Plan | undefined {
  const found = world.name(random, ({ type }) => type !== 'symlink')
  if (found === undefined) return undefined
  const { id } = found
  const isFile = world.state.node(id).type === 'file'
  const number = random.below(1000) + 1
  const mode = random.pick(isFile ? [0o600, 0o4755, 0o2711, 0o640] : [0o700, 0o1777, 0o755])
  const step = world.state.change((draft) => {
    const node = draft.node(id)
    if (what === 'mode') node.mode = mode
    else if (what === 'owner') {
      node.uid = number
      node.gid = number + 1
    } else node.mtime = number
  })
  const changes = {
    mode: { mode },
    owner: { uid: number, gid: number + 1 },
    mtime: { mtime: { seconds: number, nanoseconds: 0 } },
  }
  return {
    text: `set ${what} of node ${id}`,
    steps: [step],
    run: () => world.fs.setattr(world.inode(id), changes[what], caller),
  }
}

function hold(world: World, random: Random): Plan | undefined {
  const node = world.file(random)
  if (node === undefined || world.held.has(node.id)) return undefined
  return {
    text: `open node ${node.id}`,
    steps: [],
    run: () => world.held.set(node.id, world.fs.open(world.inode(node.id), 2, false)),
  }
}

function release(world: World, random: Random): Plan | undefined {
  if (world.held.size === 0) return undefined
  const id = random.pick([...world.held.keys()])
  return {
    text: `close node ${id}`,
    steps: [],
    run() {
      world.fs.release(world.held.get(id)!)
      world.held.delete(id)
    },
  }
}

const BULK_BYTES = 60_000

export const plans: Partial<Record<Kind, Planner>> = {
  ...dataPlans,
  create: (world, random) =>
    make(world, random, 'file', (parent, name, mode) => {
      const handle = world.fs.create(parent, name, mode, O_RDWR_EXCL, caller)
      world.fs.release(handle)
      return handle.ino
    }),
  mkdir: (world, random) =>
    make(world, random, 'directory', (parent, name, mode) => {
      return world.fs.mkdir(parent, name, mode, caller).ino
    }),
  symlink: (world, random) => {
    let target = ''
    const plan = make(world, random, 'symlink', (parent, name) => {
      return world.fs.symlink(parent, name, bytesOf(target), caller).ino
    })
    const made = plan?.steps[0]?.nodes
    target = made === undefined ? '' : ([...made.values()].at(-1)?.target ?? '')
    return plan
  },
  fifo: (world, random) =>
    make(world, random, 'fifo', (parent, name, mode) => {
      return world.fs.mknod(parent, name, S_IFIFO | mode, 0, caller).ino
    }),
  tmpfile,
  linkHeld,
  link,
  unlink,
  rmdir,
  rename,
  renameOver,
  exchange,
  setxattr: (world, random) => setxattr(world, random, 1 + random.below(200)),
  bulk: (world, random) => setxattr(world, random, BULK_BYTES),
  removexattr,
  chmod: (world, random) => setattr(world, random, 'mode'),
  chown: (world, random) => setattr(world, random, 'owner'),
  utimes: (world, random) => setattr(world, random, 'mtime'),
  hold,
  release,
}
