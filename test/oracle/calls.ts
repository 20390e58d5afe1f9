/**
 * System calls on a small tree, as fast-check generates and shrinks them. Few names, so that calls
 * meet each other's files; paths lead through directories, files, symbolic links and nothing.
 */
import fc from 'fast-check'

const SLOTS = 3
const NAME_MAX = 255

interface OnPath {
  readonly path: string
}

interface OnSlot {
  /** A place in the table of open files. */
  readonly slot: number
}

interface InFile {
  readonly offset: number
  readonly length: number
}

/** What each call is made with. */
interface Arguments {
  open: OnSlot & OnPath & { readonly flags: readonly OpenFlag[]; readonly mode: number }
  tmpfile: OnSlot & OnPath & { readonly mode: number }
  linkSlot: OnSlot & OnPath
  close: OnSlot
  fstat: OnSlot
  fsync: OnSlot
  read: OnSlot & InFile
  /** `number` decides the bytes. */
  write: OnSlot & InFile & { readonly number: number }
  ftruncate: OnSlot & { readonly size: number }
  fallocate: OnSlot & InFile & { readonly mode: number }
  copy: OnSlot & InFile & { readonly to: number; readonly onto: number }
  seek: OnSlot & { readonly offset: number; readonly whence: 'data' | 'hole' }
  truncate: OnPath & { readonly size: number }
  stat: OnPath & { readonly follow: boolean }
  list: OnPath
  readlink: OnPath
  mkdir: OnPath & { readonly mode: number }
  mknod: OnPath & { readonly kind: 'fifo' | 'socket' | 'device' | 'file'; readonly mode: number }
  symlink: OnPath & { readonly target: string }
  link: OnPath & { readonly onto: string }
  rename: OnPath & { readonly onto: string; readonly flags: number }
  unlink: OnPath
  rmdir: OnPath
  chmod: OnPath & { readonly mode: number }
  /** -1 leaves one as it is. */
  chown: OnPath & { readonly uid: number; readonly gid: number }
  /** Seconds; 'now', or null to leave it. */
  utime: OnPath & { readonly atime: Instant; readonly mtime: Instant }
  setxattr: OnPath & { readonly name: string; readonly value: string; readonly flags: number }
  getxattr: OnPath & { readonly name: string }
  listxattr: OnPath
  removexattr: OnPath & { readonly name: string }
  /** Not calls of programs: on tmpfs nothing happens but that all files are closed. */
  remount: object
  crash: object
  checkpoint: object
}

export type Instant = number | 'now' | null

export type CallName = keyof Arguments
type Of<Name extends CallName> = { readonly do: Name } & Arguments[Name]
/** Who makes it: owner and group of what is made. `watched`: which times of the tree change, too. */
export type Call = { [Name in CallName]: Of<Name> }[CallName] & {
  readonly user: number
  readonly watched: boolean
}
export type On<Name extends CallName> = Extract<Call, { do: Name }>

export const OPEN_FLAGS = ['CREAT', 'EXCL', 'TRUNC', 'DIRECTORY', 'NOFOLLOW', 'WRITE'] as const
export type OpenFlag = (typeof OPEN_FLAGS)[number]

const NAMES = ['a', 'b', 'c', 'd', 'e', 'l', 'x'.repeat(NAME_MAX), 'y'.repeat(NAME_MAX + 1)]
const XATTRS = ['user.one', 'user.two', 'trusted.t', 'security.s', 'user.', 'bogus.x']
const ACLS = ['system.posix_acl_access', 'system.posix_acl_default']
const MODES = [0o644, 0o600, 0o666, 0o755, 0o4755, 0o2755, 0o6777, 0o1777, 0o000, 0o2775, 0o070]
const BLOCK = 4096

const name = fc.oneof(
  { weight: 12, arbitrary: fc.constantFrom('a', 'b', 'c', 'l') },
  { weight: 5, arbitrary: fc.constantFrom('d', 'e') },
  { weight: 1, arbitrary: fc.constantFrom(...NAMES) },
)
const above = fc.oneof(
  { weight: 12, arbitrary: fc.constantFrom('', '', '', 'd/', 'd/', 'e/') },
  { weight: 3, arbitrary: fc.constantFrom('d/f/', 'd/f/g/', 'l/', 'a/', 'd/../') },
)
const path = fc.oneof(
  { weight: 20, arbitrary: fc.tuple(above, name).map(([before, last]) => before + last) },
  { weight: 4, arbitrary: fc.constantFrom('d', 'e', 'd/f', 'd/f/g') },
)
const slot = fc.nat(SLOTS - 1)
const mode = fc.constantFrom(...MODES)
const offset = fc.oneof(
  { weight: 6, arbitrary: fc.nat(60).map((block) => block * BLOCK) },
  { weight: 6, arbitrary: fc.nat(60 * BLOCK) },
  { weight: 1, arbitrary: fc.constantFrom(2 ** 40, 2 ** 31 - 1, 5 * 2 ** 30 + 7) },
)
const length = fc.oneof(
  fc.constantFrom(1, 100, BLOCK - 1, BLOCK, BLOCK + 1, 2 * BLOCK, 20_000),
  fc.integer({ min: 1, max: 300 }),
)
const instant = fc.oneof(
  fc.integer({ min: 0, max: 900_000_000 }),
  fc.constantFrom<Instant>('now', null),
)

/** One that only the two other branches of setxattr know: a version, then owner to others. */
const acl = fc
  .tuple(...[7, 7, 7, 7, 7].map((most) => fc.nat(most)))
  .map(([owner, user, group, mask, others]) => {
    const entries = [
      [0x01, owner!, 0xffffffff],
      [0x02, user!, 1000],
      [0x04, group!, 0xffffffff],
      [0x10, mask!, 0xffffffff],
      [0x20, others!, 0xffffffff],
    ] as const
    const value = Buffer.alloc(4 + entries.length * 8)
    value.writeUInt32LE(2)
    entries.forEach(([tag, bits, id], index) => {
      value.writeUInt16LE(tag, 4 + index * 8)
      value.writeUInt16LE(bits, 6 + index * 8)
      value.writeUInt32LE(id, 8 + index * 8)
    })
    return value.toString('hex')
  })

/** Everything a call of this name is made with, `do` added. */
function made<Name extends CallName>(
  called: Name,
  fields: { [F in keyof Arguments[Name]]: fc.Arbitrary<Arguments[Name][F]> },
): fc.Arbitrary<Of<Name>> {
  return fc
    .record(fields as Record<string, fc.Arbitrary<unknown>>)
    .map((given) => ({ do: called, ...given }) as unknown as Of<Name>)
}

const flags = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.constantFrom<readonly OpenFlag[]>(['CREAT', 'WRITE'], ['WRITE'], []),
  },
  { weight: 1, arbitrary: fc.subarray([...OPEN_FLAGS]) },
)

const CALLS: readonly (readonly [number, fc.Arbitrary<Of<CallName>>])[] = [
  [100, made('open', { slot, path, flags, mode })],
  [4, made('tmpfile', { slot, path, mode })],
  [8, made('linkSlot', { slot, path })],
  [12, made('close', { slot })],
  [12, made('fstat', { slot })],
  [4, made('fsync', { slot })],
  [32, made('read', { slot, offset, length })],
  [48, made('write', { slot, offset, length, number: fc.nat(0xffffff) })],
  [12, made('ftruncate', { slot, size: offset })],
  [16, made('fallocate', { slot, offset, length, mode: fc.constantFrom(0, 1, 3) })],
  [12, made('copy', { slot, offset, length, to: slot, onto: offset })],
  [8, made('seek', { slot, offset, whence: fc.constantFrom('data', 'hole') })],
  [12, made('truncate', { path, size: offset })],
  [24, made('stat', { path, follow: fc.boolean() })],
  [16, made('list', { path })],
  [4, made('readlink', { path })],
  [24, made('mkdir', { path, mode })],
  [8, made('mknod', { path, kind: fc.constantFrom('fifo', 'socket', 'device', 'file'), mode })],
  [12, made('symlink', { path, target: path })],
  [16, made('link', { path, onto: path })],
  [40, made('rename', { path, onto: path, flags: fc.constantFrom(0, 0, 0, 1, 2, 2, 3) })],
  [28, made('unlink', { path })],
  [16, made('rmdir', { path })],
  [16, made('chmod', { path, mode })],
  [12, made('chown', { path, uid: fc.constantFrom(-1, 0, 1000), gid: fc.constantFrom(-1, 0, 7) })],
  [12, made('utime', { path, atime: instant, mtime: instant })],
  [12, made('setxattr', { path, ...xattr(), flags: fc.constantFrom(0, 0, 1, 2) })],
  [8, made('setxattr', { path, ...aclXattr(), flags: fc.constant(0) })],
  [12, made('getxattr', { path, name: fc.constantFrom(...XATTRS, ...ACLS) })],
  [8, made('listxattr', { path })],
  [8, made('removexattr', { path, name: fc.constantFrom(...XATTRS, ...ACLS) })],
  [2, made('remount', {})],
  [2, made('crash', {})],
  [2, made('checkpoint', {})],
]

function xattr() {
  const value = fc.constantFrom(0, 1, 100, 3000).map((bytes) => 'a5'.repeat(bytes))
  return { name: fc.constantFrom(...XATTRS), value }
}

function aclXattr() {
  return { name: fc.constantFrom(...ACLS), value: acl }
}

/** Leaves out what is different from one filesystem, or kernel, to the next. */
function sensible(given: Of<CallName>): Of<CallName> {
  if (given.do === 'fallocate') return { ...given, length: lengthOf(given as Of<'fallocate'>) }
  if (given.do !== 'open') return given
  // CREAT and DIRECTORY: an error, or a file.
  const { flags } = given as Of<'open'>
  if (!flags.includes('CREAT')) return given
  return { ...given, flags: flags.filter((flag) => flag !== 'DIRECTORY') } as Of<'open'>
}

/**
 * A punch ends with a block: whether the last block of a file goes when the punch ends with the
 * file, in the middle of it, is seen in st_blocks.
 */
function lengthOf({ mode: how, offset: from, length: wanted }: Of<'fallocate'>): number {
  return how === 3 ? Math.ceil((from + wanted) / BLOCK) * BLOCK - from : wanted
}

export const call: fc.Arbitrary<Call> = fc
  .tuple(
    fc.oneof(...CALLS.map(([weight, arbitrary]) => ({ weight, arbitrary }))),
    fc.constantFrom(0, 0, 1000),
    fc.nat(30).map((of) => of === 30),
  )
  .map(([given, user, watch]) => {
    // Whether a removed ACL that was not there is a change.
    const watched = watch && given.do !== 'removexattr'
    return { ...sensible(given), user, watched } as Call
  })

/** Each sequence begins with a few files and directories, or little would meet. */
export const BEGINNING: readonly Call[] = [
  ...['d', 'e', 'd/f'].map((one) => ({ do: 'mkdir', path: one, mode: 0o755 }) as const),
  { do: 'open', slot: 0, path: 'a', flags: ['CREAT', 'WRITE'], mode: 0o644 } as const,
  { do: 'write', slot: 0, offset: 0, length: 10_000, number: 1 } as const,
  { do: 'symlink', path: 'l', target: 'd' } as const,
].map((given) => ({ ...given, user: 0, watched: false }))
