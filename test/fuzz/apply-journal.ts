/** Mutations of journal records: each is sealed again, so that replay gets to see it. */
import type { Memory } from '../../src/dax/memory.ts'
import { type ListedRecord, listRecords } from '../../src/journal/replay.ts'
import { crc32c } from '../../src/media/checksum.ts'
import {
  paddedLength,
  RECORD_HEADER_SIZE,
  RECORD_TRANSACTION,
  recordHeader,
} from '../../src/media/record.ts'
import type { Superblock } from '../../src/media/superblock.ts'
import type { Mutation } from './mutation.ts'

type Of<K extends Mutation['kind']> = Extract<Mutation, { kind: K }>

export class JournalMutator {
  readonly #memory: Memory
  readonly #superblock: Superblock

  constructor(memory: Memory, superblock: Superblock) {
    this.#memory = memory
    this.#superblock = superblock
  }

  header({ record, field, hex }: Of<'record'>): void {
    this.#edit(record, (bytes) => {
      const at = recordHeader.offsets[field]!
      Buffer.from(hex, 'hex').copy(bytes, at, 0, RECORD_HEADER_SIZE - at)
    })
  }

  payload({ record, at, hex }: Of<'payload'>): void {
    this.#edit(record, (bytes) => {
      if (bytes.length <= RECORD_HEADER_SIZE) return
      const place = RECORD_HEADER_SIZE + (at % (bytes.length - RECORD_HEADER_SIZE))
      Buffer.from(hex, 'hex').copy(bytes, place)
    })
  }

  drop({ record }: Of<'drop'>): void {
    const found = this.#find(record)
    if (found === undefined) return
    this.#memory.zero(this.#offset(found), paddedLength(found.header.length))
  }

  repeat({ record, renumber }: Of<'repeat'>): void {
    const found = this.#find(record)
    if (found === undefined) return
    const bytes = this.#read(found)
    if (renumber) this.#number(bytes)
    this.#append(bytes)
  }

  forge({ payload }: Of<'forge'>): void {
    const body = Buffer.from(payload, 'hex')
    const bytes = Buffer.alloc(RECORD_HEADER_SIZE + body.length)
    body.copy(bytes, RECORD_HEADER_SIZE)
    const last = this.#last()
    const header = last === undefined ? this.#firstHeader() : { ...last.header }
    recordHeader.encode({ ...header, kind: RECORD_TRANSACTION, length: bytes.length }, bytes, 0)
    this.#number(bytes)
    this.#append(bytes)
  }

  #firstHeader() {
    const { epoch, checkpoint } = this.#superblock
    const { sequence } = checkpoint
    const magic = 0x524a4648
    return { crc: 0, magic, length: 0, kind: 1, flags: 1, epoch, sequence, durable: sequence }
  }

  /** As the next of the chain. */
  #number(bytes: Buffer): void {
    const next = (this.#last()?.header.sequence ?? this.#superblock.checkpoint.sequence) + 1
    const header = recordHeader.decode(bytes, 0)
    recordHeader.encode({ ...header, sequence: next, durable: next - 1 }, bytes, 0)
  }

  #append(bytes: Buffer): void {
    const last = this.#last()
    const half = this.#superblock.geometry.journal[last?.half ?? 0]
    const position = last === undefined ? 0 : last.position + paddedLength(last.header.length)
    if (position + paddedLength(bytes.length) > half.length) return
    this.#seal(bytes)
    this.#memory.write(half.offset + position, bytes, 0, bytes.length)
  }

  #edit(record: number, change: (bytes: Buffer) => void): void {
    const found = this.#find(record)
    if (found === undefined) return
    const bytes = this.#read(found)
    change(bytes)
    this.#resize(found, bytes)
  }

  /** A length that was changed is sealed as it says, as far as the half goes. */
  #resize(found: ListedRecord, bytes: Buffer): void {
    const half = this.#superblock.geometry.journal[found.half]
    const claimed = bytes.readUInt32LE(recordHeader.offsets.length!)
    const room = half.length - found.position
    if (claimed > bytes.length && claimed <= room) {
      const longer = Buffer.alloc(claimed)
      this.#memory.read(this.#offset(found), longer, 0, claimed)
      bytes.copy(longer)
      this.#seal(longer)
      this.#memory.write(this.#offset(found), longer, 0, claimed)
      return
    }
    const sealed = claimed >= 4 && claimed <= bytes.length ? bytes.subarray(0, claimed) : bytes
    this.#seal(sealed)
    this.#memory.write(this.#offset(found), bytes, 0, bytes.length)
  }

  #seal(bytes: Buffer): void {
    bytes.writeUInt32LE(crc32c(bytes, 4, bytes.length - 4, this.#superblock.journalSeed), 0)
  }

  #read(found: ListedRecord): Buffer {
    const bytes = Buffer.alloc(found.header.length)
    this.#memory.read(this.#offset(found), bytes, 0, bytes.length)
    return bytes
  }

  #offset({ half, position }: ListedRecord): number {
    return this.#superblock.geometry.journal[half].offset + position
  }

  #records(): ListedRecord[] {
    return [...listRecords(this.#memory, this.#superblock)].sort(
      (one, other) =>
        one.header.sequence - other.header.sequence || one.header.kind - other.header.kind,
    )
  }

  /** Counted from the end: the last ones are those a mount replays. */
  #find(record: number): ListedRecord | undefined {
    const all = this.#records()
    return all[all.length - 1 - (record % Math.max(all.length, 1))]
  }

  #last(): ListedRecord | undefined {
    return this.#records().at(-1)
  }
}
