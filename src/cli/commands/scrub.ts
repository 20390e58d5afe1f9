/** holdfast scrub: read all of a mounted filesystem's memory before somebody needs it. */
import { SingleBar } from 'cli-progress'
import type { Command } from 'commander'
import type { ControlClient } from '../../control/client.ts'
import type { ScrubRequest, ScrubStatus } from '../../fs/administration.ts'
import { CliError, EXIT_FAILED } from '../errors.ts'
import { print, printJson } from '../output.ts'
import { formatSize } from '../sizes.ts'
import { jsonOption, placeOf, sizeArgument, withTarget } from './context.ts'

interface ScrubOptions {
  rate?: number
  restart?: boolean
  json?: boolean
}

export function addScrub(program: Command): void {
  jsonOption(program.command('scrub'))
    .argument('<mountpoint>', 'mountpoint or region of a mounted holdfast')
    .option('--rate <size>', 'bytes a second at most (default 256M)', sizeArgument)
    .option('--restart', 'begin at the start, also when an earlier one was stopped')
    .summary('read all memory in use, to find what has gone bad')
    .description(
      'Read every block that is in use, while the filesystem is mounted and used. Memory that has\n' +
        'gone bad is found before a user meets it, with the usual consequences: see\n' +
        '`holdfast status`. Ctrl-C stops it; the next scrub goes on from there.\n' +
        'The exit code is 1 when bad memory was found.',
    )
    .action((text: string, options: ScrubOptions) =>
      withTarget(text, async (client, target) => {
        const end = await scrub(client, options)
        if (options.json) printJson(end)
        else print(describe(end, placeOf(target)))
        if (end.found > 0) process.exitCode = EXIT_FAILED
      }),
    )
}

async function scrub(client: ControlClient, options: ScrubOptions): Promise<ScrubStatus> {
  const bar = new Progress()
  const stop = () => void client.call('scrub', { action: 'stop' }).catch(() => {})
  process.on('SIGINT', stop).on('SIGTERM', stop)
  try {
    return await new Promise<ScrubStatus>((resolve, reject) => {
      const gone = () => reject(new CliError('the filesystem was unmounted before the end'))
      client.closed.then(gone, gone)
      const follow = (status: ScrubStatus) => {
        bar.at(status)
        if (status.state === 'done' || status.state === 'stopped') resolve(status)
      }
      client
        .watch((event) => {
          if (event.event === 'scrub') follow(event)
        })
        .then(() => client.call('scrub', { action: 'start', ...given(options) }))
        .catch(reject)
    })
  } finally {
    bar.end()
    process.off('SIGINT', stop).off('SIGTERM', stop)
  }
}

function given({ rate, restart }: ScrubOptions): ScrubRequest {
  return {
    ...(rate === undefined ? {} : { rate }),
    ...(restart === undefined ? {} : { restart }),
  }
}

function describe({ state, checked, total, found }: ScrubStatus, place: string): string {
  const bad = found === 0 ? 'no bad memory' : `${formatSize(found)} of bad memory`
  const more = found === 0 ? '' : `: see holdfast status ${place}`
  if (state === 'done') return `${formatSize(checked)} read, ${bad} found${more}`
  const rest = formatSize(Math.max(0, total - checked))
  return `stopped with ${rest} to go, ${bad} found${more}; holdfast scrub ${place} goes on`
}

/** On a terminal only. */
class Progress {
  readonly #bar: SingleBar | undefined

  constructor() {
    if (process.stderr.isTTY !== true) return
    this.#bar = new SingleBar({
      format: '[{bar}] {percentage} %  {size}  {bad}',
      barsize: 30,
      stream: process.stderr,
      clearOnComplete: true,
      hideCursor: true,
    })
    this.#bar.start(1, 0, { size: '', bad: '' })
  }

  at({ checked, total, found }: ScrubStatus): void {
    this.#bar?.setTotal(Math.max(total, checked, 1))
    const bad = found === 0 ? '' : `${formatSize(found)} bad`
    this.#bar?.update(checked, { size: formatSize(checked), bad })
  }

  end(): void {
    this.#bar?.stop()
  }
}
