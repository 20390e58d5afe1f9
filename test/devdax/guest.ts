/** What runs in the guest: the suites named as arguments, or all of them. */
import { runProgram } from '../../tools/quickstart/programs.ts'
import { badBlocks } from './bad-blocks.ts'
import { bus } from './bus.ts'
import { Checks } from './checks.ts'
import { claim } from './claim.ts'
import { consumed } from './consumed.ts'
import { core } from './core.ts'
import { align, DEVICE } from './device.ts'
import { filesystem } from './filesystem.ts'
import { fsdax } from './fsdax.ts'
import { machineChecks } from './machine-checks.ts'
import { matrix } from './matrix.ts'
import { metadata } from './metadata.ts'
import { modes } from './modes.ts'
import { poison } from './poison.ts'
import { touch } from './touch.ts'
import { stopHolders } from './victims.ts'

/** In this order: poison stays until the guest ends, and the last suite takes the device away. */
const SUITES: Readonly<Record<string, (checks: Checks) => Promise<void>>> = {
  filesystem,
  core,
  claim,
  poison,
  touch,
  metadata,
  'machine-checks': machineChecks,
  consumed,
  bus,
  fsdax,
  matrix,
  'bad-blocks': badBlocks,
  modes,
}
/** Where a program takes longer to start, checks would fail for that alone. */
const SLOW_MS = 10_000

const optional = process.argv[2] === '--optional'
const wanted = process.argv.slice(optional ? 3 : 2)
const unknown = wanted.filter((name) => !Object.hasOwn(SUITES, name))
if (unknown.length > 0) {
  process.stdout.write(`FAILED no suite ${unknown.join(', ')}: ${Object.keys(SUITES).join(', ')}\n`)
  process.exit(1)
}
if (optional) {
  // The first start reads everything through the share.
  await runProgram('holdfast', ['--version'])
  const { milliseconds } = await runProgram('holdfast', ['--version'])
  if (milliseconds > SLOW_MS) {
    const seconds = Math.round(milliseconds / 1000)
    process.stdout.write(
      `skipped everything: a program takes ${seconds} s to start in this guest\n`,
    )
    process.exit(0)
  }
}
const checks = new Checks(align() === 4096 ? '4 KiB' : '2 MiB')
for (const name of wanted.length > 0 ? wanted : Object.keys(SUITES)) {
  // A suite that could not even begin is a failure, not the end of the others.
  const ran = await SUITES[name]!(checks).catch((error: Error) => error)
  if (ran instanceof Error) await checks.check(`suite ${name}`, () => Promise.reject(ran))
  await stopHolders()
  await runProgram('holdfast', ['umount', '-l', DEVICE])
}
process.exit(checks.failed === 0 ? 0 : 1)
