/** A dynamic region of the kernel's dax bus: split, mounted, mapped together, taken away. */
import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import type { RegionInfo } from '../../src/bus/dax-region.ts'
import { loadLabel } from '../../src/bus/label.ts'
import { whoHolds } from '../../src/dax/claim.ts'
import { openDevice } from '../../src/dax/device.ts'
import { runJson, runProgram, sleep } from '../../tools/quickstart/programs.ts'
import { type MountedRegion, mountRegion } from '../support/mounts.ts'
import { type Checks, skip } from './checks.ts'
import { badblocks, DEVICE, machineCheck } from './device.ts'
import { dismount } from './mounted.ts'
import {
  holding,
  inject,
  isAlive,
  isDead,
  isIntact,
  MIB,
  makeFile,
  placeOf,
  stopHolders,
  told,
} from './victims.ts'

const PAGE = 4096
const DRIVER = '/sys/bus/dax/drivers/device_dax'

export async function bus(checks: Checks): Promise<void> {
  const regions = await runJson<RegionInfo[]>('holdfast', ['region', 'list'])
  const found = regions.find((region) => !region.static)
  if (found === undefined) {
    await checks.check('a dynamic region', () => skip('this kernel has not set memory aside'))
    return
  }
  const [first, second] = [`${found.region}.0`, `${found.region}.1`]
  await instances(checks, found.region, [first, second])
  await mapped(checks, [`/dev/${first}`, `/dev/${second}`])
  await overNvdimm(checks, `/dev/${first}`)
  await checks.check('disable, resize to 0, delete: the region is as it was', async () => {
    for (const name of [first, second]) {
      await region('disable', name)
      await region('resize', name, '0')
    }
    await region('delete-device', second)
    const { devices, available_size, size } = await show(found.region)
    assert.deepEqual([devices.length, available_size], [1, size])
  })
}

/** Instances: made by the verbs of `holdfast region`, through sysfs, in the kernel. */
async function instances(checks: Checks, name: string, pair: [string, string]): Promise<void> {
  const [first, second] = pair
  const mounts: MountedRegion[] = []
  await checks.check('region: create-device, resize, enable drive the kernel', async () => {
    assert.equal((await region('create-device', name)).trim(), second)
    await refused(/ENXIO/, 'enable', second)
    await refused(/EINVAL/, 'resize', second, '3M')
    await refused(/ENOSPC/, 'resize', second, '64G')
    await region('resize', first, '64M')
    await region('resize', second, '64M')
    // Behind the other one, so it has two ranges.
    await region('resize', first, '96M')
    for (const device of pair) await region('enable', device)
    const { devices } = await show(name)
    assert.deepEqual(
      devices.map(({ name, size, enabled, mappings }) => [name, size, enabled, mappings.length]),
      [
        [first, 96 * MIB, true, 2],
        [second, 64 * MIB, true, 1],
      ],
    )
    await refused(/EBUSY/, 'resize', second, '32M')
    await refused(/EBUSY/, 'delete-device', second)
    await refused(/ENXIO/, 'delete-device', `${name}.9`)
  })
  await checks.check('two instances, two filesystems, two claims', async () => {
    for (const device of pair) mounts.push(await formatAndMount(`/dev/${device}`))
    for (const [at, mounted] of mounts.entries()) {
      assert.equal((await mounted.status()).regionSize, [96, 64][at]! * MIB)
      await makeFile(mounted, `file${at}`)
      await isIntact(mounted, `file${at}`)
      await refused(/in use: mounted on .*EBUSY/, 'disable', pair[at]!)
    }
  })
  await checks.check('one is unbound while mounted: the other one lives on', async () => {
    const holders = [await holding(mounts[0]!, 'file0'), await holding(mounts[1]!, 'file1')]
    await unbound(mounts[1]!, second)
    await isDead(holders[1]!)
    await isAlive(holders[0]!)
    await isIntact(mounts[0]!, 'file0')
    for (const mounted of mounts) await dismount(mounted)
    await region('enable', second)
    const again = await mounts[1]!.mountAgain()
    await isIntact(again, 'file1')
    await dismount(again)
  })
}

/** One filesystem over both instances. */
async function mapped(checks: Checks, targets: readonly string[]): Promise<void> {
  let mounted: MountedRegion
  await checks.check('a mapped device over both: written, failed, unmounted', async () => {
    mounted = await formatAndMount(...targets)
    await makeFile(mounted, 'hit')
    await makeFile(mounted, 'other')
    const hit = await holding(mounted, 'hit')
    const { kind, offset } = await inject(mounted, 'hwpoison', '--file', mounted.path('hit'))
    assert.equal(kind, 'data')
    // The page is mapped twice, for its target as well: the signal may name either place.
    const reports = await told(mounted, 1)
    assert.deepEqual(
      reports.map((report) => [report.offset, report.length]),
      [[offset, PAGE]],
    )
    await isDead(hit)
    await isIntact(mounted, 'other')
  })
  await checks.check('a target is unbound while mounted: kills, shutdown, umount', async () => {
    const other = await holding(mounted, 'other')
    await unbound(mounted, targets[1]!.slice('/dev/'.length))
    await isDead(other)
    await dismount(mounted)
    await region('enable', targets[1]!.slice('/dev/'.length))
    // The target that was left has it written down.
    const repair = await runProgram('fsck.holdfast', ['--repair', targets.join(',')])
    assert.equal(repair.status, 1, repair.stdout + repair.stderr)
    mounted = await mounted.mountAgain()
    await isIntact(mounted, 'other')
    await dismount(mounted)
  })
  await checks.check('striped over both: a page that fails is found in its chunk', async () => {
    mounted = await formatAs(['--striped', '--chunk', '2M'], targets)
    await makeFile(mounted, 'hit')
    await makeFile(mounted, 'other')
    const hit = await holding(mounted, 'hit')
    const words = ['--file', mounted.path('hit'), '--offset', '3M']
    const { kind, offset } = await inject(mounted, 'hwpoison', ...words)
    const [report] = await told(mounted, 1)
    assert.deepEqual([kind, report?.offset, report?.length], ['data', offset, PAGE])
    await isDead(hit)
    await isIntact(mounted, 'other')
    await dismount(mounted)
  })
}

/** The NVDIMM has a list of bad blocks, which makes a failure exact in the mapped device as well. */
async function overNvdimm(checks: Checks, instance: string): Promise<void> {
  await checks.check('a machine check below a mapped device: the page alone', async () => {
    const mounted = await formatAndMount(DEVICE, instance)
    await makeFile(mounted, 'hit')
    // The suites before left bad blocks, so a file may lie in pieces.
    const place = await placeOf(mounted, 'hit', MIB)
    await makeFile(mounted, 'other')
    const hit = await holding(mounted, 'hit')
    const other = await holding(mounted, 'other')
    const before = badblocks().length
    await machineCheck('ao', shareStart() + place)
    const [report] = await told(mounted, 1)
    assert.deepEqual(
      [report?.offset, report?.length, report?.kind, report?.handlesKilled],
      [place, PAGE, 'data', 1],
    )
    assert.equal(badblocks().length, before + 1)
    await isDead(hit)
    await isAlive(other)
    await isIntact(mounted, 'other')
    await dismount(mounted)
  })
}

/** Where the share of the mapped device begins in the NVDIMM, its first target. */
function shareStart(): number {
  const device = openDevice(DEVICE, { readOnly: true })
  try {
    return loadLabel(device.memory).start
  } finally {
    device.close()
  }
}

const show = (name: string) => runJson<RegionInfo>('holdfast', ['region', 'show', name])

async function region(verb: string, ...args: string[]): Promise<string> {
  const { status, stdout, stderr } = await runProgram('holdfast', ['region', verb, ...args])
  assert.equal(status, 0, `region ${verb} ${args.join(' ')}: ${stderr}`)
  return stdout
}

async function refused(why: RegExp, verb: string, ...args: string[]): Promise<void> {
  const { status, stderr } = await runProgram('holdfast', ['region', verb, ...args])
  assert.notEqual(status, 0, `region ${verb} ${args.join(' ')} went through`)
  assert.match(stderr, why)
}

/** One device, or several as one linear device. */
async function formatAndMount(...devices: string[]): Promise<MountedRegion> {
  // What a check that failed has left mounted.
  for (const device of devices.filter((name) => whoHolds(name) !== undefined)) {
    await stopHolders()
    await runProgram('holdfast', ['umount', '-l', device])
  }
  const kind = devices.length > 1 ? ['--linear'] : []
  return formatAs(kind, devices)
}

async function formatAs(kind: string[], devices: readonly string[]): Promise<MountedRegion> {
  const { status, stderr } = await runProgram('mkfs.holdfast', ['--force', ...kind, ...devices])
  assert.equal(status, 0, stderr)
  return mountRegion({ region: devices.join(',') })
}

/** By sysfs, which asks nobody; the mount hears of it. */
async function unbound(mounted: MountedRegion, name: string): Promise<void> {
  writeFileSync(`${DRIVER}/unbind`, name)
  for (let tries = 0; (await mounted.status()).state !== 'shutdown'; tries++) {
    assert.ok(tries < 10, 'the daemon does not see that the device is gone')
    await sleep(500)
  }
  assert.match((await mounted.status()).shutdown?.reason ?? '', /removed/)
}
