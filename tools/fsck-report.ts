/** What fsck found and did, for a person or a program. */
import { paint, plural, print, printJson } from '../src/cli/output.ts'
import type { BadFile } from '../src/fs/check/bad-files.ts'
import type { Examination } from '../src/fs/check/examine.ts'
import type { Problem } from '../src/fs/check/problem.ts'
import type { Outcome } from './fsck.ts'
import { EXIT_UNCORRECTED, type FsckOptions } from './fsck-options.ts'

export function report(options: FsckOptions, outcome: Outcome): void {
  if (options.json) printJson(toJson(options, outcome))
  else for (const line of toLines(options, outcome)) print(line)
}

function toJson(options: FsckOptions, outcome: Outcome) {
  const { examination, mounted, found, actions, plan, exitCode } = outcome
  const superblock = examination?.superblock
  return {
    region: options.region,
    uuid: superblock?.uuid ?? null,
    label: superblock?.label ?? null,
    state: superblock?.state ?? null,
    mounted,
    checked: examination === undefined ? 'quick' : 'full',
    problems: found,
    notices: examination?.notices ?? [],
    actions,
    plan,
    badFiles: examination?.badFiles ?? [],
    left: examination?.problems ?? [],
    ...(examination === undefined ? {} : usage(examination)),
    exitCode,
  }
}

function usage({ superblock, salvaged }: Examination) {
  if (superblock === undefined || salvaged === undefined) return undefined
  const { index, sequence } = salvaged
  const { dataStartBlock, dataEndBlock } = superblock.geometry
  const free = index.freeSpace.total()
  const poisoned = index.poison.all().reduce((sum, range) => sum + range.blocks, 0)
  const total = dataEndBlock - dataStartBlock
  return {
    sequence,
    inodes: index.inodes.count(),
    blocks: { total, free, used: total - free, poisoned },
  }
}

function toLines(options: FsckOptions, outcome: Outcome): string[] {
  const { examination, mounted, found, actions, plan } = outcome
  if (examination === undefined) return [`${options.region}: clean`]
  const lines: string[] = []
  if (mounted) {
    lines.push(`${options.region} is mounted: checked the last checkpoint, not the journal`)
  }
  for (const problem of found) lines.push(problemLine(problem))
  for (const { message } of actions) lines.push(`${paint('green', 'corrected')}: ${message}`)
  for (const { message } of plan) lines.push(`${paint('yellow', 'would correct')}: ${message}`)
  for (const file of examination.badFiles) lines.push(badFileLine(file))
  // After a repair the notices of before are no longer true.
  for (const notice of examination.notices) lines.push(`note: ${notice}`)
  if (options.verbose) lines.push(...detailLines(examination))
  lines.push(`${options.region}: ${verdict(options, outcome)}`)
  return lines
}

function badFileLine({ path, inode, fileOffset, length, regionOffset }: BadFile): string {
  const name = path ?? `inode ${inode}, which has no name`
  const where = `bytes ${fileOffset} to ${fileOffset + length - 1}`
  return `${paint('yellow', 'bad memory')}: ${name}: ${where} (region offset ${regionOffset})`
}

function problemLine({ structure, message, offset, fixable }: Problem): string {
  const told = offset === undefined || message.includes('region offset')
  const where = told ? '' : ` (region offset ${offset})`
  const hopeless = fixable ? '' : ', cannot be corrected'
  return `${paint('red', structure)}: ${message}${where}${hopeless}`
}

function verdict(options: FsckOptions, { examination, found, actions, exitCode }: Outcome): string {
  const counts = examination === undefined ? '' : summary(examination)
  if (found.length === 0) return `clean${counts}`
  const left = examination?.problems ?? []
  if ((exitCode & EXIT_UNCORRECTED) === 0)
    return `${plural(found.length, 'problem')} corrected${counts}`
  const again = left.some((problem) => problem.fixable) && actions.length === 0
  const advice = again ? `: run fsck.holdfast --repair ${options.region}` : ''
  return `${plural(left.length, 'problem')} left${advice}`
}

function summary(examination: Examination): string {
  const found = usage(examination)
  if (found === undefined) return ''
  return `, ${plural(found.inodes, 'inode')}, ${found.blocks.used}/${found.blocks.total} blocks`
}

function detailLines({ superblock, salvaged }: Examination): string[] {
  if (superblock === undefined) return []
  const { uuid, label, state, generation, epoch, checkpoint } = superblock
  return [
    `uuid ${uuid}, label ${label === '' ? '(none)' : label}`,
    `state ${state}, generation ${generation}, epoch ${epoch}`,
    `checkpoint in slot ${checkpoint.slot}: ${checkpoint.length} bytes, sequence ${checkpoint.sequence}`,
    `journal: ${salvaged?.transactions ?? 0} operations up to sequence ${salvaged?.sequence ?? '?'}`,
  ]
}
