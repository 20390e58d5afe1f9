/** Genuine machine checks (ar) at the very touch with which the daemon meets a page. */
import assert from 'node:assert/strict'
import type { Checks } from './checks.ts'
import { machineCheckAtTouch } from './device.ts'
import { checkClean, format, freshMount, release, startOver } from './mounted.ts'
import { mountHere, problemsHere, withCheckpoint } from './starting.ts'
import { holding, isDead, isIntact, MIB, makeFile, told } from './victims.ts'

const PAGE = 4096
const FORGET = 'os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)'

export async function consumed(checks: Checks): Promise<void> {
  let mounted = await freshMount()
  /** A client's operation on the page at 1 MiB; the machine check comes at that byte of the page. */
  const met = async (at: number, operation: string) => {
    const place = await makeFile(mounted, 'hit', MIB)
    await makeFile(mounted, 'other')
    const hit = await holding(mounted, 'hit')
    // What the client's kernel has cached, the daemon is not asked for.
    await hit.evaluate(FORGET)
    const raised = await machineCheckAtTouch(mounted.pid, place + at)
    const answer = await hit.evaluate(operation)
    assert.ok(raised(), `the daemon did not touch the byte: ${JSON.stringify(answer)}`)
    assert.equal(answer?.error, 'EIO', JSON.stringify(answer))
    const [report] = await told(mounted, 1)
    assert.deepEqual(
      [report?.offset, report?.length, report?.kind, report?.handlesKilled],
      [place, PAGE, 'data', 1],
    )
    await isDead(hit)
    await isIntact(mounted, 'other')
  }
  await checks.check('ar met by a read: EIO for it, its handles die, the daemon lives', () =>
    met(0, 'len(os.pread(fd, 4096, 1 << 20))'),
  )
  await checks.check('ar in the midst of a page that is read: the same', async () => {
    mounted = await startOver(mounted)
    await met(1024, 'len(os.pread(fd, 4096, 1 << 20))')
  })
  await checks.check('ar met by a write: the same', async () => {
    mounted = await startOver(mounted)
    await met(64, 'os.pwrite(fd, b"x" * 100, (1 << 20) + 50)')
  })
  await checks.check('ar met by a mount: a sentence, not a crash', async () => {
    await release(mounted)
    await format()
    await withCheckpoint(async (device, place) => {
      const raised = await machineCheckAtTouch(process.pid, place)
      assert.throws(() => mountHere(device), { message: /fsck\.holdfast/ })
      assert.ok(raised(), 'it did not touch the byte')
    })
  })
  await checks.check('ar met by fsck: a problem, not a crash', async () => {
    await format()
    await withCheckpoint(async (device, place) => {
      const raised = await machineCheckAtTouch(process.pid, place)
      assert.notDeepEqual(problemsHere(device), [])
      assert.ok(raised(), 'it did not touch the byte')
    })
    await format()
    await checkClean()
  })
}
