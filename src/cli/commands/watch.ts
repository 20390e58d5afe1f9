/** holdfast watch: what happens to a mount, as it happens, one line an event. */
import type { Command } from 'commander'
import type { FilesystemEvent } from '../../fs/administration.ts'
import { plural, print } from '../output.ts'
import { formatSize } from '../sizes.ts'
import { withTarget } from './context.ts'

export function addWatch(program: Command): void {
  program
    .command('watch')
    .argument('<mountpoint>', 'mountpoint or region of a mounted holdfast')
    .option('--json', 'print one JSON object a line')
    .summary('print events as they happen')
    .description('Print failures, kills, checkpoints and the like as they happen, until unmount.')
    .action((text: string, options: { json?: boolean }) =>
      withTarget(text, async (client) => {
        await client.watch((event) => {
          print(options.json ? JSON.stringify(event) : describeEvent(event))
        })
        await client.closed
      }),
    )
}

export function describeEvent(event: FilesystemEvent): string {
  return `${event.time}  ${event.event}${detail(event)}`
}

function detail(event: FilesystemEvent): string {
  switch (event.event) {
    case 'failure': {
      const whose = event.inodes.length === 0 ? '' : ` of inode ${event.inodes.join(', ')}`
      const where = `${formatSize(event.length)} of ${event.kind}${whose} at ${event.offset}`
      return `: ${where}: ${event.action}`
    }
    case 'kill': {
      const file = event.path ?? 'an unlinked file'
      return `: ${plural(event.handles, 'handle')} of inode ${event.inode} (${file})`
    }
    case 'shutdown':
      return `: ${event.reason} (region offset ${event.offset})`
    case 'scrub':
      return ` ${event.state}: ${formatSize(event.checked)} read, ${formatSize(event.found)} bad`
    case 'checkpoint': {
      const { sequence, bytes, milliseconds } = event
      return ` ${sequence}: ${formatSize(bytes)} in ${Math.round(milliseconds)} ms`
    }
    default:
      return ''
  }
}
