/** The suite of the kernel transport, which every kind of region passes, over the real device. */
import { join } from 'node:path'
import { ROOT, run } from '../../tools/quickstart/programs.ts'
import { type Checks, skip } from './checks.ts'
import { DEVICE } from './device.ts'

const SUITE = 'test/fuse-kernel.test.ts'
const LIMIT_MS = 900_000
const CLIENT_LIMIT_MS = 200_000

export async function core(checks: Checks): Promise<void> {
  const { stdout, stderr, status } = await run(
    [process.execPath, '--import=tsx', join(ROOT, SUITE)],
    {
      timeoutMs: LIMIT_MS,
      // The guest is slow; the limit on the whole is ours.
      env: {
        HOLDFAST_TEST_REGION: DEVICE,
        HOLDFAST_TEST_CLIENT_MS: String(CLIENT_LIMIT_MS),
        TAP_TIMEOUT: String(LIMIT_MS / 1000),
      },
    },
  )
  const lines = stdout.split('\n')
  const results = lines.flatMap((line, at) => {
    const match = /^(not )?ok \d+ - (.*?)(?: # (?:SKIP (.*)|.*))?$/.exec(line)
    if (match === null) return []
    return [{ at, failed: match[1] !== undefined, name: match[2]!, skipped: match[3] }]
  })
  let from = 0
  for (const { at, failed, name, skipped } of results) {
    const text = lines.slice(from, at + 1)
    from = at + 1
    await checks.check(`core suite: ${name}`, () => {
      if (skipped !== undefined) skip(skipped)
      const wrong = text.filter((line) => /not ok|^ +(?:message|diff|[+-])/.test(line))
      if (failed) throw new Error(wrong.slice(0, 30).join('\n'))
    })
  }
  await checks.check('core suite: it came to its end', () => {
    if (status !== 0 && results.every(({ failed }) => !failed)) throw new Error(stderr || stdout)
    if (results.length === 0) throw new Error(`no test ran: ${stderr}`)
  })
}
