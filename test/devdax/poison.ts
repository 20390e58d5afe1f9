/** Poison by the kernel's own injections: by the daemon itself, and from outside by page frame. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { type DaxDevice, openDevice } from '../../src/dax/device.ts'
import { injectFault } from '../../src/dax/fault.ts'
import { fsDaxGet, fsPutDax, type Holder } from '../../src/dax/holder.ts'
import { bootId } from '../../src/dax/identity.ts'
import { examine } from '../../src/fs/check/examine.ts'
import { Filesystem } from '../../src/fs/filesystem.ts'
import { readSuperblocks, requireSuperblock } from '../../src/media/superblock.ts'
import { runJson, runProgram } from '../../tools/quickstart/programs.ts'
import { silent } from '../support/core.ts'
import type { MountedRegion } from '../support/mounts.ts'
import type { Checks } from './checks.ts'
import { align, corruptPage, DEVICE } from './device.ts'
import { checkClean, dismount, format, freshMount, release, startOver } from './mounted.ts'
import { holding, inject, isAlive, isDead, isIntact, MIB, makeFile, told } from './victims.ts'

const PAGE = 4096

export async function poison(checks: Checks): Promise<void> {
  const mounted = await hitByOurselves(checks)
  await hitFromOutside(checks, mounted)
  await metByTouch(checks, mounted)
  await metWhileStarting(checks, mounted)
  await metadata(checks, mounted)
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

/**
 * The page that was met; and where the emulation takes a large page with it, the rest of that as
 * soon as a healthy page of it is wanted.
 */
const emulatedReports = () => (align() === PAGE ? 1 : 2)

/** Pages that really fault in the daemon. */
async function metByTouch(checks: Checks, first: MountedRegion): Promise<void> {
  let mounted = first
  await checks.check('first met by a read: EIO for it, its handles die', async () => {
    mounted = await startOver(mounted)
    await makeFile(mounted, 'hit')
    await makeFile(mounted, 'other')
    const hit = await holding(mounted, 'hit')
    await inject(mounted, 'sigbus', '--file', mounted.path('hit'), '--offset', '0')
    assert.deepEqual(await told(mounted, 0), [])
    assert.equal((await hit.evaluate('len(os.pread(fd, 100, 0))'))?.error, 'EIO')
    const [report] = await told(mounted, emulatedReports())
    assert.deepEqual([report?.kind, report?.handlesKilled], ['data', 1])
    await isDead(hit)
    await isIntact(mounted, 'other')
  })
  await checks.check('first met by a write: EIO for it, and the same', async () => {
    mounted = await startOver(mounted)
    await makeFile(mounted, 'hit')
    await makeFile(mounted, 'other')
    const hit = await holding(mounted, 'hit')
    await inject(mounted, 'sigbus', '--file', mounted.path('hit'), '--offset', '0')
    assert.equal((await hit.evaluate('os.pwrite(fd, b"x" * 100, 50)'))?.error, 'EIO')
    const [report] = await told(mounted, emulatedReports())
    assert.deepEqual([report?.kind, report?.handlesKilled], ['data', 1])
    await isDead(hit)
    await isIntact(mounted, 'other')
  })
}

/** The checkpoint faults under the very programs that read it first. */
async function metWhileStarting(checks: Checks, mounted: MountedRegion): Promise<void> {
  const holder: Holder = { purpose: 'fsck' }
  const faulty = async (body: (device: DaxDevice) => Promise<void> | void) => {
    const device = openDevice(DEVICE)
    try {
      fsDaxGet(device, holder)
      const { slots, checkpoint } = requireSuperblock(readSuperblocks(device.memory))
      injectFault(device, slots[checkpoint.slot][0]!.block * PAGE, PAGE)
      await body(device)
    } finally {
      fsPutDax(device, holder)
      device.close()
    }
  }
  await checks.check('met by a mount: a sentence, not a crash', async () => {
    await release(mounted)
    await format()
    await faulty((device) => {
      const options = { commitSeconds: 1, onFailure: 'handles', logger: silent } as const
      const remedy = { message: /fsck\.holdfast/ }
      assert.throws(() => Filesystem.mount(device, { readOnly: false, ...options }), remedy)
    })
  })
  await checks.check('met by fsck: a problem, not a crash', async () => {
    await faulty((device) => {
      const stages = examine(device.memory, { bootId: bootId(), mounted: false })
      let step = stages.next()
      while (!step.done) step = stages.next()
      assert.notDeepEqual(step.value.problems, [])
      step.value.salvaged?.index.close()
    })
    await checkClean()
  })
}

async function metadata(checks: Checks, first: MountedRegion): Promise<void> {
  let mounted = first
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
