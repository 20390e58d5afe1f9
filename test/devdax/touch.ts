/** Pages that fault (emulated) at the touch with which the daemon or its programs meet them. */
import assert from 'node:assert/strict'
import { injectFault } from '../../src/dax/fault.ts'
import type { MountedRegion } from '../support/mounts.ts'
import type { Checks } from './checks.ts'
import { align } from './device.ts'
import { checkClean, format, freshMount, release, startOver } from './mounted.ts'
import { mountHere, problemsHere, withCheckpoint } from './starting.ts'
import { holding, inject, isDead, isIntact, makeFile, told } from './victims.ts'

const PAGE = 4096

export async function touch(checks: Checks): Promise<void> {
  const mounted = await metByTouch(checks)
  await metWhileStarting(checks, mounted)
}

/**
 * The page that was met; and where the emulation takes a large page with it, the rest of that as
 * soon as a healthy page of it is wanted.
 */
const emulatedReports = () => (align() === PAGE ? 1 : 2)

/** Pages that really fault in the daemon. */
async function metByTouch(checks: Checks): Promise<MountedRegion> {
  let mounted = await freshMount()
  await checks.check('first met by a read: EIO for it, its handles die', async () => {
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
  return mounted
}

/** The checkpoint faults under the very programs that read it first. */
async function metWhileStarting(checks: Checks, mounted: MountedRegion): Promise<void> {
  await checks.check('met by a mount: a sentence, not a crash', async () => {
    await release(mounted)
    await format()
    await withCheckpoint((device, place) => {
      injectFault(device, place, PAGE)
      assert.throws(() => mountHere(device), { message: /fsck\.holdfast/ })
    })
  })
  await checks.check('met by fsck: a problem, not a crash', async () => {
    await withCheckpoint((device, place) => {
      injectFault(device, place, PAGE)
      assert.notDeepEqual(problemsHere(device), [])
    })
    await checkClean()
  })
}
