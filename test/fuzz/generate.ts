/** From a seed to mutations: which structure, which field, which value. */
import { type Change, OWNER_CHECKPOINT } from '../../src/media/change.ts'
import {
  CHANGE_TYPES,
  changeHeaderCodec,
  direntCodec,
  extentCodec,
  extentKeyCodec,
  inoCodec,
  inodeCodec,
  parentCodec,
  rangeCodec,
} from '../../src/media/change-layout.ts'
import { fieldSize, type Layout } from '../../src/media/layout.ts'
import { recordHeader } from '../../src/media/record.ts'
import { superblockCodec } from '../../src/media/superblock-codec.ts'
import { Random } from '../crash/random.ts'
import { BASES, type BaseName, REGION_SIZE } from './bases.ts'
import { randomPage } from './generate-page.ts'
import { randomSql } from './generate-sql.ts'
import type { Copies, Hex, Mutation, Structure } from './mutation.ts'

const BLOCKS = REGION_SIZE / 4096
const DATA = 1536

/** Values at which something changes: zero, signs, powers of two, the region's own numbers. */
export const INTERESTING: readonly number[] = [
  ...[0, 1, 2, 3, 15, 16, 17, 63, 64, 65, 255, 256, 511, 512, 513, 4095, 4096, 4097],
  ...[DATA, DATA + 512, DATA + 1024, BLOCKS - 513, BLOCKS - 512, BLOCKS - 1, BLOCKS, BLOCKS + 1],
  ...[REGION_SIZE - 4096, REGION_SIZE, REGION_SIZE + 4096, 0o100644, 0o040755, 0o120777],
  ...[2 ** 31 - 1, 2 ** 31, 2 ** 32 - 1, 2 ** 32, 2 ** 40, 2 ** 50, 2 ** 50 + 1],
  ...[2 ** 53 - 4097, 2 ** 53 - 2, 2 ** 53 - 1, -1, -2, OWNER_CHECKPOINT, -4],
]

export interface Case {
  readonly base: BaseName
  readonly mutations: Mutation[]
}

export function generate(seed: number): Case {
  const random = new Random(seed)
  const base = random.pick(BASES)
  const count = 1 + (random.chance(0.4) ? 1 + random.below(3) : 0)
  return { base, mutations: Array.from({ length: count }, () => one(random)) }
}

type Maker = (random: Random) => Mutation

/** Each as often as it stands here. */
const MAKERS: readonly Maker[] = [
  superblockField,
  superblockField,
  superblockRange,
  recordField,
  payloadBytes,
  payloadBytes,
  (random) => ({ kind: 'repeat', record: random.below(12), renumber: random.chance(0.7) }),
  (random) => ({ kind: 'drop', record: random.below(12) }),
  forge,
  forge,
  forge,
  forge,
  (random) => ({ kind: 'sql', ...randomSql(random) }),
  (random) => ({ kind: 'sql', ...randomSql(random) }),
  (random) => ({ kind: 'sql', ...randomSql(random) }),
  (random) => ({ kind: 'sql', ...randomSql(random) }),
  (random) => ({ kind: 'sql', ...randomSql(random) }),
  randomPage,
  randomPage,
  randomPage,
  randomPage,
  blind,
  blind,
  poison,
]

function one(random: Random): Mutation {
  return random.pick(MAKERS)(random)
}

const COPIES: readonly Copies[] = ['primary', 'backup', 'both', 'both', 'both', 'both']

function superblockField(random: Random): Mutation {
  const [field, type] = random.pick(superblockCodec.layout)
  const size = fieldSize(type)
  const skip = size > 8 ? 8 * random.below(size / 8) : 0
  const copies = random.pick(COPIES)
  return { kind: 'superblock', copies, field, skip, hex: value(random, Math.min(size, 8)) }
}

/** An entry of one of the lists, and the number of entries that makes it count. */
function superblockRange(random: Random): Mutation {
  const field = random.pick(['slot0', 'slot1', 'poison'])
  const block = 512 * random.below(BLOCKS / 512 + 1) + (random.chance(0.2) ? random.below(512) : 0)
  const blocks = random.chance(0.7) ? 512 * (1 + random.below(8)) : random.pick(INTERESTING)
  const hex = `${little(block, 8)}${little(blocks, 8)}`
  return { kind: 'superblock', copies: 'both', field, skip: 16 * random.below(2), hex }
}

function recordField(random: Random): Mutation {
  const [field, type] = random.pick(recordHeader.layout)
  const hex = value(random, fieldSize(type))
  return { kind: 'record', record: random.below(12), field, hex }
}

function payloadBytes(random: Random): Mutation {
  const hex = value(random, random.pick([1, 1, 2, 4, 8]))
  return { kind: 'payload', record: random.below(12), at: random.below(4096), hex }
}

const BODIES: Readonly<Record<Change['type'], Layout>> = {
  putInode: inodeCodec.layout,
  removeInode: inoCodec.layout,
  putDirent: direntCodec.layout,
  removeDirent: parentCodec.layout,
  putXattr: inoCodec.layout,
  removeXattr: inoCodec.layout,
  putExtent: extentCodec.layout,
  removeExtent: extentKeyCodec.layout,
  allocate: rangeCodec.layout,
  free: rangeCodec.layout,
  putPoison: rangeCodec.layout,
  removePoison: rangeCodec.layout,
}

/** One to three changes that no operation would make, with the right shape. */
function forge(random: Random): Mutation {
  const types = Object.keys(BODIES) as Change['type'][]
  const changes = Array.from({ length: 1 + random.below(3) }, () =>
    change(random, random.pick(types)),
  )
  return { kind: 'forge', payload: changes.join('') }
}

function change(random: Random, type: Change['type']): Hex {
  const name = /Dirent|Xattr/.test(type) ? nameBytes(random) : Buffer.alloc(0)
  const valued = type === 'putXattr' || (type === 'putInode' && random.chance(0.2))
  const text = Buffer.alloc(valued ? random.below(64) : 0, 0x61)
  const header = Buffer.alloc(changeHeaderCodec.size)
  const lengths = { nameLength: name.length, valueLength: text.length }
  changeHeaderCodec.encode({ type: CHANGE_TYPES[type], ...lengths }, header, 0)
  const body = BODIES[type].map(([field, kind]) => fieldValue(random, field, fieldSize(kind)))
  return `${header.toString('hex')}${body.join('')}${name.toString('hex')}${text.toString('hex')}`
}

/** Plausible more often than not: what is refused at once tests little. */
function fieldValue(random: Random, field: string, size: number): Hex {
  if (field.startsWith('reserved')) return little(0, size)
  if (random.chance(0.15)) return value(random, size)
  switch (field) {
    case 'block':
      return little(
        random.chance(0.7) ? DATA + random.below(BLOCKS - DATA) : random.below(BLOCKS),
        size,
      )
    case 'blocks':
      return little(1 + random.below(random.pick([2, 16, 512, 4096])), size)
    case 'fileBlock':
      return little(random.below(random.pick([4, 64, 2 ** 20])), size)
    case 'owner':
      return little(random.chance(0.8) ? 1 + random.below(90) : -1 - random.below(3), size)
    case 'mode':
      return little(random.pick([0o100644, 0o040755, 0o120777, 0o010644, 0o100644]), size)
    case 'kind':
      return little(random.pick([4, 8, 8, 10, 1]), size)
    case 'ino':
    case 'parent':
    case 'cookie':
      return little(1 + random.below(90), size)
    default:
      return little(random.below(random.pick([2, 100, 2 ** 20])), size)
  }
}

const NAMES = [
  'a-directory',
  'b-hard link',
  'a-file1',
  'new',
  'lost+found',
  '.',
  '..',
  'a/b',
  '',
  'user.tag',
]

function nameBytes(random: Random): Buffer {
  if (random.chance(0.1)) return Buffer.alloc(1 + random.below(255), 0x6e)
  return Buffer.from(random.pick(NAMES))
}

const STRUCTURES: readonly Structure[] = [
  'primary',
  'backup',
  'journal',
  'journal',
  'image',
  'image',
  'older image',
  'region',
]

function blind(random: Random): Mutation {
  const hex = Buffer.alloc(1 + random.below(64), random.below(256)).toString('hex')
  return { kind: 'blind', structure: random.pick(STRUCTURES), at: random.next(), hex }
}

function poison(random: Random): Mutation {
  const pages = random.pick([1, 1, 2, 512])
  return { kind: 'poison', structure: random.pick(STRUCTURES), at: random.next(), pages }
}

function value(random: Random, size: number): Hex {
  if (random.chance(0.3)) {
    return Array.from({ length: size }, () => little(random.below(256), 1)).join('')
  }
  return little(random.pick(INTERESTING), size)
}

export function little(number: number, size: number): Hex {
  const bytes = Buffer.alloc(Math.max(size, 8))
  bytes.writeBigInt64LE(BigInt(number))
  return bytes.toString('hex', 0, size)
}
