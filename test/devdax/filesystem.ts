/** A filesystem on real device-dax: made, used, crashed, mounted again, checked. */
import assert from 'node:assert/strict'
import type { MountedRegion } from '../support/mounts.ts'
import type { Checks } from './checks.ts'
import { DEVICE, size } from './device.ts'
import { checkClean, format, freshMount } from './mounted.ts'
import { OPERATIONS, verifyScript, writeScript } from './workload.ts'

export async function filesystem(checks: Checks): Promise<void> {
  let mounted: MountedRegion
  const client = async (code: string) => {
    const { status, stdout, stderr } = await mounted.client(['python3', '-c', code], {
      timeoutMs: 60_000,
    })
    assert.equal(status, 0, `${stdout}${stderr}\n${mounted.logText()}`)
    return stdout
  }
  await checks.check('mkfs and fsck', async () => {
    await format()
    await checkClean()
  })
  await checks.check('mount through the kernel transport', async () => {
    mounted = await freshMount()
    const status = await mounted.status()
    assert.equal(status.regionSize, size())
    assert.equal(status.region, DEVICE)
    assert.equal(status.transport, 'kernel')
  })
  for (const [name, code] of Object.entries(OPERATIONS)) {
    await checks.check(name, async () => {
      await client(code)
    })
  }
  await checks.check('what was written is there after kill -9 of the daemon', async () => {
    await client(writeScript)
    await mounted.kill()
    mounted = await mounted.mountAgain()
    await client(verifyScript)
  })
  await checks.check('unmount, fsck clean, mount, everything still there', async () => {
    await mounted.unmount()
    await checkClean()
    mounted = await mounted.mountAgain()
    await client(verifyScript)
    await mounted.unmount()
  })
  await checks.check('kill -9 without unmount: fsck of the dirty region is clean', async () => {
    mounted = await mounted.mountAgain()
    await client(writeScript)
    await mounted.kill()
    await checkClean()
    mounted = await mounted.mountAgain()
    await client(verifyScript)
    await mounted.unmount()
  })
}
