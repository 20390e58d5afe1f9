/**
 * The crash explorer finds bugs: a slice of `npm run test:crash -- --mutants`. Each mutant is
 * holdfast with one step left out that a promise stands on.
 */
import t from 'tap'
import { MUTANTS } from './crash/mutants.ts'
import { tell, tryMutant } from './crash/mutation.ts'

/** Quickly found out, and one of every sort. */
const SLICE = [
  'unfenced-record',
  'unfenced-data',
  'no-data-msync',
  'no-mark-msync',
  'mark-before-data',
  'superblock-before-image',
  'no-record-crc',
  'no-superblock-msync',
  'two-records',
  'added-before-data',
  'hole-in-records',
  'no-zeros-when-growing',
  'slot-before-units',
  'no-slot-msync',
]

t.test('names are told apart', async (t) => {
  t.equal(new Set(MUTANTS.map(({ name }) => name)).size, MUTANTS.length)
})

for (const name of SLICE) {
  t.test(`mutant ${name} is found out`, async (t) => {
    const mutant = MUTANTS.find((one) => one.name === name)!
    const verdict = await tryMutant(mutant)
    t.comment(tell(verdict))
    t.ok(verdict.killedBy, verdict.killedBy ?? `survived ${verdict.images} images`)
  })
}
