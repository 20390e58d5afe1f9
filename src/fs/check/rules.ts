/**
 * A rule is one SQL condition that a healthy row never meets. All rules of a table run in one scan:
 * SQLite filters a million healthy rows in C, JavaScript sees only the sick ones.
 */
import type { Database } from 'better-sqlite3'
import type { Report, Structure } from './problem.ts'

export type Row = Readonly<Record<string, number | null>>

export interface Rule {
  code: string
  when: string
  say: (row: Row) => string
  fixable: boolean
}

export interface RuleSet {
  structure: Structure
  /** Columns the sentences need, and the table (with joins) they come from. */
  columns: string
  from: string
  rules: readonly Rule[]
  /** Which inode the row is about. */
  inode?: (row: Row) => number
}

export function applyRules(database: Database, report: Report, set: RuleSet): void {
  const flags = set.rules.map((rule, i) => `(${rule.when}) AS broken${i}`)
  const any = set.rules.map((rule) => `(${rule.when})`).join(' OR ')
  const sql = `SELECT ${[set.columns, ...flags].join(', ')} FROM ${set.from} WHERE ${any}`
  for (const row of database.prepare<[], Row>(sql).iterate()) {
    set.rules.forEach((rule, i) => {
      if (!row[`broken${i}`]) return
      const { structure } = set
      const problem = { structure, code: rule.code, message: rule.say(row), fixable: rule.fixable }
      report.add(set.inode === undefined ? problem : { ...problem, inode: set.inode(row) })
    })
  }
}
