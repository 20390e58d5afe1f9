/** mkfs.holdfast: makes an empty filesystem in a region. */
import { unlinkSync } from 'node:fs'
import { Command, CommanderError } from 'commander'
import { CliError, complain, EXIT_FAILED, EXIT_OK, EXIT_USAGE } from '../src/cli/errors.ts'
import { print, printFields, printJson } from '../src/cli/output.ts'
import { formatSize, parseSize } from '../src/cli/sizes.ts'
import { fsPutDax } from '../src/dax/holder.ts'
import { BLOCK_SIZE } from '../src/media/geometry.ts'
import type { Superblock } from '../src/media/superblock.ts'
import { LABEL_SIZE } from '../src/media/superblock-layout.ts'
import { format } from './format.ts'
import { openTarget } from './target.ts'

interface Options {
  label?: string
  size?: string
  force?: boolean
  json?: boolean
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
    const [region] = command.args as [string]
    run(region, command.opts<Options>())
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
    .argument('<region>', 'a file (made when --size is given) or a device-dax node')
    .option('-L, --label <label>', `name of the filesystem, at most ${LABEL_SIZE} bytes`)
    .option('--size <size>', 'size of the file, with K, M, G or T; at least 32M')
    .option('--force', 'destroy what is there; let --size shrink a file')
    .option('--json', 'print what was made as JSON')
    .addHelpText('after', EXIT_CODES)
    .exitOverride()
}

function run(path: string, options: Options): void {
  const label = options.label ?? ''
  requireLabel(label)
  const size = options.size === undefined ? undefined : parseSize(options.size, '--size')
  const target = openTarget(path, { size, force: options.force ?? false })
  const { device, holder } = target
  try {
    const superblock = format(device.memory, {
      label,
      uid: process.getuid?.() ?? 0,
      gid: process.getgid?.() ?? 0,
      now: Math.floor(Date.now() / 1000),
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
