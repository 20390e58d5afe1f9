/** Poison by the kernel's own injections: by the daemon itself, and from outside by page frame. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { runJson } from '../../tools/quickstart/programs.ts'
import type { MountedRegion } from '../support/mounts.ts'
import type { Checks } from './checks.ts'
import { align, corruptPage } from './device.ts'
import { checkClean, dismount, freshMount, startOver } from './mounted.ts'
import { holding, inject, isAlive, isDead, isIntact, MIB, makeFile, told } from './victims.ts'

const PAGE = 4096

export async function poison(checks: Checks): Promise<void> {
  const mounted = await hitByOurselves(checks)
  await hitFromOutside(checks, mounted)
}

/** Kilobytes that the kernel holds for poisoned. */
function corrupted(): number {
  const meminfo = readFileSync('/proc/meminfo', 'utf8')
  return Number(/^HardwareCorrupted:\s+(\d+)/m.exec(meminfo)?.[1])
}

async function hitByOurselves(checks: Checks): Promise<MountedRegion> {
  const mounted = await freshMount()
  let place: number
  await checks.check('inject --method hwpoison: exactly the page, its handles die', async () => {
    place = await makeFile(mounted, 'hit', MIB)
    await makeFile(mounted, 'other')
    const hit = await holding(mounted, 'hit')
    const other = await holding(mounted, 'other')
    const before = corrupted()
    const file = mounted.path('hit')
    const result = await inject(mounted, 'hwpoison', '--file', file, '--offset', '1M')
    const { kind, offset, length, handlesKilled, shutdown } = result
    assert.deepEqual(
      { kind, offset, length, handlesKilled, shutdown },
      { kind: 'data', offset: place, length: PAGE, handlesKilled: 1, shutdown: false },
    )
    assert.ok(corrupted() > before, 'the kernel has poisoned nothing')
    await isDead(hit)
    await isAlive(other)
    await isIntact(mounted, 'other')
    const [report] = await told(mounted, 1)
    assert.deepEqual([report?.offset, report?.length], [place, PAGE])
  })
  await checks.check('the bad block is EIO, its neighbours can be read', async () => {
    const { stdout } = await mounted.client(
      `for at in 255 256 257; do
         dd if=hit bs=4K skip=$at count=1 of=/dev/null status=none 2>/dev/null; echo $?
       done`,
    )
    assert.equal(stdout, '0\n1\n0\n')
  })
  await checks.check(
    'overwriting the whole block heals the file, the block stays out',
    async () => {
      const { status, stderr } = await mounted.client(
        `dd if=/dev/zero of=hit bs=4K seek=256 count=1 conv=notrunc status=none &&
       cat hit > /dev/null`,
      )
      assert.equal(status, 0, stderr)
      assert.equal((await mounted.status()).blocks.poisoned, 1)
    },
  )
  await checks.check('the next failure in the same unit is told as early', async () => {
    const hit = await holding(mounted, 'hit')
    corruptPage(place + 2 * PAGE)
    const [, report] = await told(mounted, 2)
    assert.equal(report?.handlesKilled, 1)
    await isDead(hit)
  })
  await checks.check('clear-poison gives back what can be read and is in no list', async () => {
    const { poisoned } = (await mounted.status()).blocks
    assert.ok(poisoned > 1)
    const args = ['clear-poison', mounted.mountpoint, '--all']
    const { cleared } = await runJson<{ cleared: number }>('holdfast', args)
    assert.equal(cleared, poisoned * PAGE)
    assert.equal((await mounted.status()).blocks.poisoned, 0)
    const { status } = await mounted.client('cat hit > /dev/null')
    assert.equal(status, 0)
  })
  return mounted
}

async function hitFromOutside(checks: Checks, first: MountedRegion): Promise<void> {
  let mounted = first
  await checks.check('hwpoison by page frame from outside: told before anybody reads', async () => {
    mounted = await startOver(mounted)
    const place = await makeFile(mounted, 'hit', MIB)
    await makeFile(mounted, 'other')
    const hit = await holding(mounted, 'hit')
    corruptPage(place)
    const [report] = await told(mounted, 1)
    // No list names simulated poison, so it is all that one entry of the page table maps.
    const unit = align()
    assert.deepEqual([report?.offset, report?.length], [place - (place % unit), unit])
    assert.deepEqual([report?.kind, report?.handlesKilled], ['data', 1])
    await isDead(hit)
    await isIntact(mounted, 'other')
  })
  await checks.check('the same page again is no news', async () => {
    const { failures } = await mounted.status()
    corruptPage(failures[0]!.offset)
    await told(mounted, 1)
  })
  await checks.check('in free space: quarantined, and never allocated', async () => {
    const { kind, offset } = await inject(mounted, 'hwpoison', '--free')
    assert.equal(kind, 'free')
    const rows = await runJson<{ regionOffset: number; owner: unknown }[]>('holdfast', [
      ...['rmap', mounted.mountpoint, '--offset', String(offset), '--length', String(PAGE)],
    ])
    assert.deepEqual(rows[0]?.owner, 'poison')
  })
  await checks.check('poison survives the remount, and fsck is content', async () => {
    const { poisoned } = (await mounted.status()).blocks
    await dismount(mounted)
    await checkClean()
    mounted = await mounted.mountAgain()
    assert.equal((await mounted.status()).blocks.poisoned, poisoned)
    await isIntact(mounted, 'other')
  })
}
