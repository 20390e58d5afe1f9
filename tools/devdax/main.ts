/** `npm run test:devdax`: the suites of test/devdax on real device-dax, in guests. */
import { alone, cacheDirectory } from './cache.ts'
import { GuestError, LimitError, NoGuestError } from './errors.ts'
import { runGuest } from './guest.ts'
import { type Kernel, prepareKernel } from './kernel.ts'
import { type DevdaxOptions, HELP, readOptions } from './options.ts'
import { type Boot, count, parseCheck, summary } from './results.ts'
import { guestScript } from './script.ts'

/** Runs in the guest. */
const GUEST_PROGRAM = 'test/devdax/guest.ts'
const EXIT_FAILED = 1
const EXIT_USAGE = 2

export async function main(args: readonly string[]): Promise<number> {
  let options: DevdaxOptions
  try {
    options = readOptions(args)
  } catch (error) {
    process.stderr.write(`devdax: ${(error as Error).message}\n`)
    return EXIT_USAGE
  }
  if (options.help) {
    process.stdout.write(HELP)
    return 0
  }
  process.on('SIGINT', () => process.exit(130)).on('SIGTERM', () => process.exit(143))
  try {
    return await runAll(options)
  } catch (error) {
    if (!(error instanceof NoGuestError)) throw error
    const outcome = options.optional ? 'skipped' : 'FAILED'
    process.stdout.write(`${outcome} everything: no guest can be had here: ${error.message}\n`)
    process.stdout.write(`0 passed, ${options.optional ? '0 failed, 1 skipped' : '1 failed'}\n`)
    return options.optional ? 0 : EXIT_FAILED
  }
}

async function runAll(options: DevdaxOptions): Promise<number> {
  const say = (line: string) => process.stderr.write(`devdax: ${line}\n`)
  const print = (line: string) =>
    (options.json ? process.stderr : process.stdout).write(`${line}\n`)
  const cache = cacheDirectory()
  const kernels = await alone(cache, () =>
    options.kernels.map((suite) => prepareKernel(suite, cache, say)),
  )
  const boots: Boot[] = []
  for (const kernel of kernels) {
    for (const align of options.alignments) {
      boots.push(await bootOnce(kernel, align, options, print))
    }
  }
  if (options.json) process.stdout.write(`${JSON.stringify(boots, null, 2)}\n`)
  print(summary(boots))
  const something = options.optional || count(boots, 'ok') > 0
  return something && count(boots, 'FAILED') === 0 ? 0 : EXIT_FAILED
}

async function bootOnce(
  kernel: Kernel,
  align: number,
  options: DevdaxOptions,
  print: (line: string) => void,
): Promise<Boot> {
  const { suite, release } = kernel
  const boot: Boot = { suite, release, align, checks: [], seconds: 0 }
  const started = performance.now()
  print(`# Linux ${release} (${suite}), device-dax aligned to ${align} bytes`)
  const onLine = (line: string) => {
    const check = parseCheck(line)
    if (check !== undefined) boot.checks.push(check)
    print(check === undefined ? `      ${line}` : line)
  }
  try {
    const { cpus, limitSeconds, keep } = options
    const words = options.optional ? ['--optional', ...options.suites] : options.suites
    const script = guestScript(GUEST_PROGRAM, words)
    const status = await runGuest({ kernel, align, cpus, limitSeconds, keep, script, onLine })
    // A guest program that dies has told of no failure itself.
    const told = boot.checks.some(({ outcome }) => outcome === 'FAILED')
    if (status !== 0 && !told) onLine(`FAILED the guest program ended with status ${status}`)
  } catch (error) {
    if (!(error instanceof GuestError)) throw error
    const verdict = options.optional && isNoVerdict(error, boot) ? 'skipped' : 'FAILED'
    onLine(`${verdict} the rest: ${error.message.split('\n')[0]}`)
    for (const line of error.message.split('\n').slice(1)) print(`      ${line}`)
  }
  boot.seconds = Math.round((performance.now() - started) / 1000)
  print(`# ${boot.seconds} s`)
  return boot
}

/** A machine that is too slow, or a guest that did not come up, says nothing of the filesystem. */
function isNoVerdict(error: GuestError, { checks }: Boot): boolean {
  return error instanceof LimitError || checks.length === 0
}
