/** What libnvdimm lists when mkfs, mount and fsck begin. The last check costs a superblock. */
import assert from 'node:assert/strict'
import { runJson, runProgram, sleep } from '../../tools/quickstart/programs.ts'
import type { MountedRegion } from '../support/mounts.ts'
import type { Checks } from './checks.ts'
import { badblocks, DEVICE, machineCheck, size } from './device.ts'
import { checkClean, dismount, format, freshMount, release } from './mounted.ts'
import { isIntact, MIB, makeFile } from './victims.ts'

const PAGE = 4096
const UNIT = 2 * MIB

export async function badBlocks(checks: Checks): Promise<void> {
  if (badblocks().length === 0) await machineCheck('ao', size() / 2)
  await sleep(500)
  const mounted = await freshMount()
  await leftOut(checks, mounted)
  await inSuperblock(checks, mounted)
}

async function leftOut(checks: Checks, mounted: MountedRegion): Promise<void> {
  await checks.check('bad blocks at mkfs are left out', async () => {
    const bytes = badblocks().reduce((sum, { length }) => sum + length, 0)
    assert.ok(bytes > 0)
    assert.equal((await mounted.status()).blocks.poisoned, bytes / PAGE)
    assert.deepEqual((await mounted.status()).failures, [])
    // All the space there is, in one file: none of it is a bad block.
    const { status, stderr } = await mounted.client(
      'fallocate -l $(($(stat -f -c %a .) * 4096 * 98 / 100)) full',
    )
    assert.equal(status, 0, stderr)
    for (const { offset } of badblocks()) assert.equal(await ownerOf(offset), 'poison')
    await dismount(mounted)
    await checkClean()
  })
  await checks.check('in the journal while nobody holds it: mount and fsck say so', async () => {
    await release(mounted)
    const next = await mounted.mountAgain()
    await makeFile(next, 'file')
    await next.kill()
    // The first record of the journal, which the next mount has to replay.
    assert.equal(await ownerOf(UNIT), 'journal')
    await machineCheck('ao', UNIT)
    await sleep(500)
    const refused = await runProgram('holdfast', ['mount', DEVICE, next.mountpoint])
    assert.notEqual(refused.status, 0)
    assert.match(refused.stderr, /fsck\.holdfast/)
    const check = await runProgram('fsck.holdfast', ['-n', '-f', DEVICE])
    assert.equal(check.status, 4, check.stdout + check.stderr)
  })
  await checks.check('mkfs makes a filesystem whose journal goes round bad blocks', async () => {
    await release(mounted)
    await format()
    await checkClean()
    const next = await mounted.mountAgain()
    await makeFile(next, 'file')
    await next.kill()
    const again = await next.mountAgain()
    await isIntact(again, 'file')
    await dismount(again)
    await checkClean()
  })
}

async function inSuperblock(checks: Checks, mounted: MountedRegion): Promise<void> {
  await checks.check('a bad superblock cannot be left out: mkfs refuses', async () => {
    await release(mounted)
    await machineCheck('ao', 0)
    await sleep(500)
    assert.ok(badblocks().some(({ offset }) => offset === 0))
    const { status, stderr } = await runProgram('mkfs.holdfast', ['--force', DEVICE])
    assert.notEqual(status, 0)
    assert.match(stderr, /superblock.*bad/)
  })
  await checks.check(
    'a superblock that went bad: refused, repaired, mounted by the other',
    async () => {
      await release(mounted)
      const refused = await runProgram('holdfast', ['mount', DEVICE, mounted.mountpoint])
      assert.notEqual(refused.status, 0)
      assert.match(refused.stderr, /fsck\.holdfast --repair/)
      const repair = await runProgram('fsck.holdfast', ['--repair', DEVICE])
      const next = await mounted.mountAgain().catch((error: Error) => {
        throw new Error(`${repair.status} ${repair.stdout}${repair.stderr}\n${error.message}`)
      })
      await isIntact(next, 'file')
      await dismount(next)
    },
  )
}

async function ownerOf(offset: number): Promise<unknown> {
  const range = ['--offset', String(offset), '--length', String(PAGE)]
  const rows = await runJson<{ owner: unknown }[]>('holdfast', ['rmap', DEVICE, ...range])
  return rows[0]?.owner
}
