/** The `holdfast` program, and mount.holdfast: arguments in, exit code out. */
import { existsSync, readFileSync } from 'node:fs'
import { Command, CommanderError } from 'commander'
import { addCheckpoint, addFreeze, addShutdown, addThaw } from './commands/administer.ts'
import { addDump } from './commands/dump.ts'
import { addClearPoison, addInject } from './commands/failure.ts'
import { addInstall } from './commands/install.ts'
import { addGetmap, addRmap } from './commands/map.ts'
import { addMount, helperProgram } from './commands/mount.ts'
import { addRegion } from './commands/region.ts'
import { addScrub } from './commands/scrub.ts'
import { addStatus } from './commands/status.ts'
import { addUmount } from './commands/umount.ts'
import { addWatch } from './commands/watch.ts'
import { CliError, complain, EXIT_FAILED, EXIT_OK, EXIT_USAGE, MOUNT_USAGE } from './errors.ts'

const COMMANDS = [
  addMount,
  addUmount,
  addStatus,
  addGetmap,
  addRmap,
  addInject,
  addClearPoison,
  addWatch,
  addFreeze,
  addThaw,
  addCheckpoint,
  addScrub,
  addShutdown,
  addDump,
  addRegion,
  addInstall,
]

const EXAMPLES = `
Examples:
  mkfs.holdfast --size 1G pool.holdfast        make a region in a file
  holdfast mount pool.holdfast /mnt/pool       mount it (also: holdfast pool.holdfast /mnt/pool)
  holdfast status                              what you have mounted
  holdfast getmap /mnt/pool/file               where in the region a file lies
  holdfast inject /mnt/pool --file /mnt/pool/file
                                               make its memory fail: its handles die, others do not
  holdfast watch /mnt/pool                     see it happen, from another terminal
  holdfast clear-poison /mnt/pool --all        the memory works again
  holdfast umount /mnt/pool                    unmount, and wait until the region is clean

Exit codes:
  0  done
  1  failed; the reason is on stderr
  2  usage error
  mount has those of mount(8): 0, 1 (usage), 2 (system), 32 (mount failed).`

export async function main(program: string, args: readonly string[]): Promise<number> {
  const helper = program === 'mount.holdfast'
  const full = helper || !impliesMount(args) ? [...args] : ['mount', ...args]
  try {
    const command = helper ? helperProgram(program) : buildProgram()
    settle(command, program)
    await command.parseAsync(full, { from: 'user' })
    return Number(process.exitCode ?? EXIT_OK)
  } catch (error) {
    return failed(program, error, helper || full[0] === 'mount')
  }
}

function failed(program: string, error: unknown, mounting: boolean): number {
  if (error instanceof CommanderError) {
    // commander has said what is wrong, or has printed what it was asked for.
    if (error.exitCode === 0) return EXIT_OK
    return mounting ? MOUNT_USAGE : EXIT_USAGE
  }
  complain(program, error)
  return error instanceof CliError ? error.exitCode : EXIT_FAILED
}

export function buildProgram(): Command {
  const program = new Command('holdfast')
    .description('A filesystem over DAX memory: mount it, look into it, make its memory fail.')
    .usage('COMMAND … | holdfast REGION MOUNTPOINT [-o OPTION,…]')
    .version(version(), '-V, --version', 'print the version')
    .addHelpText('after', EXAMPLES)
    .helpCommand('help [command]', 'explain a command')
  for (const add of COMMANDS) add(program)
  return program
}

/** One-line errors, the exit code left to main(); of what is below it as well. */
function settle(command: Command, program: string, name = program): void {
  command
    .exitOverride()
    .helpOption('-h, --help', 'explain it')
    .configureOutput({
      outputError(text, write) {
        const sentence = text
          .replace(/^error: /, '')
          .trim()
          .replace(/\s*\n\s*/g, ' ')
        write(`${program}: ${sentence.replace(/\.$/, '')} (see ${name} --help)\n`)
      },
    })
  for (const below of command.commands) settle(below, program, `${name} ${below.name()}`)
}

/**
 * `holdfast REGION MOUNTPOINT [-o …]`, also as mount.fuse calls it: options may come first, and a
 * region is known by not being a command and by being a path or having a mountpoint beside it.
 */
export function impliesMount(args: readonly string[]): boolean {
  const words: string[] = []
  for (let i = 0; i < args.length; i++) {
    const arg = args[i] ?? ''
    if (arg === '-o' || arg === '--options') i++
    else if (!arg.startsWith('-')) words.push(arg)
  }
  const [first] = words
  if (first === undefined || isCommand(first)) return false
  return words.length > 1 || first.includes('/') || existsSync(first)
}

function isCommand(word: string): boolean {
  return (
    word === 'help' ||
    buildProgram().commands.some((command) => [command.name(), ...command.aliases()].includes(word))
  )
}

function version(): string {
  const text = readFileSync(new URL('../../package.json', import.meta.url), 'utf8')
  return (JSON.parse(text) as { version: string }).version
}
