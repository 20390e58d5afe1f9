/** The claim on a character device: by its number, whatever node leads to it. */
import assert from 'node:assert/strict'
import { rmSync } from 'node:fs'
import { join } from 'node:path'
import { whoHolds } from '../../src/dax/claim.ts'
import { type Program, run, runProgram } from '../../tools/quickstart/programs.ts'
import { type MountedRegion, scratch } from '../support/mounts.ts'
import type { Checks } from './checks.ts'
import { DEVICE, deviceNumber } from './device.ts'
import { freshMount } from './mounted.ts'

export async function claim(checks: Checks): Promise<void> {
  const directory = scratch()
  const second = join(directory, 'second-node')
  let mounted: MountedRegion
  const refused = async (program: Program, ...args: string[]) => {
    const { status, stderr } = await runProgram(program, args)
    assert.notEqual(status, 0, `${program} ${args.join(' ')} went through`)
    assert.match(stderr, new RegExp(`in use: .*pid ${mounted.pid}`))
  }
  await checks.check('while it is mounted, mkfs and fsck of the device are refused', async () => {
    mounted = await freshMount()
    await refused('mkfs.holdfast', '--force', DEVICE)
    await refused('fsck.holdfast', '-y', DEVICE)
  })
  await checks.check('a second node for the device number does not get round it', async () => {
    const [major, minor] = deviceNumber().split(':') as [string, string]
    const { status, stderr } = await run(['mknod', second, 'c', major, minor])
    assert.equal(status, 0, stderr)
    await refused('mkfs.holdfast', '--force', second)
    await refused('fsck.holdfast', '-y', second)
    await refused('holdfast', 'mount', second, directory)
    assert.equal(whoHolds(second)?.pid, mounted.pid)
  })
  await checks.check('kill -9 frees the claim, through either node', async () => {
    await mounted.kill()
    assert.equal(whoHolds(second), undefined)
    mounted = await mounted.mountAgain({})
    await mounted.unmount()
    assert.equal(whoHolds(DEVICE), undefined)
    rmSync(second)
  })
}
