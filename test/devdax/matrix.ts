/** The failure matrix on the device, every page failed by the kernel itself: a slice of its cells. */
import assert from 'node:assert/strict'
import { join } from 'node:path'
import type { Played } from '../../tools/failure-matrix/main.ts'
import { ROOT, run } from '../../tools/quickstart/programs.ts'
import type { Checks } from './checks.ts'
import { DEVICE } from './device.ts'

const LIMIT_MS = 1_200_000

export async function matrix(checks: Checks): Promise<void> {
  const tool = [process.execPath, join(ROOT, 'tools/failure-matrix.mjs')]
  const options = ['--quick', '--method', 'hwpoison', '--region', DEVICE, '--force', '--json']
  const { stdout, stderr } = await run([...tool, ...options], { timeoutMs: LIMIT_MS })
  assert.ok(stdout.startsWith('['), `the matrix was not played: ${stderr}`)
  for (const { cell, differences } of JSON.parse(stdout) as Played[]) {
    const { block, operation, method } = cell
    await checks.check(`${method}: ${block}, ${operation}`, () => {
      assert.deepEqual(differences, [])
    })
  }
}
