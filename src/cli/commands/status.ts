/** holdfast status: one mount or region, or every mount of this user. */
import type { Command } from 'commander'
import type { Target } from '../../control/target.ts'
import type { Status } from '../../fs/administration.ts'
import { sentenceOf } from '../errors.ts'
import { offline } from '../offline.ts'
import { paint, plural, print, printFields, printJson, printTable } from '../output.ts'
import { formatSize } from '../sizes.ts'
import { jsonOption, placeOf, withDaemon } from './context.ts'

export function addStatus(program: Command): void {
  jsonOption(program.command('status'))
    .argument('[target]', 'mountpoint or region, mounted or not; without it, all your mounts')
    .summary('show the state of a mount or region')
    .description('Show the state of a mount or a region; without TARGET, of every mount of yours.')
    .action(async (target: string | undefined, options: { json?: boolean }) => {
      if (target === undefined) await showAll(options.json ?? false)
      else await showOne(target, options.json ?? false)
    })
}

async function showOne(text: string, json: boolean): Promise<void> {
  const { resolveTarget } = await import('../../control/target.ts')
  const target = resolveTarget(text)
  const mounted = target.holder?.purpose === 'mount'
  if (!mounted && target.mount !== undefined) {
    process.stderr.write(
      `holdfast: the daemon of ${target.mount.mountpoint} is gone; this is its region\n`,
    )
  }
  const status = inOrder(mounted ? await ask(target) : await offlineStatus(target))
  if (json) printJson(status)
  else printStatus(status)
}

/** What it is first, then how it is. */
function inOrder(status: Status): Status {
  const { uuid, label, region, regionSize, blockSize, state, mountpoint, ...rest } = status
  return { uuid, label, region, regionSize, blockSize, state, mountpoint, ...rest }
}

function ask(target: Target): Promise<Status> {
  return withDaemon(target, (client) => client.call('status', {}, 10_000))
}

async function offlineStatus({ region, holder }: Target): Promise<Status> {
  const status = await offline(region, (inspection) => inspection.status())
  const { pid, host, since } = holder ?? {}
  const known = pid !== undefined && host !== undefined && since !== undefined
  return { ...status, region, holder: known ? { pid, host, since } : null }
}

async function showAll(json: boolean): Promise<void> {
  const { ownTargets } = await import('../../control/target.ts')
  const found: Status[] = []
  for (const target of ownTargets()) {
    try {
      found.push(await ask(target))
    } catch (error) {
      // One daemon that is being unmounted must not hide the others.
      process.stderr.write(`holdfast: ${placeOf(target)}: ${sentenceOf(error)}\n`)
    }
  }
  if (json) printJson(found.map(inOrder))
  else await printList(found)
}

async function printList(found: readonly Status[]): Promise<void> {
  const rows = found.map((status) => [
    status.mountpoint ?? '-',
    status.region,
    stateOf(status),
    status.transport ?? '-',
    formatSize(status.blocks.total * status.blockSize),
    formatSize(status.blocks.used * status.blockSize),
    formatSize(status.blocks.free * status.blockSize),
    formatSize(status.blocks.poisoned * status.blockSize),
    `${status.holder?.pid ?? '-'}`,
  ])
  const columns = [
    { head: 'MOUNTPOINT' },
    { head: 'REGION' },
    { head: 'STATE' },
    { head: 'TRANSPORT' },
    { head: 'SIZE', right: true },
    { head: 'USED', right: true },
    { head: 'FREE', right: true },
    { head: 'POISONED', right: true },
    { head: 'PID', right: true },
  ]
  await printTable(columns, rows, 'nothing is mounted: holdfast mount REGION MOUNTPOINT')
}

function stateOf(status: Status): string {
  const words: string[] = [status.state]
  if (status.readOnly) words.push('read-only')
  if (status.frozen) words.push('frozen')
  return words.join(', ')
}

/** What ends a shutdown. A repair needs the region for itself. */
function remedyOf({ mountpoint, region }: Status): string {
  const first = mountpoint === null ? '' : `holdfast umount ${mountpoint}, then `
  return `run ${first}fsck.holdfast --repair ${region}`
}

function printStatus(status: Status): void {
  const { blocks, blockSize, handles, journal, holder } = status
  const size = (count: number) => formatSize(count * blockSize)
  const colour = status.state === 'shutdown' ? 'red' : 'green'
  print(`${paint('bold', status.mountpoint ?? status.region)}: ${paint(colour, stateOf(status))}`)
  const fields: [string, string][] = [
    ['region', `${status.region} (${formatSize(status.regionSize)})`],
    ['filesystem', `${status.label === '' ? 'no label' : `'${status.label}'`}, ${status.uuid}`],
    ['space', `${size(blocks.used)} used, ${size(blocks.free)} free of ${size(blocks.total)}`],
    ['poisoned', blocks.poisoned === 0 ? 'nothing' : paint('red', size(blocks.poisoned))],
    ['inodes', `${status.inodes}`],
    [
      'journal',
      `${formatSize(journal.used)} of ${formatSize(journal.size)} used, sequence ${journal.sequence}`,
    ],
  ]
  if (holder !== null) {
    fields.splice(2, 0, ['holder', `pid ${holder.pid} on ${holder.host} since ${holder.since}`])
  }
  if (status.mountpoint !== null) {
    fields.push(['transport', status.transport ?? '-'])
    fields.push(['handles', `${handles.open} open, ${handles.killed} killed`])
  }
  if (status.shutdown !== undefined) {
    const { reason, offset } = status.shutdown
    fields.push(['shutdown', paint('red', `${reason} (region offset ${offset})`)])
    fields.push(['remedy', remedyOf(status)])
  }
  printFields(fields)
  for (const failure of status.failures) {
    const where = `${formatSize(failure.length)} of ${failure.kind} at ${failure.offset}`
    const whose = failure.inodes.length === 0 ? '' : ` of inode ${failure.inodes.join(', ')}`
    const killed =
      failure.handlesKilled === 0 ? '' : ` (${plural(failure.handlesKilled, 'handle')})`
    print(`  ${failure.time}  ${where}${whose}: ${failure.action}${killed}`)
  }
}
