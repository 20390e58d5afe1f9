/** A mounted filesystem as a tree that can be compared with a State of the model. */
import { createHash } from 'node:crypto'
import { MemoryFailure } from '../../src/dax/memory.ts'
import { FsError } from '../../src/fs/errors.ts'
import type { Filesystem } from '../../src/fs/filesystem.ts'
import { BLOCK, type Described, type NodeType, signatureOf } from './model.ts'

const TYPES: Record<number, NodeType> = { 8: 'file', 4: 'directory', 10: 'symlink', 1: 'fifo' }
const EIO = 5

export interface Found extends Described {
  readonly ino: number
  readonly mtime: number
  readonly bytes: Buffer
  /** File blocks that cannot be read. */
  readonly unreadable: Set<number>
}

/** Path → what is there. */
export type Tree = ReadonlyMap<string, Found>

export function survey(fs: Filesystem): Tree {
  const tree = new Map<string, Found>()
  visit(fs, '/', 1, 'directory', tree)
  return tree
}

export function signatureOfTree(tree: Tree): string {
  return signatureOf([...tree].map(([path, found]) => [path, found.ino, found] as const))
}

/** A value of an attribute as the model keeps it: long ones by their checksum. */
export function attributeText(value: Uint8Array): string {
  if (value.length <= 64) return Buffer.from(value).toString('hex')
  return createHash('sha1').update(value).digest('hex')
}

function visit(
  fs: Filesystem,
  path: string,
  ino: number,
  type: NodeType,
  tree: Map<string, Found>,
): void {
  tree.set(path, examineNode(fs, ino, type))
  if (type !== 'directory') return
  const handle = fs.opendir(ino)
  const entries: { name: string; ino: number; type: NodeType }[] = []
  fs.readdir(handle, 0, ({ name, ino: child, kind }) => {
    entries.push({ name: Buffer.from(name).toString(), ino: child, type: TYPES[kind]! })
    return true
  })
  fs.release(handle)
  for (const entry of entries) {
    if (entry.name === '.' || entry.name === '..') continue
    const prefix = path === '/' ? '' : path
    visit(fs, `${prefix}/${entry.name}`, entry.ino, entry.type, tree)
  }
}

function examineNode(fs: Filesystem, ino: number, type: NodeType): Found {
  const row = fs.getattr(ino)
  const xattrs = new Map<string, string>()
  for (const name of fs.listxattr(ino)) {
    xattrs.set(Buffer.from(name).toString(), attributeText(fs.getxattr(ino, name)))
  }
  const unreadable = new Set<number>()
  return {
    ino,
    type,
    mode: row.mode & 0o7777,
    uid: row.uid,
    gid: row.gid,
    nlink: row.nlink,
    size: row.size,
    target: type === 'symlink' ? Buffer.from(fs.readlink(ino)).toString() : '',
    xattrs,
    mtime: row.mtime,
    bytes: type === 'file' ? readFile(fs, ino, row.size, unreadable) : Buffer.alloc(0),
    unreadable,
  }
}

/** All bytes; what cannot be read stays zero and is told. */
export function readFile(
  fs: Filesystem,
  ino: number,
  size: number,
  unreadable: Set<number>,
): Buffer {
  const bytes = Buffer.alloc(size)
  const handle = fs.open(ino, 0, false)
  for (let at = 0; at < size; ) {
    try {
      const count = fs.readInto(handle, at, bytes, at, size - at)
      if (count === 0) throw new Error(`a read at ${at} of ${size} bytes gave nothing`)
      at += count
    } catch (error) {
      const failed = error instanceof FsError && error.errno === EIO
      if (!failed && !(error instanceof MemoryFailure)) throw error
      unreadable.add(Math.floor(at / BLOCK))
      at = (Math.floor(at / BLOCK) + 1) * BLOCK
    }
  }
  fs.release(handle)
  return bytes
}
