/** What runs in the guest: the suites named as arguments, or all of them. */
import { Checks } from './checks.ts'
import { claim } from './claim.ts'
import { core } from './core.ts'
import { align } from './device.ts'
import { filesystem } from './filesystem.ts'
import { machineChecks } from './machine-checks.ts'
import { modes } from './modes.ts'
import { poison } from './poison.ts'

/** In this order: poison stays until the guest ends, and the last suite takes the device away. */
const SUITES: Readonly<Record<string, (checks: Checks) => Promise<void>>> = {
  filesystem,
  core,
  claim,
  poison,
  'machine-checks': machineChecks,
  modes,
}

const wanted = process.argv.slice(2)
const unknown = wanted.filter((name) => !Object.hasOwn(SUITES, name))
if (unknown.length > 0) {
  process.stdout.write(`FAILED no suite ${unknown.join(', ')}: ${Object.keys(SUITES).join(', ')}\n`)
  process.exit(1)
}
const checks = new Checks(align() === 4096 ? '4 KiB' : '2 MiB')
for (const name of wanted.length > 0 ? wanted : Object.keys(SUITES)) await SUITES[name]!(checks)
process.exit(checks.failed === 0 ? 0 : 1)
