/** A mount against tmpfs: the same random system calls give the same results. */
import t from 'tap'
import { compare, mountTmpfs } from './oracle/oracle.ts'
import { cannotMount, lacks, mountRegion, notRoot, runProgram, scratch } from './support/mounts.ts'

const skip = cannotMount() || notRoot() || lacks('python3')
const OPERATIONS = 4000
const SEEDS = [1, 2]

for (const options of [[], ['cache=none'], ['writeback']]) {
  t.test(`as tmpfs does (${options[0] ?? 'default'})`, { skip }, async (t) => {
    const tmpfs = await mountTmpfs(scratch('memory'))
    const all = ['allow_other', ...options]
    const mount = await mountRegion({ size: '256M', on: 'memory', options: all })
    for (const seed of SEEDS) {
      const difference = await compare(mount.mountpoint, tmpfs.path, {
        seed,
        operations: OPERATIONS,
      })
      t.equal(difference, undefined, `seed ${seed}: npm run test:model -- --seed ${seed}`)
    }
    await tmpfs.end()
    await mount.unmount()
    const check = await runProgram('fsck.holdfast', ['-n', '-f', mount.region])
    t.equal(check.status, 0, check.stdout)
  })
}
