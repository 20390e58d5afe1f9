/**
 * Generated operations. One is a kind and a few numbers, and finds its files in whatever tree it
 * meets: so a sequence still makes sense when a shrinker has left operations out.
 */
import { Random } from './random.ts'

export const KINDS = [
  'create',
  'write',
  'append',
  'overwrite',
  'truncate',
  'allocate',
  'keep',
  'punch',
  'zero',
  'copy',
  'rename',
  'renameOver',
  'exchange',
  'link',
  'unlink',
  'mkdir',
  'rmdir',
  'symlink',
  'fifo',
  'setxattr',
  'removexattr',
  'chmod',
  'chown',
  'utimes',
  'tmpfile',
  'linkHeld',
  'hold',
  'release',
  'fsync',
  'fsyncLater',
  'checkpoint',
  'checkpointLater',
  'freeze',
  'turn',
  'writeBack',
  'poisonFile',
  'poisonFree',
  'poisonMetadata',
  'clearPoison',
  'bulk',
  'fill',
  'unmount',
  'killDaemon',
  'powerFailure',
  'powerFailureInside',
] as const

export type Kind = (typeof KINDS)[number]

export interface Operation {
  /** Place in the generated sequence, kept by the shrinker: seeds what is explored meanwhile. */
  readonly at: number
  readonly kind: Kind
  readonly numbers: readonly [number, number, number, number]
}

type Weights = Partial<Record<Kind, number>>

const COMMON: Weights = {
  create: 8,
  write: 8,
  append: 5,
  overwrite: 6,
  truncate: 6,
  allocate: 2,
  keep: 1,
  punch: 3,
  zero: 2,
  copy: 2,
  rename: 3,
  renameOver: 2,
  exchange: 2,
  link: 2,
  unlink: 5,
  mkdir: 2,
  rmdir: 1,
  symlink: 1,
  fifo: 1,
  setxattr: 2,
  removexattr: 1,
  chmod: 2,
  chown: 1,
  utimes: 1,
  tmpfile: 1,
  linkHeld: 1,
  hold: 1,
  release: 1,
  fsync: 4,
  fsyncLater: 2,
  checkpoint: 1,
  checkpointLater: 2,
  freeze: 1,
  turn: 4,
  writeBack: 1,
  unmount: 1,
  killDaemon: 1,
  powerFailure: 1,
  powerFailureInside: 1,
}

interface Flavour {
  readonly first: readonly Kind[]
  readonly weights: Weights
}

/** What a sequence is about. */
const FLAVOURS = {
  plain: { first: ['create', 'write'], weights: COMMON },
  /** A region that is nearly full takes freed blocks at once. */
  full: {
    first: ['fill', 'create', 'write', 'create', 'write'],
    weights: { ...COMMON, write: 14, append: 8, unlink: 9, truncate: 10, fsync: 5 },
  },
  /** Failing memory. */
  failing: {
    first: ['create', 'write', 'create', 'write'],
    weights: {
      ...COMMON,
      checkpointLater: 4,
      poisonFile: 5,
      poisonFree: 2,
      poisonMetadata: 4,
      clearPoison: 2,
      write: 12,
    },
  },
  /** One restart after the other, checkpoints in between. */
  restarts: {
    first: ['create', 'write'],
    weights: {
      ...COMMON,
      checkpoint: 3,
      checkpointLater: 8,
      turn: 8,
      killDaemon: 5,
      powerFailure: 5,
      powerFailureInside: 8,
    },
  },
  /** Long records: the journal runs full and goes round. */
  journal: {
    first: ['create', 'create'],
    weights: { ...COMMON, bulk: 90, powerFailureInside: 4, killDaemon: 2 },
  },
} as const satisfies Record<string, Flavour>

export type FlavourName = keyof typeof FLAVOURS

export const FLAVOUR_NAMES = Object.keys(FLAVOURS) as FlavourName[]

export interface Sequence {
  readonly seed: number
  readonly flavour: FlavourName
  readonly mode: 'cacheline' | 'page'
  readonly operations: readonly Operation[]
}

const LENGTH_MIN = 12
const LENGTH_SPREAD = 30

/** The seed chooses the flavour, unless it is given. */
export function generate(seed: number, mode: Sequence['mode'], wanted?: FlavourName): Sequence {
  const random = new Random(seed)
  const chosen = random.pick(FLAVOUR_NAMES)
  const name = wanted ?? chosen
  const flavour: Flavour = FLAVOURS[name]
  const length = LENGTH_MIN + random.below(LENGTH_SPREAD)
  const choose = weighted(flavour.weights)
  const operations: Operation[] = []
  for (let at = 0; at < length; at++) {
    const kind = flavour.first[at] ?? choose(random)
    const numbers = [random.next(), random.next(), random.next(), random.next()] as const
    operations.push({ at, kind, numbers })
  }
  return { seed, flavour: name, mode, operations }
}

function weighted(weights: Weights): (random: Random) => Kind {
  const kinds = KINDS.filter((kind) => weights[kind] !== undefined)
  const total = kinds.reduce((sum, kind) => sum + weights[kind]!, 0)
  return (random) => {
    let left = random.below(total)
    for (const kind of kinds) {
      left -= weights[kind]!
      if (left < 0) return kind
    }
    return kinds[0]!
  }
}
