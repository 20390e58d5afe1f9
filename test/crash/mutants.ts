/**
 * Ways to break holdfast. Each one takes a step away that some promise stands on, and the explorer
 * must find it out. `npm run test:crash -- --mutants` tries them all.
 */
import type { Mode } from './campaign.ts'
import type { FlavourName } from './operations.ts'

export interface Mutant {
  readonly name: string
  readonly what: string
  /** Where it shows. */
  readonly mode: Mode
  /** The sort of sequences in which it shows soonest. */
  readonly flavour?: FlavourName
  /** A source file, and texts in it that occur exactly once. */
  readonly file?: string
  readonly replacements?: readonly (readonly [string, string])[]
  /** Under the limits of narrow.ts, without which no sequence gets there. */
  readonly narrow?: true
  /** Stores of this kind are not fenced: they stay in the cache. */
  readonly unfenced?: Unfenced
}

export type Unfenced = 'record' | 'superblock' | 'image' | 'data' | 'zeros'

const JOURNAL = 'src/journal/journal.ts'
const CHECKPOINT = 'src/journal/checkpoint.ts'
const CHECKPOINTS = 'src/fs/checkpoints.ts'
const REPLAY = 'src/journal/replay.ts'
const CHAIN = 'src/journal/chain.ts'
const SUPERBLOCK = 'src/media/superblock.ts'
const WRITE = 'src/fs/file-write.ts'
const SLOTS = 'src/fs/image-slots.ts'

const FLUSH_DATA = '    await this.#memory.flushAsync(0, this.#regionSize)\n'
const FLUSH_MARK = '    await this.#memory.flushAsync(offset, RECORD_HEADER_SIZE)\n'
const WRITE_MARK = '    const offset = this.#appendMark(sequence, 0)\n'
const EXTEND =
  'return volume.withSpace(() =>\n    volume.transact((transaction) => extend(volume, transaction, inode, offset, from, length)),\n  )'
/** What is to be filled when its record is there. */
const LATE = [
  ['export function write(', 'const late: (() => void)[] = []\nexport function write('],
  [
    EXTEND,
    `${EXTEND.replace('return', 'const done =')}\n  for (const fill of late.splice(0)) fill()\n  return done`,
  ],
] as const
const WRITE_IMAGE = 'this.#memory.write(piece.offset, work.image, piece.at, piece.length)'

export const MUTANTS: readonly Mutant[] = [
  {
    name: 'unfenced-record',
    what: 'no fence after a journal record',
    mode: 'cacheline',
    unfenced: 'record',
  },
  {
    name: 'unfenced-data',
    what: 'no fence between data and the record that makes it visible',
    mode: 'cacheline',
    unfenced: 'data',
  },
  {
    name: 'unfenced-zeros',
    what: 'no fence after zeros around new data',
    mode: 'cacheline',
    flavour: 'full',
    unfenced: 'zeros',
  },
  {
    name: 'unfenced-image',
    what: 'no fence between the checkpoint image and the superblocks',
    mode: 'cacheline',
    unfenced: 'image',
  },
  {
    name: 'unfenced-superblock',
    what: 'no fence between the two superblocks',
    mode: 'cacheline',
    unfenced: 'superblock',
  },
  {
    name: 'no-data-msync',
    what: 'the commit does not msync data and records before the mark',
    mode: 'page',
    file: JOURNAL,
    replacements: [[FLUSH_DATA, '']],
  },
  {
    name: 'no-mark-msync',
    what: 'the commit mark is not msynced before fsync returns',
    mode: 'page',
    file: JOURNAL,
    replacements: [[FLUSH_MARK, '']],
  },
  {
    name: 'mark-before-data',
    what: 'the commit mark is written before what it vouches for is durable',
    mode: 'page',
    file: JOURNAL,
    replacements: [
      [FLUSH_DATA, `${WRITE_MARK}${FLUSH_DATA}`],
      [`it all the same.\n${WRITE_MARK}`, 'it all the same.\n'],
    ],
  },
  {
    name: 'early-reuse',
    what: 'freed blocks are reused before the record that freed them is durable',
    mode: 'page',
    flavour: 'full',
    file: 'src/fs/volume.ts',
    replacements: [['this.allocator.holdBack(transaction.sequence, transaction.freed)', '']],
  },
  {
    name: 'superblock-before-image',
    what: 'the superblocks point at an image that is still to be written',
    mode: 'cacheline',
    file: CHECKPOINT,
    replacements: [
      [WRITE_IMAGE, `late.push([piece.offset, work.image, piece.at, piece.length])`],
      [
        'export class Checkpointer {',
        'const late: [number, Uint8Array, number, number][] = []\nexport class Checkpointer {',
      ],
      [
        '    this.#work = undefined\n    this.failures',
        '    for (const one of late.splice(0)) this.#memory.write(...one)\n    this.#work = undefined\n    this.failures',
      ],
    ],
  },
  {
    name: 'no-checkpoint-msync',
    what: 'the image and the data it names are not msynced before the superblocks',
    mode: 'page',
    file: CHECKPOINT,
    replacements: [
      ['await this.#memory.flushAsync(0, this.#memory.size)', 'await undefined'],
      ['if (!this.#memory.durableStores) this.#memory.flush(0, this.#memory.size)', ''],
    ],
  },
  {
    name: 'no-record-crc',
    what: 'replay believes a record whose checksum is wrong',
    mode: 'cacheline',
    file: 'src/media/record.ts',
    replacements: [['=== header.crc ? header : undefined', '>= 0 ? header : undefined']],
  },
  {
    name: 'no-superblock-msync',
    what: 'the superblock copies are written without an msync between them',
    mode: 'page',
    file: SUPERBLOCK,
    replacements: [
      [
        'memory.write(offset, bytes, 0, BLOCK_SIZE)\n      memory.flush(offset, BLOCK_SIZE)',
        'memory.write(offset, bytes, 0, BLOCK_SIZE)',
      ],
    ],
  },
  {
    name: 'primary-always-first',
    what: 'the only good superblock is overwritten before the torn one',
    mode: 'cacheline',
    flavour: 'restarts',
    file: SUPERBLOCK,
    replacements: [['return behind ? [backup, primary]', 'return behind ? [primary, backup]']],
  },
  {
    name: 'superblock-crc',
    what: 'a torn superblock is believed',
    mode: 'cacheline',
    file: 'src/media/superblock-codec.ts',
    replacements: [["throw new MediaError('superblock', mediaOffset, 'checksum mismatch')", '']],
  },
  {
    name: 'trust-after-reboot',
    what: 'after a host crash replay goes past the last commit mark',
    mode: 'page',
    file: REPLAY,
    replacements: [['header.sequence <= durable || (', 'header.sequence >= 0 || (']],
  },
  {
    name: 'boot-epoch',
    what: 'records of an earlier boot are taken for records of this one',
    mode: 'page',
    flavour: 'restarts',
    file: SUPERBLOCK,
    replacements: [
      ['bootEpoch: sameBoot ? superblock.bootEpoch : epoch', 'bootEpoch: superblock.bootEpoch'],
    ],
  },
  {
    name: 'past-a-gap',
    what: 'replay goes on behind a missing record',
    mode: 'page',
    file: CHAIN,
    replacements: [
      [
        'return header.sequence === this.#sequence + (',
        'return header.sequence >= this.#sequence + (',
      ],
    ],
  },
  {
    name: 'half-reused',
    what: 'a checkpoint takes the half that the image on media still needs',
    mode: 'page',
    flavour: 'restarts',
    file: JOURNAL,
    replacements: [['if (this.#oldUsed > 0 || !this.#halves.usable(other)) return', '']],
  },
  {
    name: 'half-released-early',
    what: 'the old journal half is given up when a checkpoint begins, not when it is complete',
    mode: 'page',
    flavour: 'restarts',
    file: CHECKPOINTS,
    replacements: [
      [
        'volume.journal.switchHalves()',
        'volume.journal.switchHalves()\n    volume.journal.releaseOldHalf()',
      ],
    ],
  },
  {
    name: 'one-slot',
    what: 'the image is written over the one in use',
    mode: 'page',
    flavour: 'restarts',
    file: CHECKPOINT,
    replacements: [
      [
        'for (const piece of piecesOf(work.extents, work.written, length)) {',
        'const over = (globalThis as { current?: typeof work.extents }).current ?? work.extents\n      for (const piece of piecesOf(over, work.written, length)) {',
      ],
      [
        'export function loadImage(memory: Memory, superblock: Superblock): Buffer {',
        'export function loadImage(memory: Memory, superblock: Superblock): Buffer {\n  ;(globalThis as { current?: unknown }).current = superblock.slots[superblock.checkpoint.slot]',
      ],
    ],
  },
  {
    name: 'no-block-tails',
    what: 'new blocks are not zeroed behind the data',
    mode: 'page',
    flavour: 'full',
    file: WRITE,
    replacements: [['if (tail > 0) volume.memory.zero(base + end, tail)', '']],
  },
  {
    name: 'no-block-heads',
    what: 'new blocks are not zeroed before the data',
    mode: 'page',
    flavour: 'full',
    file: WRITE,
    replacements: [['if (head > 0) volume.memory.zero(base + at - head, head)', '']],
  },
  {
    name: 'no-zeros-when-growing',
    what: 'a truncate that grows a file does not zero behind the old end',
    mode: 'cacheline',
    file: 'src/fs/file-space.ts',
    replacements: [
      [
        '{\n    zeroBytes(volume, transaction, inode, inode.row.size, size)\n  } else {',
        '{\n  } else {',
      ],
    ],
  },
  {
    name: 'clears-what-it-cuts',
    what: 'a truncate that shrinks a file clears what it cuts off in place',
    mode: 'cacheline',
    file: 'src/fs/file-space.ts',
    replacements: [
      [
        '  inode.row.size = size\n',
        '  zeroBytes(volume, transaction, inode, size, inode.row.size)\n  inode.row.size = size\n',
      ],
    ],
  },
  {
    name: 'data-over-freed',
    what: 'a transaction gives blocks back first, so that it can take them itself',
    mode: 'page',
    flavour: 'full',
    file: 'src/fs/transaction.ts',
    replacements: [
      [
        'if (at < block + blocks) this.freed.push({ block: at, blocks: block + blocks - at })',
        "if (at < block + blocks) this.apply({ type: 'free', block: at, blocks: block + blocks - at })",
      ],
    ],
  },
  {
    name: 'two-records',
    what: 'an operation is journalled in two records',
    mode: 'cacheline',
    file: 'src/fs/volume.ts',
    replacements: [
      [
        'if (transaction.changes.length > 0) this.journal.append(transaction.changes, claim)',
        'if (transaction.changes.length > 1) this.journal.append(transaction.changes.slice(0, 1), claim)\n      if (transaction.changes.length > 0) this.journal.append(transaction.changes.slice(transaction.changes.length > 1 ? 1 : 0), claim)',
      ],
    ],
  },
  {
    name: 'written-before-data',
    what: 'preallocated blocks are recorded as written before their bytes are stored',
    mode: 'cacheline',
    file: WRITE,
    replacements: [
      ...LATE,
      [
        '  fillBlocks(volume, extent.block, extent.fileBlock, at, source, length)\n',
        '  const { block, fileBlock } = extent\n  late.push(() => fillBlocks(volume, block, fileBlock, at, source, length))\n',
      ],
    ],
  },
  {
    name: 'added-before-data',
    what: 'new blocks are recorded before their bytes are stored, and the daemon is killed between',
    mode: 'page',
    file: WRITE,
    replacements: [
      ...LATE,
      [
        '  fillBlocks(volume, extent.block, extent.fileBlock, at, source, bytes)\n',
        '  const { block } = extent\n  late.push(() => fillBlocks(volume, block, fileBlock, at, source, bytes))\n',
      ],
    ],
  },
  {
    name: 'hole-in-records',
    what: 'a write into a hole is a record for each block',
    mode: 'cacheline',
    file: WRITE,
    replacements: [
      [
        '  const from = { bytes: source, at: sourceOffset }\n',
        '  const piece = BLOCK_SIZE - (offset % BLOCK_SIZE)\n  if (offset + length <= inode.row.size && length > piece) {\n    write(volume, inode, offset, source, sourceOffset, piece)\n    write(volume, inode, offset + piece, source, sourceOffset + piece, length - piece)\n    return length\n  }\n  const from = { bytes: source, at: sourceOffset }\n',
      ],
    ],
  },
  {
    name: 'checkpoint-reply-early',
    what: 'a checkpoint that was superseded is called complete',
    mode: 'page',
    flavour: 'restarts',
    file: CHECKPOINTS,
    replacements: [
      [
        'else if (this.#running !== undefined) await this.#running.done\n      else {',
        'else {\n        await this.#running?.done',
      ],
      ['if (running.completed) return running', 'return running'],
    ],
  },
  {
    name: 'forgotten-dirt',
    what: 'a mount after a killed daemon does not msync what that one left',
    mode: 'page',
    flavour: 'restarts',
    file: 'src/fs/mount.ts',
    replacements: [['if (unclean) volume.journal.commitNow()', '']],
  },
  {
    name: 'slot-before-units',
    what: 'a slot that moves is listed before the units are its own',
    mode: 'cacheline',
    narrow: true,
    file: SLOTS,
    replacements: [
      ['    this.#take(range)\n    // A full', '    // A full'],
      ['this.#list(slot, [range])', '{ this.#list(slot, [range]); this.#take(range) }'],
    ],
  },
  {
    name: 'no-slot-msync',
    what: 'no msync between the units of a slot and the superblocks that list them',
    mode: 'page',
    narrow: true,
    file: SLOTS,
    replacements: [['      volume.commitNow()\n', '']],
  },
]
