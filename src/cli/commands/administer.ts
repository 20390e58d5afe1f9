/** holdfast freeze, thaw, shutdown and checkpoint: one request, one line. */
import type { Command } from 'commander'
import { print, printJson } from '../output.ts'
import { formatSize } from '../sizes.ts'
import { jsonOption, placeOf, withTarget } from './context.ts'

const TARGET = 'mountpoint or region of a mounted holdfast'

export function addFreeze(program: Command): void {
  program
    .command('freeze')
    .argument('<mountpoint>', TARGET)
    .summary('make everything durable and block changes')
    .description('Make everything durable and block every change until thaw.')
    .action((text: string) =>
      withTarget(text, async (client, target) => {
        await client.call('freeze', {})
        print(`${placeOf(target)} is frozen: holdfast thaw ${placeOf(target)}`)
      }),
    )
}

export function addThaw(program: Command): void {
  program
    .command('thaw')
    .argument('<mountpoint>', TARGET)
    .summary('end a freeze')
    .description('Let changes go on after a freeze.')
    .action((text: string) =>
      withTarget(text, async (client, target) => {
        await client.call('thaw', {})
        print(`${placeOf(target)} is thawed`)
      }),
    )
}

export function addShutdown(program: Command): void {
  program
    .command('shutdown')
    .argument('<mountpoint>', TARGET)
    .option('--reason <text>', 'what the superblock will say', 'asked for by the operator')
    .summary('stop a filesystem at once, as damage would')
    .description(
      'Shut the filesystem down: every operation is EIO from now on, and it cannot be mounted again\n' +
        'before `fsck.holdfast --repair REGION`. To take a mount away in peace use `holdfast umount`.',
    )
    .action((text: string, options: { reason: string }) =>
      withTarget(text, async (client, target) => {
        await client.call('shutdown', { reason: options.reason })
        const place = placeOf(target)
        print(`${place} is shut down: holdfast umount ${place}, then fsck.holdfast --repair`)
      }),
    )
}

export function addCheckpoint(program: Command): void {
  jsonOption(program.command('checkpoint'))
    .argument('<mountpoint>', TARGET)
    .summary('write the index into the region')
    .description('Write the index into the region now, so that the next mount replays little.')
    .action((text: string, options: { json?: boolean }) =>
      withTarget(text, async (client) => {
        const result = await client.call('checkpoint', {})
        if (options.json) printJson(result)
        else {
          const { sequence, bytes, milliseconds } = result
          print(`checkpoint ${sequence}: ${formatSize(bytes)} in ${Math.round(milliseconds)} ms`)
        }
      }),
    )
}
