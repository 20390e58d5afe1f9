/** One line per request, for -o debug. */
import { errnoName } from '../fs/errors.ts'
import { Opcode, opcodeName } from './protocol.ts'
import type { Request } from './request.ts'
import * as args from './request-structs.ts'

const NAME_AT = args.IN_HEADER.size

/** Where the (first) name of a request is, by opcode. */
const NAMES: ReadonlyMap<number, number> = new Map<number, number>([
  [Opcode.LOOKUP, NAME_AT],
  [Opcode.UNLINK, NAME_AT],
  [Opcode.RMDIR, NAME_AT],
  [Opcode.SYMLINK, NAME_AT],
  [Opcode.REMOVEXATTR, NAME_AT],
  [Opcode.MKNOD, NAME_AT + args.MKNOD_IN.size],
  [Opcode.MKDIR, NAME_AT + args.MKDIR_IN.size],
  [Opcode.RENAME, NAME_AT + args.RENAME_IN.size],
  [Opcode.RENAME2, NAME_AT + args.RENAME2_IN.size],
  [Opcode.LINK, NAME_AT + args.LINK_IN.size],
  [Opcode.CREATE, NAME_AT + args.CREATE_IN.size],
  [Opcode.SETXATTR, NAME_AT + args.SETXATTR_IN.size],
  [Opcode.GETXATTR, NAME_AT + args.GETXATTR_IN.size],
])

interface Range {
  readonly offset: number
  readonly size: number
}

/** Requests that say which bytes they are about, and where. */
const RANGES: ReadonlyMap<number, Range> = new Map<number, Range>([
  [Opcode.READ, args.READ_IN.at],
  [Opcode.READDIR, args.READ_IN.at],
  [Opcode.READDIRPLUS, args.READ_IN.at],
  [Opcode.WRITE, args.WRITE_IN.at],
])

/** `result`: bytes of the answer, or a negative errno. */
export function describe(request: Request, result: number): string {
  const { opcode } = request
  const parts = [`#${request.unique}`, opcodeName(opcode), `node ${request.low}.${request.high}`]
  if (request.ino !== 0) parts.push(`ino ${request.ino}`)
  const name = NAMES.get(opcode)
  if (name !== undefined) parts.push(JSON.stringify(Buffer.from(request.name(name)).toString()))
  const range = RANGES.get(opcode)
  if (range !== undefined) parts.push(`${request.u32(range.size)} at ${request.u64(range.offset)}`)
  if (opcode === Opcode.SETATTR)
    parts.push(`valid 0x${request.u32(args.SETATTR_IN.at.valid).toString(16)}`)
  parts.push(`pid ${request.pid}`, '=', result < 0 ? errnoName(-result) : String(result))
  return parts.join(' ')
}
