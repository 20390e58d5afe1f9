/** Genuine machine checks. These do fill the region's list of bad blocks, until the guest ends. */
import assert from 'node:assert/strict'
import { join } from 'node:path'
import type { FileMap } from '../../src/fs/administration.ts'
import { ROOT, run, runJson } from '../../tools/quickstart/programs.ts'
import type { Checks } from './checks.ts'
import { badblocks, machineCheck } from './device.ts'
import { checkClean, dismount, freshMount } from './mounted.ts'
import { holding, isAlive, isDead, isIntact, MIB, makeFile, told } from './victims.ts'

const PAGE = 4096
const UNIT = 2 * MIB

export async function machineChecks(checks: Checks): Promise<void> {
  let mounted = await freshMount()
  let place: number
  await checks.check('patrol scrub (ao): the page alone, before anybody reads it', async () => {
    place = await makeFile(mounted, 'hit', MIB)
    await makeFile(mounted, 'other')
    const hit = await holding(mounted, 'hit')
    const other = await holding(mounted, 'other')
    await machineCheck('ao', place)
    const [report] = await told(mounted, 1)
    assert.deepEqual(
      [report?.offset, report?.length, report?.kind, report?.handlesKilled],
      [place, PAGE, 'data', 1],
    )
    assert.deepEqual(badblocks(), [{ offset: place, length: PAGE }])
    await isDead(hit)
    await isAlive(other)
    await isIntact(mounted, 'other')
  })
  await checks.check('two more in one unit, each told once, by its page', async () => {
    for (const [count, offset] of [
      [2, place + 5 * PAGE],
      [3, place - 3 * PAGE],
    ] as const) {
      await machineCheck('ao', offset)
      const report = (await told(mounted, count)).at(-1)
      assert.deepEqual([report?.offset, report?.length], [offset, PAGE])
    }
  })
  await checks.check('overwriting whole blocks heals the file onto new ones', async () => {
    const { status, stderr } = await mounted.client(
      'head -c 4M /dev/urandom > new && dd if=new of=hit bs=1M conv=notrunc status=none && cmp new hit',
    )
    assert.equal(status, 0, stderr)
    const map = await runJson<FileMap>('holdfast', ['getmap', mounted.path('hit')])
    const bad = map.extents.filter(({ flags }) => flags.includes('poisoned'))
    assert.deepEqual(bad, [])
  })
  await checks.check('clear-poison keeps what the platform cannot clear', async () => {
    const args = ['clear-poison', mounted.mountpoint, '--all']
    const { cleared } = await runJson<{ cleared: number }>('holdfast', args)
    assert.equal(cleared, 0)
    assert.equal((await mounted.status()).blocks.poisoned, 3)
  })
  await checks.check('a load (ar) in a guarded read: a memory failure, not a death', async () => {
    await dismount(mounted)
    await touched(place + UNIT)
    assert.ok(badblocks().some(({ offset }) => offset === place + UNIT))
  })
  await checks.check('bad blocks are known at mount, and told once', async () => {
    mounted = await mounted.mountAgain()
    const { failures, blocks } = await mounted.status()
    // The three in the journal are no news; the one that came while nobody held the device is.
    assert.deepEqual(
      failures.map(({ offset, length }) => ({ offset, length })),
      [{ offset: place + UNIT, length: PAGE }],
    )
    assert.equal(blocks.poisoned, 4)
    await dismount(mounted)
    await checkClean()
  })
}

/** Another process loads the page; the machine check comes at that load. */
async function touched(offset: number): Promise<void> {
  const program = join(ROOT, 'test/devdax/toucher.ts')
  const command = [process.execPath, '--import=tsx', program, String(offset)]
  const outcome = await run(command, { timeoutMs: 60_000 })
  assert.equal(outcome.status, 0, `${outcome.signal ?? ''} ${outcome.stdout}${outcome.stderr}`)
  const failed = JSON.parse(outcome.stdout) as { offset: number; length: number }[]
  assert.deepEqual(failed, [{ offset, length: PAGE }])
}
