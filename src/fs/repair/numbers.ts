/** Numbers that no transaction can have given out: what carries them gets new ones. */
import { COUNTER_SPENT } from '../../media/geometry.ts'
import type { RepairContext } from './context.ts'

/** So that mounts have numbers left to give out. */
const HEADROOM = 2 ** 32
/** Numbers up to it belong to mkfs. */
const MKFS_LAST = 16

export function repairNumbers(context: RepairContext): void {
  renewSequence(context)
  const most = Math.max(context.sequence, COUNTER_SPENT - HEADROOM)
  raiseSequence(context, most)
  renumberInodes(context, most)
  renumberCookies(context, most)
}

/** One that no mount may count on from was never counted to: what is in use tells how far. */
function renewSequence(context: RepairContext): void {
  if (context.sequence <= COUNTER_SPENT) return
  const message = `the last sequence was ${context.sequence}: counted from what is in use again`
  context.actions.add('sequence', message)
  context.sequence = MKFS_LAST
}

/** Numbers above the last sequence would be given out a second time: go on behind them. */
function raiseSequence(context: RepairContext, most: number): void {
  const { database } = context.index
  const highest = database
    .prepare<[{ most: number }], number | null>(
      `SELECT max(n) FROM (SELECT max(ino) AS n FROM inode WHERE ino <= @most
       UNION ALL SELECT max(cookie) FROM dirent WHERE cookie <= @most)`,
    )
    .pluck()
    .get({ most })
  if (highest === null || highest === undefined || highest <= context.sequence) return
  context.actions.add('sequence', `the last sequence is now ${highest}, was ${context.sequence}`)
  context.sequence = highest
}

function renumberInodes(context: RepairContext, most: number): void {
  const { database } = context.index
  const impossible = database
    .prepare<[number], bigint>('SELECT ino FROM inode WHERE ino < 1 OR ino > ?')
    .pluck()
    .safeIntegers()
    .all(most)
  for (const ino of impossible) {
    const number = ++context.sequence
    const tables = ['inode SET ino', 'inode SET parent', 'dirent SET ino', 'dirent SET parent']
    // Below zero the owners of extents are metadata.
    if (ino >= 0) tables.push('rmap SET owner')
    for (const table of [...tables, 'xattr SET ino']) {
      const [, , column] = table.split(' ')
      database.prepare(`UPDATE ${table} = ? WHERE ${column} = ?`).run(number, ino)
    }
    context.actions.add('inode-number', `inode ${ino}, an impossible number, is now ${number}`)
  }
}

function renumberCookies(context: RepairContext, most: number): void {
  const { database } = context.index
  const impossible = database
    .prepare<[number], [parent: bigint, cookie: bigint]>(
      'SELECT parent, cookie FROM dirent WHERE cookie < 1 OR cookie > ?',
    )
    .raw()
    .safeIntegers()
    .all(most)
  const change = database.prepare('UPDATE dirent SET cookie = ? WHERE parent = ? AND cookie = ?')
  for (const [parent, cookie] of impossible) {
    change.run(++context.sequence, parent, cookie)
    const message = `entry ${cookie} of directory ${parent} is now ${context.sequence}`
    context.actions.add('dirent-cookie', message)
  }
}
