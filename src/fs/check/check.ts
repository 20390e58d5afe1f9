/**
 * The checker: every INVARIANT of the index, as fsck runs it and as tests run it after every
 * operation. Reads only; a million files take a few seconds.
 */
import type { Database } from 'better-sqlite3'
import type { Geometry } from '../../media/geometry.ts'
import type { Superblock } from '../../media/superblock.ts'
import { checkExtents } from './extents.ts'
import { checkInodes } from './inodes.ts'
import { metadataRows } from './layout.ts'
import { checkLinks } from './links.ts'
import { checkMetadata } from './metadata.ts'
import { checkNames } from './names.ts'
import { type Problem, Report } from './problem.ts'
import { checkSpace } from './space.ts'

export type { Problem, Structure } from './problem.ts'

export interface CheckOptions {
  /** The last sequence given out: no inode number or cookie is above it. */
  sequence?: number | undefined
  /** Problems of one kind that are told in full; the rest is counted. */
  limit?: number
}

export function checkIndex(
  database: Database,
  geometry: Geometry,
  superblock: Pick<Superblock, 'slots'>,
  options: CheckOptions = {},
): Problem[] {
  const passes = checkPasses(database, geometry, superblock, options)
  for (;;) {
    const { done, value } = passes.next()
    if (done) return value
  }
}

/** The same pass by pass: yields the name of the next one, for a progress bar or a way out. */
export function* checkPasses(
  database: Database,
  geometry: Geometry,
  superblock: Pick<Superblock, 'slots'>,
  options: CheckOptions = {},
): Generator<string, Problem[]> {
  const report = new Report(options.limit)
  const sequence = options.sequence ?? Number.MAX_SAFE_INTEGER
  yield 'inodes'
  checkInodes(database, report, sequence)
  yield 'names'
  checkNames(database, report, sequence)
  yield 'links'
  checkLinks(database, report)
  yield 'extents'
  checkExtents(database, report)
  yield 'space'
  checkSpace(database, report, geometry.blocks)
  checkMetadata(database, report, metadataRows(geometry, superblock.slots.flat()))
  return report.problems()
}
