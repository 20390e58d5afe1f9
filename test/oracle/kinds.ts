/** What random sequences run against: another filesystem, or a model that knows of failures. */
import { rmSync } from 'node:fs'
import { dirname } from 'node:path'
import { mountRegion, runProgram, scratch } from '../support/mounts.ts'
import { compareCore } from './core-oracle.ts'
import { CoreSubject } from './core-subject.ts'
import { compareWithModel } from './failures.ts'
import { MountSubject } from './mount-subject.ts'
import { compare, mountTmpfs } from './oracle.ts'

export interface Kind {
  /** In the figure: "12,000 …". */
  readonly title: string
  readonly modes: readonly string[]
  /** Of one sequence of a long run. */
  readonly operations: number
  /** Undefined when all is as it must be, else what is not. */
  readonly run: (mode: string, seed: number, operations: number) => Promise<string | undefined>
}

export const KINDS = {
  tmpfs: {
    title: 'on a mount and on tmpfs',
    modes: ['cache=keep', 'cache=none', 'writeback'],
    operations: 5000,
    run: againstTmpfs,
  },
  failures: {
    title: 'on a mount whose memory fails',
    modes: ['cache=keep', 'cache=none', 'writeback'],
    operations: 2000,
    run: async (mode, seed, operations) =>
      compareWithModel(await MountSubject.make([mode]), seed, operations),
  },
  names: {
    title: 'on the core and on tmpfs',
    modes: ['cacheline', 'page'],
    operations: 5000,
    run: (mode, seed, operations) =>
      compareCore(mode === 'page' ? 'page' : 'cacheline', seed, operations),
  },
  core: {
    title: 'on the core, whose memory fails',
    modes: ['cacheline', 'page'],
    operations: 5000,
    run: (mode, seed, operations) =>
      compareWithModel(new CoreSubject(mode === 'page' ? 'page' : 'cacheline'), seed, operations),
  },
} as const satisfies Record<string, Kind>

export type KindName = keyof typeof KINDS
export const KIND_NAMES = Object.keys(KINDS) as KindName[]

async function againstTmpfs(
  mode: string,
  seed: number,
  operations: number,
): Promise<string | undefined> {
  const tmpfs = await mountTmpfs(scratch('memory'))
  const options = ['allow_other', mode]
  const mount = await mountRegion({ size: '256M', on: 'memory', options })
  const sequence = { seed, operations, blocks: mode !== 'writeback' }
  const difference = await compare(mount.mountpoint, tmpfs.path, sequence)
  await tmpfs.end()
  await mount.unmount()
  const check = await runProgram('fsck.holdfast', ['-n', '-f', mount.region])
  rmSync(dirname(mount.region), { recursive: true })
  if (difference !== undefined || check.status === 0) return difference
  return `fsck exits ${check.status}: ${check.stdout}${check.stderr}`
}

/** The command that does a sequence again. */
export function rerunOf(kind: KindName, mode: string, seed: number, operations: number): string {
  const sequence = `--sequence ${seed} --operations ${operations}`
  return `npm run test:model -- --against ${kind} --mode ${mode} ${sequence}`
}
