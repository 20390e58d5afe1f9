/**
 * The payload of a transaction: its changes, one after the other. Each is a header of 8 bytes, the
 * fixed fields of its type, then the name and the value, if the type has them.
 */
import type { ByteWriter } from './byte-writer.ts'
import type { Change } from './change.ts'
import { changeFault } from './change-check.ts'
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
} from './change-layout.ts'
import { MediaError } from './errors.ts'
import type { Codec } from './layout.ts'

const NOTHING: Uint8Array = new Uint8Array(0)

/** Used again for every change: no allocation on the way to the journal. */
const header = { type: 0, nameLength: 0, valueLength: 0 }

/** Appends one change: header, fixed fields, name, value. */
function put<S>(
  writer: ByteWriter,
  type: number,
  codec: Codec<S>,
  body: Readonly<S>,
  name: Uint8Array,
  value: Uint8Array,
): void {
  const at = writer.take(changeHeaderCodec.size + codec.size)
  header.type = type
  header.nameLength = name.length
  header.valueLength = value.length
  changeHeaderCodec.encode(header, writer.bytes, at)
  codec.encode(body, writer.bytes, at + changeHeaderCodec.size)
  if (name.length > 0) writer.append(name)
  if (value.length > 0) writer.append(value)
}

function encodeChange(change: Change, writer: ByteWriter): void {
  const type = CHANGE_TYPES[change.type]
  switch (change.type) {
    case 'putInode':
      put(writer, type, inodeCodec, change.inode, NOTHING, change.inode.target ?? NOTHING)
      break
    case 'removeInode':
      put(writer, type, inoCodec, change, NOTHING, NOTHING)
      break
    case 'putDirent':
      put(writer, type, direntCodec, change, change.name, NOTHING)
      break
    case 'removeDirent':
      put(writer, type, parentCodec, change, change.name, NOTHING)
      break
    case 'putXattr':
      put(writer, type, inoCodec, change, change.name, change.value)
      break
    case 'removeXattr':
      put(writer, type, inoCodec, change, change.name, NOTHING)
      break
    case 'putExtent':
      put(writer, type, extentCodec, change.extent, NOTHING, NOTHING)
      break
    case 'removeExtent':
      put(writer, type, extentKeyCodec, change, NOTHING, NOTHING)
      break
    default:
      put(writer, type, rangeCodec, change, NOTHING, NOTHING)
  }
}

/**
 * Appends the changes; throws RangeError for one that a replay would refuse: a bug of the caller.
 */
export function encodeChanges(
  changes: readonly Change[],
  writer: ByteWriter,
  regionBlocks: number,
): void {
  for (let index = 0; index < changes.length; index += 1) {
    const change = changes[index]!
    const fault = changeFault(change, regionBlocks)
    if (fault) throw new RangeError(`${change.type} with ${fault}`)
    encodeChange(change, writer)
  }
}

/** One change taken apart, still unchecked. */
interface Piece {
  readonly bytes: Uint8Array
  /** Where the fixed fields start in `bytes`. */
  readonly at: number
  /** Region offset of the fixed fields. */
  readonly mediaOffset: number
  readonly name: Uint8Array
  readonly value: Uint8Array
}

interface Decoder {
  /** Bytes of the fixed fields. */
  readonly size: number
  readonly named: boolean
  readonly valued: boolean
  decode(piece: Piece): Change
}

function decoder<S>(
  codec: Codec<S>,
  parts: '' | 'name' | 'value' | 'name value',
  make: (body: S, piece: Piece) => Change,
): Decoder {
  return {
    size: codec.size,
    named: parts.includes('name'),
    valued: parts.includes('value'),
    decode: (piece) => make(codec.decode(piece.bytes, piece.at, piece.mediaOffset), piece),
  }
}

const DECODERS: Readonly<Record<Change['type'], Decoder>> = {
  putInode: decoder(inodeCodec, 'value', (body, { value }) => {
    const target = value.length === 0 ? null : value
    return { type: 'putInode', inode: { ...body, target } }
  }),
  removeInode: decoder(inoCodec, '', (body) => ({ type: 'removeInode', ...body })),
  putDirent: decoder(direntCodec, 'name', (body, { name }) => {
    return { type: 'putDirent', ...body, name }
  }),
  removeDirent: decoder(parentCodec, 'name', (body, { name }) => {
    return { type: 'removeDirent', ...body, name }
  }),
  putXattr: decoder(inoCodec, 'name value', (body, { name, value }) => {
    return { type: 'putXattr', ...body, name, value }
  }),
  removeXattr: decoder(inoCodec, 'name', (body, { name }) => {
    return { type: 'removeXattr', ...body, name }
  }),
  putExtent: decoder(extentCodec, '', (extent) => ({ type: 'putExtent', extent })),
  removeExtent: decoder(extentKeyCodec, '', (body) => ({ type: 'removeExtent', ...body })),
  allocate: decoder(rangeCodec, '', (body) => ({ type: 'allocate', ...body })),
  free: decoder(rangeCodec, '', (body) => ({ type: 'free', ...body })),
  putPoison: decoder(rangeCodec, '', (body) => ({ type: 'putPoison', ...body })),
  removePoison: decoder(rangeCodec, '', (body) => ({ type: 'removePoison', ...body })),
}

const DECODER_OF_CODE = new Map<number, Decoder>(
  Object.entries(CHANGE_TYPES).map(([type, code]) => [code, DECODERS[type as Change['type']]]),
)

/**
 * Decodes the changes in bytes [start, end); `mediaOffset` is the region offset of bytes[start].
 * Throws MediaError. Names and values are copies.
 */
export function decodeChanges(
  bytes: Uint8Array,
  start: number,
  end: number,
  mediaOffset: number,
  regionBlocks: number,
): Change[] {
  const changes: Change[] = []
  const payload = bytes.subarray(start, end)
  let at = 0
  while (at < payload.length) {
    const where = mediaOffset + at
    const found = changeHeaderCodec.decode(payload, at, where)
    const type = DECODER_OF_CODE.get(found.type)
    if (!type) throw new MediaError('change', where, `unknown type ${found.type}`)
    if ((found.nameLength > 0 && !type.named) || (found.valueLength > 0 && !type.valued)) {
      throw new MediaError('change', where, 'a name or a value that its type does not have')
    }
    const body = at + changeHeaderCodec.size
    const nameAt = body + type.size
    const valueAt = nameAt + found.nameLength
    const next = valueAt + found.valueLength
    if (next > payload.length) throw new MediaError('change', where, 'leaves its record')
    const change = type.decode({
      bytes: payload,
      at: body,
      mediaOffset: where + changeHeaderCodec.size,
      name: Uint8Array.prototype.slice.call(payload, nameAt, valueAt),
      value: Uint8Array.prototype.slice.call(payload, valueAt, next),
    })
    const fault = changeFault(change, regionBlocks)
    if (fault) throw new MediaError('change', where, `${change.type} with ${fault}`)
    changes.push(change)
    at = next
  }
  return changes
}
