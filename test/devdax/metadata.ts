/** Poison in metadata: the filesystem shuts down, is repaired, and has lost nothing. */
import assert from 'node:assert/strict'
import { runProgram } from '../../tools/quickstart/programs.ts'
import type { Checks } from './checks.ts'
import { DEVICE } from './device.ts'
import { dismount, format, freshMount, release } from './mounted.ts'
import { inject, isIntact, makeFile } from './victims.ts'

export async function metadata(checks: Checks): Promise<void> {
  let mounted = await freshMount()
  for (const structure of ['superblock', 'journal', 'checkpoint'] as const) {
    await checks.check(`poison in the ${structure}: shutdown, repair, nothing lost`, async () => {
      await release(mounted)
      mounted = await format().then(() => mounted.mountAgain())
      await makeFile(mounted, 'file')
      const result = await inject(mounted, 'hwpoison', '--metadata', structure)
      assert.deepEqual([result.kind, result.shutdown], ['metadata', true])
      const { stderr } = await mounted.client('cat file > /dev/null')
      assert.match(stderr, /Input\/output error/)
      await dismount(mounted)
      const refused = await runProgram('holdfast', ['mount', DEVICE, mounted.mountpoint])
      assert.match(refused.stderr, /fsck\.holdfast --repair/)
      const repair = await runProgram('fsck.holdfast', ['--repair', DEVICE])
      assert.equal(repair.status, 1, repair.stdout + repair.stderr)
      mounted = await mounted.mountAgain()
      await isIntact(mounted, 'file')
      await dismount(mounted)
    })
  }
}
