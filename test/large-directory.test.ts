/** 100,000 names in one directory. */
import t from 'tap'
import { cannotMount, mountRegion, runProgram } from './support/mounts.ts'
import { tellingClient } from './support/telling.ts'

const COUNT = Number(process.env.HOLDFAST_TEST_NAMES ?? 100_000)

t.test(`${COUNT} names in one directory`, { skip: cannotMount() }, async (t) => {
  const mount = await mountRegion({ size: '256M', on: 'memory' })
  await tellingClient(t, mount, 'abuse.py', ['large-directory', String(COUNT)])
  const { blocks, handles } = await mount.status()
  t.equal(handles.open, 0)
  t.equal(blocks.poisoned, 0)
  await mount.unmount()
  const { status, stdout } = await runProgram('fsck.holdfast', ['-f', '-n', mount.region])
  t.equal(status, 0, stdout)
})
