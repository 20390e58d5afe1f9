/** The command line of `npm run test:devdax`. */
import { parseArgs } from 'node:util'

export const HELP = `usage: npm run test:devdax -- [OPTION…] [SUITE…]
Boots Debian kernels under QEMU with real device-dax and runs the suites of
test/devdax in them (default: all): filesystem, core, claim, poison, touch,
metadata, machine-checks, consumed, bus, fsdax, matrix, bad-blocks, modes.
  --kernel SUITE,…  Debian suites to take kernels from: bookworm, trixie, sid,
                    trixie-backports (default bookworm,trixie-backports)
  --align SIZE,…    alignments of the device: 2M, 4K (default both)
  --quick           the newest kernel at 2 MiB only
  --cpus N          of the guest (default 1; more cannot have machine checks)
  --limit SECONDS   time for one boot (default 2400; 780 with --quick)
  --optional        where no guest can be had, or it does not come to its end in
                    time: say so and exit 0; a check that fails is a failure
  --keep            leave console, kernel log and memory of the guests
  --json            the results as JSON on standard output
A guided tour of failing memory in such a guest: node tools/mce-tour.mjs
`

const SUITES = ['bookworm', 'trixie', 'trixie-backports', 'sid']
const ALIGNMENTS = new Map([
  ['2M', 2 << 20],
  ['4K', 4096],
])

export interface DevdaxOptions {
  readonly help: boolean
  readonly kernels: readonly string[]
  /** Bytes. */
  readonly alignments: readonly number[]
  readonly cpus: number
  readonly limitSeconds: number
  readonly optional: boolean
  readonly keep: boolean
  readonly json: boolean
  /** Suites to run; empty for all. */
  readonly suites: readonly string[]
}

/** Throws RangeError with a sentence for what cannot be. */
export function readOptions(args: readonly string[]): DevdaxOptions {
  const { values, positionals } = parseArgs({
    args: [...args],
    allowPositionals: true,
    options: {
      help: { type: 'boolean', short: 'h', default: false },
      kernel: { type: 'string' },
      align: { type: 'string' },
      quick: { type: 'boolean', default: false },
      cpus: { type: 'string', default: '1' },
      limit: { type: 'string' },
      optional: { type: 'boolean', default: false },
      keep: { type: 'boolean', default: false },
      json: { type: 'boolean', default: false },
    },
  })
  const kernels = values.quick ? 'trixie-backports' : 'bookworm,trixie-backports'
  return {
    help: values.help,
    kernels: list(values.kernel ?? kernels).map((name) => oneOf('--kernel', name, SUITES)),
    alignments: list(values.align ?? (values.quick ? '2M' : '2M,4K')).map(alignment),
    cpus: positive('--cpus', values.cpus),
    limitSeconds: positive('--limit', values.limit ?? (values.quick ? '780' : '2400')),
    optional: values.optional,
    keep: values.keep,
    json: values.json,
    suites: positionals,
  }
}

function list(text: string): string[] {
  return text.split(',').filter((part) => part !== '')
}

function alignment(name: string): number {
  return ALIGNMENTS.get(oneOf('--align', name, [...ALIGNMENTS.keys()]))!
}

function oneOf(option: string, value: string, allowed: readonly string[]): string {
  if (allowed.includes(value)) return value
  throw new RangeError(`${option} takes ${allowed.join(', ')}, not '${value}'`)
}

function positive(option: string, text: string): number {
  const value = Number(text)
  if (Number.isSafeInteger(value) && value > 0) return value
  throw new RangeError(`${option} takes a number from 1 up, not '${text}'`)
}
