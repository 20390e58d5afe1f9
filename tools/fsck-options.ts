/** What fsck.holdfast was asked to do. */
import { Command, Option } from 'commander'
import type { OverlapChoice } from '../src/fs/repair/context.ts'

/**
 * What may be written: nothing; what costs nobody anything (at boot); or whatever it takes.
 */
export type Permission = 'nothing' | 'safe' | 'everything'

export interface FsckOptions {
  readonly region: string
  readonly permission: Permission
  /** True with -n: also a mounted region may be looked at. */
  readonly readOnly: boolean
  /** Check everything, even what says it is clean. */
  readonly full: boolean
  readonly json: boolean
  readonly verbose: boolean
  readonly overlap: OverlapChoice
}

interface Flags {
  dryRun?: boolean
  p?: boolean
  a?: boolean
  y?: boolean
  repair?: boolean
  force?: boolean
  json?: boolean
  verbose?: boolean
  progress?: string | boolean
  overlap: OverlapChoice
}

/** Bits of the exit code, as fsck(8) has them. */
export const EXIT_CLEAN = 0
export const EXIT_CORRECTED = 1
export const EXIT_UNCORRECTED = 4
export const EXIT_OPERATIONAL = 8
export const EXIT_USAGE = 16
export const EXIT_CANCELED = 32

const HELP = `
Without -p, -y or --repair nothing is written: what is wrong is told, and the exit code is 4.

Exit codes, as fsck(8) (their sum when several hold):
   0  no errors
   1  errors, all of them corrected
   4  errors left uncorrected
   8  operational error: the region is in use, cannot be read, is no holdfast filesystem
  16  usage error
  32  cancelled`

export function makeCommand(program: string): Command {
  return new Command(program)
    .description('Check a holdfast filesystem, and repair it.')
    .argument('<region>', 'a file or a device-dax node')
    .option('-n, --dry-run', 'write nothing, say what --repair would do; also for mounted regions')
    .option('-p', 'at boot: quick when clean; correct only what costs no data and no names')
    .option('-a', 'the same as -p')
    .option('-y', 'the same as --repair')
    .option('--repair', 'correct whatever can be corrected')
    .option('-f, --force', 'check everything, also with -p a filesystem that is clean')
    .addOption(
      new Option('--overlap <how>', 'what a file reads where another one keeps the blocks')
        .choices(['quarantine', 'zero'])
        .default('quarantine', 'quarantine: an error'),
    )
    .option('--json', 'print the result as JSON')
    .option('-v, --verbose', 'say more')
    .option('-C, --progress [fd]', 'accepted for fsck(8); a terminal gets a progress bar anyway')
    .addHelpText('after', HELP)
    .exitOverride()
}

/** Throws a sentence for options that contradict each other. */
export function readOptions(command: Command): FsckOptions {
  const flags = command.opts<Flags>()
  const preen = flags.p === true || flags.a === true
  const repair = flags.y === true || flags.repair === true
  if ([flags.dryRun === true, preen, repair].filter(Boolean).length > 1) {
    throw new RangeError('only one of -n, -p (or -a) and --repair (or -y) may be given')
  }
  return {
    region: command.args[0]!,
    permission: repair ? 'everything' : preen ? 'safe' : 'nothing',
    readOnly: flags.dryRun === true,
    full: !preen || flags.force === true,
    json: flags.json === true,
    verbose: flags.verbose === true,
    overlap: flags.overlap,
  }
}
