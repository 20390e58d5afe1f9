/** holdfast install: makes mount(8), mkfs(8) and fsck(8) know the type holdfast. */
import { lstatSync, readlinkSync, rmSync, symlinkSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { Command } from 'commander'
import { CliError, sentenceOf } from '../errors.ts'
import { print } from '../output.ts'

const DIRECTORY = '/sbin'

/** Where programs are looked for at boot; a node elsewhere is not found by our launchers. */
const BOOT_PATH = '/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin'

/** `holdfast` itself is what mount.fuse runs for the type fuse.holdfast. */
const PROGRAMS = {
  holdfast: 'src/cli/bin/holdfast.mjs',
  'mount.holdfast': 'src/cli/bin/mount.holdfast.mjs',
  'mkfs.holdfast': 'mkfs/mkfs.holdfast.mjs',
  'fsck.holdfast': 'tools/fsck.holdfast.mjs',
} as const

export function addInstall(program: Command): void {
  program
    .command('install')
    .option('--uninstall', 'take the links away again')
    .summary('teach mount(8) the type holdfast (root)')
    .description(
      `Link holdfast and mount., mkfs. and fsck.holdfast into ${DIRECTORY}, so that fstab lines of type\n` +
        'holdfast and `mount -t fuse.holdfast` work. Needs root.',
    )
    .action((options: { uninstall?: boolean }) => {
      if (process.geteuid?.() !== 0)
        throw new CliError('only root can do that: sudo holdfast install')
      if (options.uninstall) uninstall()
      else install()
    })
}

function install(): void {
  const wanted = Object.entries(PROGRAMS).map(([name, file]) => ({
    link: join(DIRECTORY, name),
    file: fileURLToPath(new URL(`../../../${file}`, import.meta.url)),
  }))
  // Nothing is changed unless all of it can be.
  for (const { link } of wanted) requireOurs(link)
  for (const { link, file } of wanted) {
    rmSync(link, { force: true })
    try {
      symlinkSync(file, link)
    } catch (error) {
      throw new CliError(`cannot make ${link}: ${sentenceOf(error)}`)
    }
    print(`${link} -> ${file}`)
  }
  print('A line in /etc/fstab now mounts a region at boot:')
  print('  /dev/dax0.0  /mnt/pool  holdfast  defaults,nofail  0  2')
  warnAboutNode()
}

function uninstall(): void {
  for (const name of Object.keys(PROGRAMS)) {
    const link = join(DIRECTORY, name)
    if (lstatSync(link, { throwIfNoEntry: false }) === undefined) continue
    requireOurs(link)
    rmSync(link)
    print(`${link} is gone`)
  }
}

/** A link to a launcher of this or another checkout; anything else was put there by somebody. */
function requireOurs(link: string): void {
  const stats = lstatSync(link, { throwIfNoEntry: false })
  if (stats === undefined) return
  const target = stats.isSymbolicLink() ? readlinkSync(link) : ''
  if (Object.values(PROGRAMS).some((file) => target.endsWith(`/${file}`))) return
  throw new CliError(`${link} is there and not ours: move it away first`)
}

function warnAboutNode(): void {
  const found = BOOT_PATH.split(':').some(
    (directory) => lstatSync(join(directory, 'node'), { throwIfNoEntry: false }) !== undefined,
  )
  if (found) return
  process.stderr.write(
    `holdfast: node is not on the path at boot: ln -s ${process.execPath} /usr/local/bin/node\n`,
  )
}
