/** Link counts, and that every directory hangs on the root by exactly one name. */
import type { Database } from 'better-sqlite3'
import { IS_DIRECTORY } from './inodes.ts'
import type { Report } from './problem.ts'
import { applyRules, type Rule } from './rules.ts'

/** Names of each inode, and the subdirectories of each directory. */
const COUNTED = `(SELECT ino, nlink, ${IS_DIRECTORY} AS directory,
    (SELECT count(*) FROM dirent d WHERE d.ino = inode.ino) AS names,
    CASE WHEN ${IS_DIRECTORY}
      THEN (SELECT count(*) FROM dirent d WHERE d.parent = inode.ino AND d.kind = 4) END AS below,
    CASE WHEN ${IS_DIRECTORY} AND nlink = 0
      THEN (SELECT count(*) FROM dirent d WHERE d.parent = inode.ino) END AS entries
  FROM inode)`

const RULES: readonly Rule[] = [
  {
    code: 'inode-unnamed',
    when: 'ino <> 1 AND names = 0 AND (nlink <> 0 OR entries > 0)',
    say: (row) => `inode ${row.ino} has ${row.nlink} links and no name`,
    fixable: true,
  },
  {
    code: 'directory-names',
    when: 'directory AND names > 1 AND ino <> 1',
    say: (row) => `directory ${row.ino} has ${row.names} names: it may have one`,
    fixable: true,
  },
  {
    code: 'link-count',
    when: `CASE WHEN directory THEN (names > 0 OR ino = 1) AND nlink <> 2 + below
      ELSE names > 0 AND nlink <> names END`,
    say: (row) => {
      const right = row.directory ? 2 + (row.below ?? 0) : row.names
      return `inode ${row.ino}: link count is ${row.nlink}, should be ${right}`
    },
    fixable: true,
  },
]

export function checkLinks(database: Database, report: Report): void {
  applyRules(database, report, {
    structure: 'inode',
    columns: 'ino, nlink, directory, names, below',
    from: COUNTED,
    rules: RULES,
    inode: (row) => row.ino ?? 0,
  })
  for (const ino of findCycles(database)) {
    const message = `directory ${ino} is below itself: the root does not lead to it`
    report.add({ structure: 'dirent', code: 'directory-cycle', inode: ino, message, fixable: true })
  }
}

/** One directory (the lowest inode number) of every loop of directories. */
export function findCycles(database: Database): number[] {
  const sql = `SELECT d.ino, d.parent FROM dirent d JOIN inode i ON i.ino = d.ino
    WHERE ${IS_DIRECTORY} AND d.ino <> 1`
  const parents = new Map<number, number>()
  for (const [ino, parent] of database.prepare<[], [number, number]>(sql).raw().iterate()) {
    parents.set(ino, parent)
  }
  const cycles: number[] = []
  const walked = new Map<number, number>()
  for (const start of parents.keys()) {
    let ino: number | undefined = start
    while (ino !== undefined && !walked.has(ino)) {
      walked.set(ino, start)
      ino = parents.get(ino)
    }
    // Back on the path of this very walk: everything from here round to here is a loop.
    if (ino !== undefined && walked.get(ino) === start) cycles.push(lowest(parents, ino))
  }
  return cycles.sort((a, b) => a - b)
}

function lowest(parents: ReadonlyMap<number, number>, start: number): number {
  let least = start
  for (let ino = parents.get(start)!; ino !== start; ino = parents.get(ino)!) {
    least = Math.min(least, ino)
  }
  return least
}
