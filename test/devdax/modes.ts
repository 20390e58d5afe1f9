/** The device in other hands: refused with a sentence that says what to run. The last suite. */
import assert from 'node:assert/strict'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { openDevice } from '../../src/dax/device.ts'
import { DaxError } from '../../src/dax/errors.ts'
import { run, runProgram, sleep } from '../../tools/quickstart/programs.ts'
import { type MountedRegion, mountRegion, scratch } from '../support/mounts.ts'
import { type Checks, skip } from './checks.ts'
import {
  badblocks,
  bind,
  DEVICE,
  deviceNumber,
  driver,
  drivers,
  NAME,
  removeDevice,
  unbind,
} from './device.ts'
import { checkClean, dismount, freshMount } from './mounted.ts'
import { holding, isDead } from './victims.ts'

const UNBIND = `echo ${NAME} > /sys/bus/dax/drivers/device_dax/unbind`
const RECONFIGURE = `daxctl reconfigure-device --mode=devdax ${NAME}`

export async function modes(checks: Checks): Promise<void> {
  let mounted: MountedRegion
  // After the machine checks a superblock is bad, which mkfs refuses; what is there will do.
  const bad = badblocks().some(({ offset }) => offset === 0)
  const second = join(scratch(), 'second-node')
  await checks.check('unbound while mounted: handles die, shutdown, umount works', async () => {
    mounted = bad ? await mountRegion({ region: DEVICE }) : await freshMount()
    await mounted.client('head -c 1M /dev/zero > file; echo kept > other')
    const holder = await holding(mounted, 'file')
    const { status, stderr } = await run(['sh', '-c', UNBIND], { timeoutMs: 20_000 })
    assert.equal(status, 0, stderr)
    for (let tries = 0; (await mounted.status()).state !== 'shutdown'; tries++) {
      assert.ok(tries < 10, 'the daemon does not see that the device is gone')
      await sleep(500)
    }
    assert.match((await mounted.status()).shutdown?.reason ?? '', /removed/)
    await isDead(holder)
    await dismount(mounted)
  })
  await checks.check('without a driver: ENODEV, and how to enable it', async () => {
    unbind()
    await refused(DEVICE, 'ENODEV', `daxctl enable-device ${NAME}`)
  })
  await checks.check('bound to fsdev_dax: EOPNOTSUPP, and how to change that', async () => {
    if (!drivers().includes('fsdev_dax')) skip('this kernel has no fsdev_dax (before 7.2)')
    bind('fsdev_dax')
    assert.equal(driver(), 'fsdev_dax')
    await refused(DEVICE, 'EOPNOTSUPP', RECONFIGURE)
    unbind()
  })
  await checks.check('back in devdax mode it is mounted again, with its data', async () => {
    bind('device_dax')
    mounted = await mounted.mountAgain()
    const { stdout } = await mounted.client('cat other')
    assert.equal(stdout, 'kept\n')
    await mounted.unmount()
    if (!bad) await checkClean()
  })
  await checks.check('bound to kmem (system-ram): EOPNOTSUPP, and how to change that', async () => {
    const inserted = await run(['/sbin/insmod', '/run/modules/kmem.ko'])
    assert.equal(inserted.status, 0, inserted.stderr)
    bind('kmem')
    assert.equal(driver(), 'kmem')
    await refused(DEVICE, 'EOPNOTSUPP', RECONFIGURE)
    unbind()
  })
  await checks.check('gone: ENODEV by its own name and through another node', async () => {
    const [major, minor] = deviceNumber().split(':') as [string, string]
    const { status, stderr } = await run(['mknod', second, 'c', major, minor])
    assert.equal(status, 0, stderr)
    removeDevice()
    assert.equal(existsSync(DEVICE), false)
    await refused(DEVICE, 'ENODEV', DEVICE)
    await refused(second, 'ENODEV', second)
  })
}

/** By the library with its errno, and by the programs with the same sentence. */
async function refused(path: string, code: string, words: string): Promise<void> {
  assert.throws(
    () => openDevice(path),
    (error) => error instanceof DaxError && error.code === code && error.message.includes(words),
  )
  for (const [program, ...args] of [
    ['mkfs.holdfast', '--force', path],
    ['fsck.holdfast', '-n', path],
    ['holdfast', 'mount', path, scratch()],
  ] as const) {
    const { status, stderr } = await runProgram(program, args)
    assert.notEqual(status, 0, `${program} of ${path} went through`)
    assert.ok(stderr.includes(words), `${program}: ${stderr}`)
  }
}
