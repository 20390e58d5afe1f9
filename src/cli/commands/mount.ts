/** holdfast mount and mount.holdfast: two ways to say the same. */
import { spawnSync } from 'node:child_process'
import { resolve } from 'node:path'
import { Command } from 'commander'
import { CliError, MOUNT_SYSTEM } from '../errors.ts'
import { defaultOptions, formatOptions, type MountOptions, parseOptions } from '../options.ts'
import { print } from '../output.ts'

const OPTIONS_HELP = `
Mount options (-o, separated by commas):
  ro, rw                   mount read-only, or not (default rw)
  allow_other              let other users in
  transport=kernel         speak FUSE to the kernel directly (default), or
  transport=fuse-native      through the npm binding of libfuse 2
  cache=keep               let the kernel cache all (default: we are the only holder),
  cache=auto                 drop a file's pages when it is opened, or
  cache=none                 cache nothing
  writeback                let the kernel collect writes (ENOSPC is then told at close)
  commit=SECONDS           make everything durable at least this often (default 1)
  index_dir=DIR            where an index too big for memory may lie while mounted
  on_failure=handles       a memory failure kills the handles of its file (default), or
  on_failure=sigbus          also signals the processes that have it mapped
  log=FILE                 where the daemon logs (default: the journal, else a file in the
                           runtime directory; with -f, stderr)
  debug                    log every request
  sync                     every change is durable before it is answered,
  dirsync                    those of names are; the others as without it
  nodev, nosuid, noexec, noatime, nodiratime    as for every filesystem
Options that mount(8) and systemd keep for themselves (defaults, user, noauto, nofail, _netdev,
x-*, comment=) are accepted and ignored.`

const EXIT_CODES = `

Exit codes:
  0   mounted, and it answers
  1   usage error, or a mount option that does not exist
  2   system error: the daemon could not be started, or died
  32  the mount failed; the reason is on stderr`

const EXAMPLES = `

Examples:
  holdfast mount pool.holdfast /mnt/pool
  holdfast mount -f -o ro,log=/tmp/pool.log /dev/dax0.0 /mnt/pool
  holdfast pool.holdfast /mnt/pool -o commit=5
  holdfast mount 'pool.region#dax0.1' /mnt/pool        (an instance; see holdfast region)
  holdfast mount a.holdfast,b.holdfast /mnt/pool       (made with mkfs.holdfast --linear a b)
  /dev/dax0.0  /mnt/pool  holdfast  defaults,nofail  0 0      (fstab, after holdfast install)`

interface Switches {
  foreground?: boolean
  verbose?: boolean
  options?: string[]
}

export function addMount(program: Command): void {
  program
    .command('mount')
    .argument(
      '<region>',
      "a file, a device-dax node, or an instance 'FILE#dax0.1', with a filesystem;\n" +
        'all targets of a mapped device in their order: A,B',
    )
    .argument('<mountpoint>', 'an existing directory')
    .option('-f, --foreground', 'stay in the foreground until Ctrl-C or umount')
    .option('-v, --verbose', 'say what was done')
    .option('-o, --options <list>', 'mount options, see below', collect)
    .summary('mount a region')
    .description(
      'Mount a region. Returns once the mount answers; the daemon goes to the background unless -f.',
    )
    .addHelpText('after', OPTIONS_HELP + EXIT_CODES + EXAMPLES)
    .action((region: string, mountpoint: string, switches: Switches) =>
      mount(region, mountpoint, optionsOf(switches.options), switches),
    )
}

interface HelperSwitches {
  fake?: boolean
  sloppy?: boolean
  verbose?: boolean
  namespace?: string
  options?: string[]
}

/** mount.holdfast: the order and the letters with which mount(8) calls its helpers. */
export function helperProgram(program: string): Command {
  return new Command(program)
    .argument('<source>', 'the region')
    .argument('<target>', 'the mountpoint')
    .option('-f, --fake', 'do everything but mount')
    .option('-s, --sloppy', 'ignore mount options that do not exist')
    .option('-n', 'accepted: there is no mtab to write')
    .option('-v, --verbose', 'say what was done')
    .option('-N, --namespace <ns>', 'mount in this mount namespace: a path or a process id')
    .option('-o, --options <list>', 'mount options, see below', collect)
    .option('-t, --types <type>', 'accepted: the type, or type.subtype')
    .description('Mount a holdfast region on behalf of mount(8); people use `holdfast mount`.')
    .addHelpText('after', OPTIONS_HELP + EXIT_CODES)
    .action(async (source: string, target: string, switches: HelperSwitches) => {
      const options = optionsOf(switches.options, switches.sloppy)
      if (switches.namespace !== undefined)
        enterNamespace(switches.namespace, source, target, options)
      else if (switches.fake) await fake(source, target, options)
      else await mount(source, target, options, switches)
    })
}

function collect(value: string, before: string[] = []): string[] {
  return [...before, value]
}

function optionsOf(lists: readonly string[] = [], sloppy = false): MountOptions {
  const options = defaultOptions()
  for (const list of lists) parseOptions(list, options, sloppy)
  return options
}

async function mount(
  region: string,
  mountpoint: string,
  options: MountOptions,
  switches: { foreground?: boolean; verbose?: boolean },
): Promise<void> {
  const { makePlan } = await import('../plan.ts')
  const plan = makePlan(region, mountpoint, options)
  if (switches.foreground) {
    const { serve } = await import('../serve.ts')
    process.exitCode = await serve(plan)
    return
  }
  const { prepare } = await import('../stale.ts')
  await prepare(plan, (sentence) => process.stderr.write(`holdfast: ${sentence}\n`))
  const { startInBackground } = await import('../background.ts')
  const { pid, log } = await startInBackground(plan)
  if (switches.verbose) {
    print(`mounted ${plan.region} on ${plan.mountpoint} (pid ${pid}); log: ${log}`)
  }
}

async function fake(source: string, target: string, options: MountOptions): Promise<void> {
  const { checkPlan, makePlan } = await import('../plan.ts')
  checkPlan(makePlan(source, target, options))
}

/** Runs this program again inside the namespace: a thread of Node cannot move there. */
function enterNamespace(
  namespace: string,
  source: string,
  target: string,
  options: MountOptions,
): void {
  const path = /^\d+$/.test(namespace) ? `/proc/${namespace}/ns/mnt` : namespace
  const self = [process.execPath, process.argv[1] ?? '', resolve(source), resolve(target)]
  const args = [`--mount=${path}`, '--', ...self, '-o', formatOptions(options)]
  const { status, error } = spawnSync('nsenter', args, { stdio: 'inherit' })
  if (error !== undefined) {
    throw new CliError(`cannot enter the mount namespace ${path}: ${error.message}`, MOUNT_SYSTEM)
  }
  process.exitCode = status ?? MOUNT_SYSTEM
}
