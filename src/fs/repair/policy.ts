/** What a repair may do without being asked: what costs neither data nor names. */
import type { Examination } from '../check/examine.ts'
import type { Problem } from '../check/problem.ts'

/** Counts, copies and indexes: the truth is elsewhere, and whole. */
const SAFE: ReadonlySet<string> = new Set([
  'shutdown',
  'superblock-damaged',
  'checkpoint-damaged',
  'inode-blocks',
  'inode-parent',
  'inode-sequence',
  'inode-target',
  'inode-time',
  'inode-unnamed',
  'symlink-size',
  'root-parent',
  'dirent-kind',
  'dirent-sequence',
  'directory-parent',
  'link-count',
  'metadata-extents',
  'free-adjacent',
  'free-overlap',
  'free-range',
  'space-lost',
  'poison-overlap',
  'poison-range',
])

export function isSafe(problem: Problem): boolean {
  return SAFE.has(problem.code)
}

/** True when every problem that can be corrected may be corrected at boot, by nobody's leave. */
export function onlySafe({ problems }: Examination): boolean {
  return problems.every((problem) => !problem.fixable || isSafe(problem))
}
