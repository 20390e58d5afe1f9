/** A mount against tmpfs: the same random system calls give the same results. */
import t from 'tap'
import { KINDS, rerunOf } from './oracle/kinds.ts'
import { cannotMount, lacks, notRoot } from './support/mounts.ts'

const skip = cannotMount() || notRoot() || lacks('python3')
const OPERATIONS = 5000

for (const mode of KINDS.tmpfs.modes) {
  t.test(`as tmpfs does (${mode})`, { skip }, async (t) => {
    const seed = Number(process.env.HOLDFAST_SEED ?? 1)
    const difference = await KINDS.tmpfs.run(mode, seed, OPERATIONS)
    t.equal(difference, undefined, rerunOf('tmpfs', mode, seed, OPERATIONS))
  })
}
