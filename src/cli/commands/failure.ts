/** holdfast inject and clear-poison: make memory fail, and say that it works again. */
import { type Command, Option } from 'commander'
import type { Target } from '../../control/target.ts'
import type { InjectRequest, InjectResult } from '../../fs/administration.ts'
import { CliError, EXIT_USAGE } from '../errors.ts'
import { plural, print, printJson } from '../output.ts'
import { formatSize } from '../sizes.ts'
import { jsonOption, placeOf, sizeArgument, withDaemon, withTarget } from './context.ts'

const BLOCK = 4096

interface InjectOptions {
  file?: string
  offset?: number
  metadata?: 'superblock' | 'journal' | 'checkpoint'
  free?: boolean
  length: number
  method: InjectRequest['method']
  json?: boolean
}

export function addInject(program: Command): void {
  jsonOption(program.command('inject'))
    .argument('<target>', 'mountpoint or region of a mounted holdfast')
    .option('--file <path>', 'hit this file, at --offset of it')
    .option('--offset <size>', 'hit this byte of the file, or of the region', sizeArgument)
    .addOption(
      new Option('--metadata <structure>', 'hit metadata in use').choices([
        'superblock',
        'journal',
        'checkpoint',
      ]),
    )
    .option('--free', 'hit free space')
    .option('--length <size>', 'how many bytes fail', sizeArgument, BLOCK)
    .addOption(
      new Option(
        '--method <method>',
        'soft: report it; sigbus: let it be discovered; hwpoison: really',
      )
        .choices(['soft', 'sigbus', 'hwpoison'])
        .default('soft'),
    )
    .summary('make memory fail')
    .description(
      'Make memory of a mounted filesystem fail. `soft` reports the failure to the device as the\n' +
        'kernel would; `sigbus` makes the pages really fault, so that the next access finds out.\n' +
        '`hwpoison` has the kernel itself take the memory for failed (root only), until it boots again.',
    )
    .action(inject)
}

async function inject(text: string, options: InjectOptions): Promise<void> {
  requireOneChoice(options)
  const { resolveTarget } = await import('../../control/target.ts')
  const target = resolveTarget(text)
  const request: InjectRequest = {
    target: await whatToHit(target, options),
    length: options.length,
    method: options.method,
  }
  const result = await withDaemon(target, (client) => client.call('inject', request))
  if (options.json) printJson(result)
  else printInjected(result, options.method)
}

function requireOneChoice({ file, offset, metadata, free }: InjectOptions): void {
  const byOffset = file === undefined ? offset : undefined
  const choices = [file, byOffset, metadata, free].filter((choice) => choice !== undefined)
  if (choices.length === 1) return
  throw new CliError(
    'say what to hit: one of --file PATH [--offset N], --offset N, --metadata STRUCTURE or --free',
    EXIT_USAGE,
  )
}

async function whatToHit(
  target: Target,
  { file, offset = 0, metadata, free }: InjectOptions,
): Promise<InjectRequest['target']> {
  if (metadata !== undefined) return { kind: 'metadata', structure: metadata }
  if (free) return { kind: 'free' }
  if (file === undefined) return { kind: 'offset', offset }
  const { resolveFile } = await import('../../control/target.ts')
  const found = resolveFile(file)
  if (found.target.key !== target.key) throw new CliError(`${file} is not on ${placeOf(target)}`)
  return { kind: 'file', inode: found.inode, fileOffset: offset }
}

function printInjected(result: InjectResult, method: string): void {
  const { kind, offset, length, inodes, handlesKilled, shutdown } = result
  const whose = inodes.length === 0 ? '' : ` of inode ${inodes.join(', ')}`
  print(`hit ${formatSize(length)} of ${kind}${whose} at region offset ${offset}`)
  if (shutdown) print('the filesystem is shut down: unmount it and run fsck.holdfast --repair')
  else if (method === 'sigbus') print('the next access will find out')
  else if (kind === 'data') print(`${plural(handlesKilled, 'handle')} killed`)
  else print('quarantined: it will not be allocated')
}

interface ClearOptions {
  offset?: number
  length?: number
  all?: boolean
  json?: boolean
}

export function addClearPoison(program: Command): void {
  jsonOption(program.command('clear-poison'))
    .argument('<target>', 'mountpoint or region of a mounted holdfast')
    .option('--offset <size>', 'first byte of the region', sizeArgument)
    .option('--length <size>', 'how many bytes', sizeArgument)
    .option('--all', 'everything that is poisoned')
    .summary('give poisoned memory back to use')
    .description(
      'Have the platform clear what it lists as bad, where it can. Blocks that can be read then, and\n' +
        'are listed no longer, may be allocated again; the others stay quarantined.',
    )
    .action(async (text: string, options: ClearOptions) => {
      const range = rangeOf(options)
      const result = await withTarget(text, async (client) => {
        const { cleared } = await client.call('clearPoison', { range })
        const { blocks, blockSize } = await client.call('status', {})
        return { cleared, quarantined: blocks.poisoned * blockSize }
      })
      if (options.json) printJson(result)
      else printCleared(result)
    })
}

/** What stays may be bad still, or simply not have been asked for. */
function printCleared({ cleared, quarantined }: { cleared: number; quarantined: number }): void {
  const left = quarantined === 0 ? '' : `, ${formatSize(quarantined)} stay quarantined`
  print(`${formatSize(cleared)} cleared${left}`)
}

function rangeOf({
  offset,
  length,
  all,
}: ClearOptions): { offset: number; length: number } | 'all' {
  const ranged = offset !== undefined || length !== undefined
  if (all && !ranged) return 'all'
  if (!all && offset !== undefined && length !== undefined) return { offset, length }
  throw new CliError('say what to clear: --offset N --length N, or --all', EXIT_USAGE)
}
