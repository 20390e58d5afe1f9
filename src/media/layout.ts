/**
 * Layout tables: the one description of a struct on media. Offsets are derived from the table;
 * encode, decode, dump and the SPEC test are all fed by it.
 *
 *   const POINT = [['x', 'u32', 'metres east'], ['y', 'i64', 'metres north']] as const satisfies
 * Layout   const point = compileLayout('point', POINT)   point.encode({ x: 1, y: -2 }, buffer, 0)
 *
 * Little-endian, packed. u64 and i64 are numbers, checked to be safe integers both ways.
 */
import { MediaError } from './errors.ts'
import { getI64, getLabel, getU64, getUuid, isZeros, putLabel, putUuid } from './scalar.ts'

export type FieldType =
  | 'u8'
  | 'u16'
  | 'u32'
  | 'u64'
  | 'i64'
  | 'uuid'
  /** Raw bytes. */
  | `bytes(${number})`
  /** UTF-8 text, padded with zeros. */
  | `label(${number})`
  /** Zeros; anything else is refused, so that a later version can give them a meaning. */
  | `reserved(${number})`

export type Field = readonly [name: string, type: FieldType, meaning: string]
export type Layout = readonly Field[]

type ValueOf<T extends FieldType> = T extends 'uuid' | `label(${number})`
  ? string
  : T extends `bytes(${number})`
    ? Uint8Array
    : number

type NamedFields<L extends Layout> = Exclude<
  L[number],
  readonly [string, `reserved(${number})`, string]
>

/** The struct a layout describes: one property per field that is not reserved. */
export type StructOf<L extends Layout> = {
  -readonly [F in NamedFields<L> as F[0]]: ValueOf<F[1]>
}

export interface Codec<S> {
  /** What error sentences call the struct. */
  readonly structure: string
  readonly layout: Layout
  /** Bytes. */
  readonly size: number
  /** Where each field starts, bytes from the start of the struct. */
  readonly offsets: Readonly<Record<string, number>>
  /** Throws RangeError for a value its field cannot hold: a bug of the caller. */
  encode(struct: Readonly<S>, buffer: Uint8Array, at: number): void
  /** Throws MediaError; `mediaOffset` is the region offset of buffer[at], for its sentence. */
  decode(buffer: Uint8Array, at: number, mediaOffset?: number): S
}

const SCALAR_SIZES: Readonly<Record<string, number>> = {
  u8: 1,
  u16: 2,
  u32: 4,
  u64: 8,
  i64: 8,
  uuid: 16,
}

/** Bytes a field of this type takes. */
export function fieldSize(type: FieldType): number {
  const size = SCALAR_SIZES[type] ?? Number(/^\w+\((\d+)\)$/.exec(type)?.[1])
  if (!(size > 0)) throw new TypeError(`layout: unknown field type ${type}`)
  return size
}

/** What the generated functions call for everything that is not a plain store or load. */
const helpers = {
  bad(structure: string, field: string, value: unknown): never {
    throw new RangeError(`${structure}.${field} cannot hold ${String(value)}`)
  },
  short(structure: string, mediaOffset: number): never {
    throw new MediaError(structure, mediaOffset, 'ends inside the struct')
  },
  nonzero(structure: string, field: string, mediaOffset: number): never {
    throw new MediaError(structure, mediaOffset, `${field} bytes are not zero`)
  },
  /** Not buffer.slice: of a Buffer that would be a view. */
  copy: (buffer: Uint8Array, start: number, end: number) =>
    Uint8Array.from(buffer.subarray(start, end)),
  safe: Number.isSafeInteger,
  getI64,
  getLabel,
  getU64,
  getUuid,
  isZeros,
  putLabel,
  putUuid,
}

/** Source that stores the low `bytes` bytes of the integer `value` at p + offset. */
function stores(value: string, offset: number, bytes: number): string {
  let source = ''
  for (let byte = 0; byte < bytes; byte += 1) {
    source += `b[p+${offset + byte}]=${value}${byte === 0 ? '' : `>>>${8 * byte}`};`
  }
  return source
}

function encodeSource(structure: string, name: string, type: FieldType, offset: number): string {
  const size = fieldSize(type)
  const bad = `h.bad('${structure}','${name}',v);`
  const split = `l=v>>>0;g=(v-l)/4294967296;${stores('l', offset, 4)}${stores('g', offset + 4, 4)}`
  if (type.startsWith('reserved')) return `b.fill(0,p+${offset},p+${offset + size});`
  const load = `v=s.${name};`
  if (type === 'u64') return `${load}if(!h.safe(v)||v<0)${bad}${split}`
  if (type === 'i64') return `${load}if(!h.safe(v))${bad}${split}`
  if (type === 'uuid') return `${load}if(!h.putUuid(v,b,p+${offset}))${bad}`
  if (type.startsWith('label')) return `${load}if(!h.putLabel(v,b,p+${offset},${size}))${bad}`
  if (type.startsWith('bytes')) return `${load}if(v.length!==${size})${bad}b.set(v,p+${offset});`
  return `${load}if(v>>>0!==v||v>${2 ** (8 * size) - 1})${bad}${stores('v', offset, size)}`
}

function decodeSource(structure: string, name: string, type: FieldType, offset: number): string {
  const size = fieldSize(type)
  const where = `'${structure}','${name}',m+${offset}`
  const byte = (index: number) => `b[p+${offset + index}]`
  if (type === 'u8') return byte(0)
  if (type === 'u16') return `(${byte(0)}|${byte(1)}<<8)`
  if (type === 'u32') {
    return `(${byte(0)}|${byte(1)}<<8|${byte(2)}<<16|${byte(3)}<<24)>>>0`
  }
  if (type === 'u64') return `h.getU64(b,p+${offset},${where})`
  if (type === 'i64') return `h.getI64(b,p+${offset},${where})`
  if (type === 'uuid') return `h.getUuid(b,p+${offset})`
  if (type.startsWith('label')) return `h.getLabel(b,p+${offset},${size},${where})`
  return `h.copy(b,p+${offset},p+${offset + size})`
}

/**
 * Makes one straight-line function per struct and direction. They are generated as source because a
 * loop over the table costs a keyed property access per field, several times the time of the
 * stores. The source is made of the table alone, which is a constant of this program.
 */
export function compileLayout<const L extends Layout>(
  structure: string,
  layout: L,
): Codec<StructOf<L>> {
  const offsets: Record<string, number> = {}
  let size = 0
  let encode = ''
  let decode = ''
  let check = ''
  for (const [name, type] of layout) {
    if (!/^[a-z]\w*$/i.test(name) || name in offsets) {
      throw new TypeError(`layout ${structure}: field name ${name} is malformed or used twice`)
    }
    offsets[name] = size
    encode += encodeSource(structure, name, type, size)
    const where = `'${structure}','${name}',m+${size}`
    const end = size + fieldSize(type)
    if (type.startsWith('reserved'))
      check += `if(!h.isZeros(b,p+${size},p+${end}))h.nonzero(${where});`
    else decode += `${name}:${decodeSource(structure, name, type, size)},`
    size = end
  }
  const make = new Function(
    'h',
    `'use strict';return{` +
      `encode(s,b,p){if(!(p>=0&&p+${size}<=b.length))h.bad('${structure}','end',p);` +
      `let v,l,g;${encode}},` +
      `decode(b,p,m=p){if(!(p>=0&&p+${size}<=b.length))h.short('${structure}',m);` +
      `${check}return{${decode}}}}`,
  ) as (library: typeof helpers) => Pick<Codec<StructOf<L>>, 'encode' | 'decode'>
  return { structure, layout, size, offsets, ...make(helpers) }
}
