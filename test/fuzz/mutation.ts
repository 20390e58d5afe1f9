/**
 * A mutation of a region, as data: a failing image is kept as the few mutations that made it, not
 * as 32 MiB. Positions are taken modulo what is there, so a list stays meaningful for another base.
 */

/** Bytes as hexadecimal digits. */
export type Hex = string

export type Copies = 'primary' | 'backup' | 'both'

export type Mutation =
  /** Bytes in a field of the superblock, whose checksum is made right again. */
  | { kind: 'superblock'; copies: Copies; field: string; skip: number; hex: Hex }
  /** A field of the header of the n-th record, sealed again. */
  | { kind: 'record'; record: number; field: string; hex: Hex }
  /** Bytes in the payload of the n-th record, sealed again. */
  | { kind: 'payload'; record: number; at: number; hex: Hex }
  /** The n-th record once more behind the last one (as the next in the chain, or as it is). */
  | { kind: 'repeat'; record: number; renumber: boolean }
  /** The n-th record is zeroed. */
  | { kind: 'drop'; record: number }
  /** A new record at the end of the chain. */
  | { kind: 'forge'; payload: Hex }
  /** SQL on the image, whose length and checksum are made right again. */
  | { kind: 'sql'; sql: string; loose?: boolean }
  /** Bytes in the image; sealed again. */
  | { kind: 'page'; at: number; hex: Hex }
  /** Bytes anywhere in a structure; nothing is sealed. */
  | { kind: 'blind'; structure: Structure; at: number; hex: Hex }
  /** Memory that cannot be read. */
  | { kind: 'poison'; structure: Structure; at: number; pages: number }

export type Structure = 'primary' | 'backup' | 'journal' | 'image' | 'older image' | 'region'

/** What a failing image is kept as. */
export interface Fixture {
  readonly name: string
  readonly base: string
  readonly mutations: readonly Mutation[]
}
