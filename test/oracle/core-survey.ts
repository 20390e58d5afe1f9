/** What there is to see of a tree on the core, in the words of calls.py. */
import type { Filesystem } from '../../src/fs/filesystem.ts'
import { isDirectory, isRegular } from '../../src/fs/modes.ts'
import { type Inode, ROOT_INODE } from '../../src/fs/operations.ts'
import { isLink } from './core-paths.ts'
import { digest } from './failure-model.ts'

/** A later time is one that no call has set. */
const SET_BY_CALLS = 1_000_000_000
const SECTORS_PER_BLOCK = 8
const SAMPLE = 2 ** 20
const O_RDONLY = 0

export interface Found {
  readonly path: string
  readonly ino: number
}

const when = (seconds: number) => (seconds < SET_BY_CALLS ? `${seconds}` : 'now')

export function describe(inode: Inode): string {
  const { mode, uid, gid, nlink, size, rdev, blocks } = inode
  const regular = isRegular(mode)
  const words = [mode.toString(8), `${uid}:${gid}`, `n${nlink}`]
  words.push(`s${regular || isLink(mode) ? size : 0}`)
  words.push(`r${rdev}`, `b${regular ? blocks * SECTORS_PER_BLOCK : 0}`)
  if (!isDirectory(mode) && !isLink(mode)) words.push(`a:${when(inode.atime)}`)
  words.push(`m:${when(inode.mtime)}`)
  return words.join(' ')
}

/** Names as calls.py shows them: with a / behind a directory, an @ behind a symbolic link. */
export function namesIn(fs: Filesystem, directory: number): string[] {
  return entriesOf(fs, directory).map(
    ({ name, kind }) => `${name}${kind === 4 ? '/' : ''}${kind === 10 ? '@' : ''}`,
  )
}

function entriesOf(fs: Filesystem, directory: number) {
  const found: { name: string; ino: number; kind: number }[] = []
  const handle = fs.opendir(directory)
  fs.readdir(handle, 0, ({ name, ino, kind }) => {
    found.push({ name: Buffer.from(name).toString(), ino, kind })
    return true
  })
  fs.release(handle)
  return found
    .filter(({ name }) => name !== '.' && name !== '..')
    .sort((one, other) => (one.name < other.name ? -1 : 1))
}

/** Everything below, parents first, in the order of their names. */
export function everything(fs: Filesystem, directory = ROOT_INODE, path = '.'): Found[] {
  return entriesOf(fs, directory).flatMap(({ name, ino, kind }) => {
    const found = { path: `${path}/${name}`, ino }
    return kind === 4 ? [found, ...everything(fs, ino, found.path)] : [found]
  })
}

export function survey(fs: Filesystem): string {
  return everything(fs)
    .map(({ path, ino }) => surveyOne(fs, path, ino))
    .join(' | ')
}

function surveyOne(fs: Filesystem, path: string, ino: number): string {
  const { mode, size } = fs.getattr(ino)
  const words = [path, describe(fs.getattr(ino))]
  if (isLink(mode)) return [...words, Buffer.from(fs.readlink(ino)).toString()].join(' ')
  for (const name of xattrNames(fs, ino)) {
    words.push(`${name}=${digestOf(fs.getxattr(ino, Buffer.from(name)))}`)
  }
  if (isRegular(mode)) words.push(contents(fs, ino, size))
  return words.join(' ')
}

export function xattrNames(fs: Filesystem, ino: number): string[] {
  return fs
    .listxattr(ino)
    .map((name) => Buffer.from(name).toString())
    .sort()
}

function contents(fs: Filesystem, ino: number, size: number): string {
  const handle = fs.open(ino, O_RDONLY, false)
  const read = (offset: number) => {
    const bytes = Buffer.alloc(SAMPLE)
    return bytes.subarray(0, fs.readInto(handle, offset, bytes, 0, SAMPLE))
  }
  const head = read(0)
  const tail = read(Math.max(head.length, size - SAMPLE))
  fs.release(handle)
  return digestOf(Buffer.concat([head, tail]))
}

/** As `digest`, without its `ok`. */
export function digestOf(bytes: Uint8Array): string {
  return digest(Buffer.from(bytes)).slice('ok '.length)
}

interface Clocks {
  readonly ino: number
  readonly mtime: string
  readonly ctime: string
}

/** The times of everything there is, by where it is: `others` are open files. */
export function clocks(fs: Filesystem, others: readonly Found[]): Map<string, Clocks> {
  const all = [{ path: '.', ino: ROOT_INODE }, ...everything(fs), ...others]
  return new Map(
    all.map(({ path, ino }) => {
      const { mtime, mtimeNs, ctime, ctimeNs } = fs.getattr(ino)
      return [path, { ino, mtime: `${mtime}.${mtimeNs}`, ctime: `${ctime}.${ctimeNs}` }]
    }),
  )
}

export function changed(before: Map<string, Clocks>, after: Map<string, Clocks>): string {
  const words: string[] = []
  for (const [path, old] of before) {
    const fresh = after.get(path)
    if (fresh?.ino !== old.ino) continue
    if (fresh.mtime !== old.mtime) words.push(`${path} mtime`)
    if (fresh.ctime !== old.ctime) words.push(`${path} ctime`)
  }
  return ` changed ${words.sort().join(', ')}`
}
