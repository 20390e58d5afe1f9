/** mkfs.holdfast: makes an empty filesystem in a region. */
import { unlinkSync } from 'node:fs'
import { Command, CommanderError } from 'commander'
import type { SetKind } from '../src/bus/label-layout.ts'
import { CliError, complain, EXIT_FAILED, EXIT_OK, EXIT_USAGE } from '../src/cli/errors.ts'
import { print, printFields, printJson } from '../src/cli/output.ts'
import { formatSize, parseSize } from '../src/cli/sizes.ts'
import { fsPutDax } from '../src/dax/holder.ts'
import { BLOCK_SIZE } from '../src/media/geometry.ts'
import type { Superblock } from '../src/media/superblock.ts'
import { LABEL_SIZE } from '../src/media/superblock-layout.ts'
import { format } from './format.ts'
import { makeSet } from './mapped.ts'
import { openTarget, type Target } from './target.ts'

interface Options {
  label?: string
  size?: string
  force?: boolean
  json?: boolean
  linear?: boolean
  striped?: boolean
  chunk: string
}

const EXIT_CODES = `
Exit codes:
  0  the filesystem was made
  1  refused, or failed
  2  usage error`

export async function main(program: string, args: readonly string[]): Promise<number> {
  try {
    const command = makeCommand(program)
    command.parse([...args], { from: 'user' })
    run(command.args, command.opts<Options>())
    return EXIT_OK
  } catch (error) {
    // commander has already said what is wrong.
    if (error instanceof CommanderError) return error.exitCode === 0 ? EXIT_OK : EXIT_USAGE
    complain(program, error)
    return error instanceof CliError ? error.exitCode : EXIT_FAILED
  }
}

function makeCommand(program: string): Command {
  return new Command(program)
    .description('Make an empty holdfast filesystem in a region of memory.')
    .argument(
      '<region...>',
      "a file (made when --size is given), a device-dax node, or an instance 'FILE#dax0.1';\n" +
        'several with --linear or --striped',
    )
    .option('-L, --label <label>', `name of the filesystem, at most ${LABEL_SIZE} bytes`)
    .option('--size <size>', 'size of the file (of each), with K, M, G or T; at least 32M')
    .option('--linear', 'one filesystem over several regions, one behind the other')
    .option('--striped', 'one filesystem over several regions, chunk by chunk in turn')
    .option('--chunk <size>', 'chunk of --striped, a multiple of 2M', '2M')
    .option('--force', 'destroy what is there; let --size shrink a file')
    .option('--json', 'print what was made as JSON')
    .addHelpText('after', EXIT_CODES)
    .exitOverride()
}

function run(paths: readonly string[], options: Options): void {
  requireLabel(options.label ?? '')
  const size = options.size === undefined ? undefined : parseSize(options.size, '--size')
  const force = options.force ?? false
  const kind = kindOf(paths, options)
  if (kind === undefined) {
    make(paths[0]!, openTarget(paths[0]!, { size, force }), options)
    return
  }
  const chunk = kind === 'striped' ? parseSize(options.chunk, '--chunk') : 0
  const set = makeSet(paths, { kind, chunk, size, force })
  try {
    make(set.name, openTarget(set.name, { size: undefined, force: true }), options)
  } catch (error) {
    set.undo()
    throw error
  }
}

/** Undefined for a filesystem in one region. */
function kindOf(paths: readonly string[], { linear, striped }: Options): SetKind | undefined {
  const usage = (sentence: string) => new CliError(sentence, EXIT_USAGE)
  if (linear && striped) throw usage('--linear and --striped exclude each other')
  const kind = linear ? 'linear' : striped ? 'striped' : undefined
  if (kind === undefined && paths.length > 1) {
    throw usage(`${paths.length} regions: say --linear or --striped to make one filesystem of them`)
  }
  if (kind !== undefined && paths.length < 2) throw usage(`--${kind} needs two regions or more`)
  return kind
}

function make(path: string, target: Target, options: Options): void {
  const { device, holder } = target
  try {
    const superblock = format(device.memory, {
      label: options.label ?? '',
      uid: process.getuid?.() ?? 0,
      gid: process.getgid?.() ?? 0,
      now: Math.floor(Date.now() / 1000),
      bad: device.badRanges.list(),
    })
    report(path, superblock, options.json ?? false)
  } catch (error) {
    if (target.created) unlinkSync(path)
    throw error
  } finally {
    fsPutDax(device, holder)
    device.close()
  }
}

function requireLabel(label: string): void {
  const length = Buffer.byteLength(label)
  if (length > LABEL_SIZE) {
    const sentence = `the label has ${length} bytes, at most ${LABEL_SIZE} fit: give a shorter one`
    throw new CliError(sentence, EXIT_USAGE)
  }
  if (label.includes('\0')) throw new CliError('the label has a zero byte in it', EXIT_USAGE)
}

function report(region: string, superblock: Superblock, json: boolean): void {
  const { geometry, uuid, label } = superblock
  const slots = superblock.slots.flat().reduce((sum, range) => sum + range.blocks, 0)
  const usable = (geometry.dataEndBlock - geometry.dataStartBlock - slots) * BLOCK_SIZE
  const journalSize = geometry.journal[0].length + geometry.journal[1].length
  if (json) {
    const sizes = { regionSize: geometry.size, blockSize: BLOCK_SIZE, blocks: geometry.blocks }
    printJson({ uuid, label, region, ...sizes, journalSize, usable })
    return
  }
  print(`made a holdfast filesystem in ${region}`)
  printFields([
    ['uuid', uuid],
    ['label', label === '' ? '(none)' : label],
    ['size', formatSize(geometry.size)],
    ['blocks', `${geometry.blocks} of ${formatSize(BLOCK_SIZE)}`],
    ['journal', formatSize(journalSize)],
    ['usable space', formatSize(usable)],
  ])
}
