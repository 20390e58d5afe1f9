/**
 * `node tools/mce-tour.mjs`: boots a kernel with real device-dax under QEMU, lets its memory fail in
 * every way that a processor has, and shows what becomes of the files. The guest's part is
 * test/devdax/tour.ts.
 */
import { parseArgs } from 'node:util'
import { table } from '../bench/report.ts'
import { alone, cacheDirectory } from '../devdax/cache.ts'
import { GuestError, NoGuestError } from '../devdax/errors.ts'
import { runGuest } from '../devdax/guest.ts'
import { type Kernel, prepareKernel } from '../devdax/kernel.ts'
import { type DevdaxOptions, readOptions } from '../devdax/options.ts'
import { guestScript } from '../devdax/script.ts'
import { parseEvent, type Row, type TourEvent } from './events.ts'

const HELP = `usage: node tools/mce-tour.mjs [OPTION…]
A tour of failing memory on real device-dax, with genuine machine checks. It boots a Debian kernel
under QEMU (a download of about 100 MB at first; nothing is installed from it, nothing here is
touched), makes a filesystem on its /dev/dax0.0, lets programs hold files open, and then:
  1. the memory's scrubber finds a bad page that nobody has touched (machine check, action optional)
  2. another page is poisoned through the kernel's own injection (hwpoison-inject)
  3. holdfast itself meets a bad page while it serves a read (machine check, action required)
  4. a page of the journal goes bad: shutdown, repair, and every file is there again
After each it shows which file was hit, who has lost a handle, what others noticed, and how long it
took from the kernel's first word to holdfast's report (in an emulated processor: an upper bound).
  --kernel SUITE    Debian suite of the kernel: bookworm, trixie, sid, trixie-backports (default)
  --align SIZE      alignment of the device, 2M (default) or 4K: what one page table entry maps
  --limit SECONDS   give up after this time (default 780)
  --keep            leave console, kernel log and memory of the guest, and say where
  --json            the outcome as JSON on standard output
Exit code: 0 when everything was as it should be, 1 when not or when no guest can be had,
2 for wrong usage. To use a real machine instead: holdfast inject --method hwpoison.
`

/** Runs in the guest. */
const GUEST_PROGRAM = 'test/devdax/tour.ts'

interface Outcome {
  readonly kernel: string
  readonly align: number
  readonly rows: Row[]
  readonly checks: { text: string; holds: boolean; found: string }[]
  ended: boolean
}

export async function main(args: readonly string[]): Promise<number> {
  const options = read(args)
  if (typeof options === 'number') return options
  process.on('SIGINT', () => process.exit(130)).on('SIGTERM', () => process.exit(143))
  const say = (line: string) => process.stderr.write(`mce-tour: ${line}\n`)
  try {
    const cache = cacheDirectory()
    const [suite] = options.kernels as [string]
    const kernel = await alone(cache, () => prepareKernel(suite, cache, say))
    return await tour(kernel, options)
  } catch (error) {
    if (!(error instanceof NoGuestError || error instanceof GuestError)) throw error
    say(error.message)
    return 1
  }
}

/** As `npm run test:devdax`, but for one kernel and one alignment. */
function read(args: readonly string[]): DevdaxOptions | number {
  try {
    const { values } = parseArgs({
      args: [...args],
      options: {
        help: { type: 'boolean', short: 'h', default: false },
        kernel: { type: 'string', default: 'trixie-backports' },
        align: { type: 'string', default: '2M' },
        limit: { type: 'string', default: '780' },
        keep: { type: 'boolean', default: false },
        json: { type: 'boolean', default: false },
      },
    })
    if (values.help) {
      process.stdout.write(HELP)
      return 0
    }
    const { kernel, align, limit } = values
    if (`${kernel}${align}`.includes(',')) throw new RangeError('one kernel, one alignment')
    const flags = (['keep', 'json'] as const).filter((name) => values[name])
    const words = ['--kernel', kernel, '--align', align, '--limit', limit]
    return readOptions([...words, ...flags.map((name) => `--${name}`)])
  } catch (error) {
    process.stderr.write(`mce-tour: ${(error as Error).message} (--help explains)\n`)
    return 2
  }
}

async function tour(kernel: Kernel, options: DevdaxOptions): Promise<number> {
  const { cpus, limitSeconds, keep, json } = options
  const [align] = options.alignments as [number]
  const outcome: Outcome = { kernel: kernel.release, align, rows: [], checks: [], ended: false }
  const print = (line: string) => (json ? process.stderr : process.stdout).write(`${line}\n`)
  print(`holdfast: machine checks on real device-dax, Linux ${kernel.release} under QEMU`)
  let step = 0
  const onLine = (line: string) => {
    const event = parseEvent(line)
    if (event === undefined) process.stderr.write(`   ${line}\n`)
    else if (event.type === 'step') print(`\n${++step}. ${event.text}`)
    else show(event, outcome, print)
  }
  const script = guestScript(GUEST_PROGRAM, [])
  const status = await runGuest({ kernel, align, cpus, limitSeconds, keep, script, onLine })
  const held = outcome.checks.filter(({ holds }) => holds).length
  print(`\n${resultTable(outcome.rows)}`)
  print(`${held} of ${outcome.checks.length} things were as they should be`)
  if (json) process.stdout.write(`${JSON.stringify(outcome, null, 2)}\n`)
  if (!outcome.ended) process.stderr.write('mce-tour: the tour did not come to its end\n')
  return status === 0 && outcome.ended && held === outcome.checks.length ? 0 : 1
}

function show(event: TourEvent, outcome: Outcome, print: (line: string) => void): void {
  if (event.type === 'note') print(`   ${event.text}`)
  if (event.type === 'row') outcome.rows.push(event.row)
  if (event.type === 'end') outcome.ended = true
  if (event.type !== 'check') return
  const { text, holds, found } = event
  outcome.checks.push({ text, holds, found })
  print(holds ? `   ok  ${text}` : `   FAILED  ${text}: ${found}`)
}

function resultTable(rows: readonly Row[]): string {
  const head = ['failure', 'memory', 'of', 'consequence', 'who had it open', 'others', 'ms']
  return table(
    head,
    rows.map((row) => [
      row.failure,
      `${row.length / 1024} KiB at ${(row.offset / 2 ** 20).toFixed(2)} MiB`,
      row.kind,
      row.action === 'handles killed' ? `${row.handlesKilled} killed` : row.action,
      row.victim,
      row.bystander,
      row.milliseconds === null ? '–' : row.milliseconds.toFixed(0),
    ]),
  )
}
