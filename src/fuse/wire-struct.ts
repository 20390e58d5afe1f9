/**
 * A struct of the FUSE protocol is one table of fields; its offsets and size are derived from it.
 * Every field is aligned to its own size, so a struct is the sum of its fields.
 */

const SIZES = { u16: 2, u32: 4, i32: 4, u64: 8, i64: 8 } as const

export type WireType = keyof typeof SIZES
export type Fields = readonly (readonly [name: string, type: WireType])[]

/** `at.x` is where field x starts, bytes from the start of the message or of the struct. */
export interface WireStruct<Name extends string> {
  readonly size: number
  readonly at: Readonly<Record<Name, number>>
}

export function struct<const F extends Fields>(fields: F, base = 0): WireStruct<F[number][0]> {
  const at: Record<string, number> = {}
  let offset = base
  for (const [name, type] of fields) {
    if (offset % SIZES[type] !== 0) throw new TypeError(`fuse struct: ${name} is not aligned`)
    at[name] = offset
    offset += SIZES[type]
  }
  return { size: offset - base, at: at as Record<F[number][0], number> }
}
