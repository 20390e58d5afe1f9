/** What an operator asks for that cannot be, and answers that leave everything as it was. */
import { constants } from 'node:os'
import t from 'tap'
import type { Filesystem } from '../src/fs/filesystem.ts'
import { scratchFilesystem } from './support/core.ts'

const MIB = 1024 * 1024
const BLOCK = 4096
const { EBUSY, ENXIO } = constants.errno

/** A filesystem with one bad block in free space, and where it is. */
function withPoison(): { fs: Filesystem; bad: number; poisoned: () => number } {
  const { fs } = scratchFilesystem(32 * MIB, 'page')
  const request = { target: { kind: 'free' }, length: BLOCK, method: 'soft' } as const
  const { offset } = fs.administration.inject(request)
  return { fs, bad: offset, poisoned: () => fs.administration.status().blocks.poisoned }
}

t.test('clearPoison of a range that leaves the region clears nothing', async (t) => {
  const { fs, bad, poisoned } = withPoison()
  const ranges = [
    [bad, 32 * MIB],
    [1, 32 * MIB],
    [0, 2 ** 40],
    [bad, Number.MAX_SAFE_INTEGER],
    [32 * MIB, 1],
  ] as const
  for (const [offset, length] of ranges) {
    const clear = () => fs.administration.clearPoison({ offset, length })
    t.throws(clear, { errno: ENXIO, message: /the region ends at 33554432/ })
    t.equal(poisoned(), 1, `${length} bytes from ${offset}`)
  }
  t.equal(fs.administration.clearPoison({ offset: 0, length: 32 * MIB }), BLOCK, 'up to its end')
  t.equal(poisoned(), 0)
  await fs.unmount()
})

t.test('clearPoison while frozen is EBUSY, and works after the thaw', async (t) => {
  const { fs, bad, poisoned } = withPoison()
  await fs.administration.freeze()
  for (const range of ['all', { offset: bad, length: BLOCK }] as const) {
    const clear = () => fs.administration.clearPoison(range)
    t.throws(clear, { errno: EBUSY, message: /frozen: holdfast thaw/ })
  }
  t.equal(poisoned(), 1)
  fs.administration.thaw()
  t.equal(fs.administration.clearPoison('all'), BLOCK)
  t.equal(poisoned(), 0)
  await fs.unmount()
})
