/** Inodes without a name: removed ones are freed, the others get a name in lost+found. */
import { findOrphans } from '../check/inodes.ts'
import type { RepairContext } from './context.ts'
import { emptyInode } from './inodes.ts'

const ROOT = 1
const DIRECTORY = 4

/** Unlinked while open, and then the machine stopped: nobody can miss them. */
export function freeOrphans(context: RepairContext): void {
  const { database } = context.index
  const statements = [
    database.prepare<[number]>('DELETE FROM rmap WHERE owner = ?'),
    database.prepare<[number]>('DELETE FROM xattr WHERE ino = ?'),
    database.prepare<[number]>('DELETE FROM inode WHERE ino = ?'),
  ]
  for (const ino of findOrphans(database)) {
    for (const statement of statements) statement.run(ino)
    context.actions.add('orphan', `freed inode ${ino}, which was removed while it was open`)
  }
}

export function reconnect(context: RepairContext): void {
  const unnamed = context.index.database
    .prepare<[], [ino: number, type: number]>(
      `SELECT ino, (mode & 61440) >> 12 FROM inode
       WHERE ino <> ${ROOT} AND NOT EXISTS(SELECT 1 FROM dirent WHERE dirent.ino = inode.ino)`,
    )
    .raw()
    .all()
  if (unnamed.length === 0) return
  const folder = lostFound(context)
  for (const [ino, type] of unnamed) {
    const name = freeName(context, folder.ino, `#${ino}`)
    context.index.dirents.put(folder.ino, ++context.sequence, Buffer.from(name), ino, type)
    context.actions.add('reconnected', `inode ${ino} is now /${folder.name}/${name}`)
  }
}

function lostFound(context: RepairContext): { ino: number; name: string } {
  const { index, now, actions } = context
  const found = index.dirents.find(ROOT, Buffer.from('lost+found'))
  if (found?.kind === DIRECTORY) return { ino: found.ino, name: 'lost+found' }
  const name = freeName(context, ROOT, 'lost+found')
  const ino = ++context.sequence
  index.inodes.put({ ...emptyInode(now), ino, mode: 0o040700, nlink: 2, parent: ROOT })
  index.dirents.put(ROOT, ino, Buffer.from(name), ino, DIRECTORY)
  actions.add('lost+found', `made /${name}`)
  return { ino, name }
}

function freeName(context: RepairContext, parent: number, wanted: string): string {
  let name = wanted
  for (let i = 1; context.index.dirents.find(parent, Buffer.from(name)) !== undefined; i++) {
    name = `${wanted}.${i}`
  }
  return name
}
