/**
 * POSIX ACLs. The kernel checks them (FUSE_POSIX_ACL); inheritance and their tie to the mode bits
 * are the filesystem's work, as in posix_acl_create and posix_acl_chmod.
 */
import { EINVAL, FsError } from './errors.ts'

export const ACCESS_ACL = Buffer.from('system.posix_acl_access')
export const DEFAULT_ACL = Buffer.from('system.posix_acl_default')

/** Wire form: u32 version, then entries of u16 tag, u16 permissions, u32 id. Little-endian. */
const VERSION = 2
const HEADER_SIZE = 4
const ENTRY_SIZE = 8

const USER_OBJ = 0x01
const GROUP_OBJ = 0x04
const MASK = 0x10
const OTHER = 0x20

interface Entry {
  tag: number
  permissions: number
  id: number
}

export function parseAcl(value: Uint8Array): Entry[] {
  const view = new DataView(value.buffer, value.byteOffset, value.byteLength)
  const wellFormed =
    value.length >= HEADER_SIZE &&
    (value.length - HEADER_SIZE) % ENTRY_SIZE === 0 &&
    view.getUint32(0, true) === VERSION
  if (!wellFormed) throw new FsError(EINVAL)
  const entries: Entry[] = []
  for (let at = HEADER_SIZE; at < value.length; at += ENTRY_SIZE) {
    const permissions = view.getUint16(at + 2, true)
    if (permissions > 7) throw new FsError(EINVAL)
    entries.push({ tag: view.getUint16(at, true), permissions, id: view.getUint32(at + 4, true) })
  }
  return entries
}

function encodeAcl(entries: readonly Entry[]): Buffer {
  const value = Buffer.alloc(HEADER_SIZE + entries.length * ENTRY_SIZE)
  value.writeUInt32LE(VERSION, 0)
  entries.forEach((entry, index) => {
    const at = HEADER_SIZE + index * ENTRY_SIZE
    value.writeUInt16LE(entry.tag, at)
    value.writeUInt16LE(entry.permissions, at + 2)
    value.writeUInt32LE(entry.id, at + 4)
  })
  return value
}

/** The group bits of the mode stand for the mask when there is one. */
function entryFor(entries: readonly Entry[], tag: number): Entry | undefined {
  const group = tag === GROUP_OBJ ? entries.find((entry) => entry.tag === MASK) : undefined
  return group ?? entries.find((entry) => entry.tag === tag)
}

/** Mode bits (0o777) that an access ACL stands for. */
export function modeOfAcl(entries: readonly Entry[]): number {
  const bits = (tag: number) => entryFor(entries, tag)?.permissions ?? 0
  return (bits(USER_OBJ) << 6) | (bits(GROUP_OBJ) << 3) | bits(OTHER)
}

/** True when the mode bits say all of it: then no ACL needs to be kept. */
export function isMinimal(entries: readonly Entry[]): boolean {
  return entries.every((entry) => [USER_OBJ, GROUP_OBJ, OTHER].includes(entry.tag))
}

/** The access ACL after chmod. */
export function chmodAcl(value: Uint8Array, mode: number): Buffer {
  const entries = parseAcl(value)
  const set = (tag: number, permissions: number) => {
    const entry = entryFor(entries, tag)
    if (entry !== undefined) entry.permissions = permissions & 7
  }
  set(USER_OBJ, mode >> 6)
  set(GROUP_OBJ, mode >> 3)
  set(OTHER, mode)
  return encodeAcl(entries)
}

/** What a new inode gets from its directory's default ACL. */
export function inheritAcl(
  defaultAcl: Uint8Array,
  mode: number,
): { mode: number; access: Buffer | undefined } {
  const entries = parseAcl(defaultAcl)
  const limit = (tag: number, permissions: number) => {
    const entry = entryFor(entries, tag)
    if (entry !== undefined) entry.permissions &= permissions & 7
  }
  limit(USER_OBJ, mode >> 6)
  limit(GROUP_OBJ, mode >> 3)
  limit(OTHER, mode)
  const access = isMinimal(entries) ? undefined : encodeAcl(entries)
  return { mode: (mode & ~0o777) | modeOfAcl(entries), access }
}
