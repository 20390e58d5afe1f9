/**
 * A short run of the exerciser (test/fsx) over each transport, in each of its modes; and that the
 * exerciser finds what is wrong. `npm run test:fsx -- --minutes 10` is the long one.
 */
import { join } from 'node:path'
import t from 'tap'
import { exercise } from './fsx/exercise.ts'
import { describe, rerunOf } from './fsx/main.ts'
import { MODES, type TransportName } from './fsx/modes.ts'
import { cannotMount, lacks, mountRegion, ROOT, runClient, scratch } from './support/mounts.ts'

/** All modes of a transport together; mounting them takes about as long again. */
const SECONDS = 3
const CLIENT = join(ROOT, 'test/fsx/client.py')

for (const transport of Object.keys(MODES) as TransportName[]) {
  const skip = cannotMount(transport) || lacks('python3')
  t.test(`files over ${transport} agree with their model`, { skip }, async (t) => {
    const seed = Number(process.env.HOLDFAST_SEED ?? 1)
    const modes = MODES[transport]
    const { operations, failures } = await exercise({
      transport,
      modes,
      seed,
      seconds: SECONDS / modes.length,
      directory: scratch('memory'),
    })
    t.same(
      failures.map((failure) => `${describe(failure)}\n${rerunOf(failure, transport, seed)}`),
      [],
    )
    for (const { name } of modes) t.ok(operations[name]! > 100, `${name}: ${operations[name]}`)
  })
}

interface ClientReport {
  operations: number
  failure: { error: string; shortest: unknown[][] | null } | null
}

/** Runs the client on plain files, with `interfere` (Python) in front. */
async function clientOn(directory: string, seed: number, interfere: string): Promise<ClientReport> {
  const code = `
import runpy, sys
sys.path.insert(0, ${JSON.stringify(join(ROOT, 'test/fsx'))})
import subject
${interfere}
sys.argv = ${JSON.stringify(['client.py', directory, '--seed', String(seed), '--operations', '2000'])}
sys.argv += ['--without', 'zero,zero-keep']
runpy.run_path(${JSON.stringify(CLIENT)}, run_name='__main__')
`
  const outcome = await runClient(['python3', '-B', '-c', code], { timeoutMs: 60_000 })
  if (outcome.status !== 0) throw new Error(outcome.stderr)
  return JSON.parse(outcome.stdout) as ClientReport
}

t.test(
  'the exerciser finds a fault and shortens the way to it',
  { skip: lacks('python3') },
  async (t) => {
    const directory = scratch('disk')
    const healthy = await clientOn(directory, 3, '')
    t.same([healthy.failure, healthy.operations], [null, 2000], 'plain files are well')
    // A filesystem that forgets the last byte of every punched hole.
    const forget = `
real = subject.fallocate
def fallocate(fd, mode, offset, length):
    real(fd, mode, offset, length if mode != 3 or length == 1 else length - 1)
subject.fallocate = fallocate
`
    const report = await clientOn(directory, 3, forget)
    t.match(report.failure?.error, /bytes/)
    const names = report.failure?.shortest?.map(([name]) => name) ?? []
    t.ok(names.includes('punch') && names.length <= 5, `${names}`)
    const killed = `
import os, signal
subject.ACTIONS['append'] = lambda *_: os.kill(os.getpid(), signal.SIGBUS)
`
    t.match(
      (await clientOn(directory, 3, killed)).failure,
      { error: 'SIGBUS' },
      'a child that dies',
    )
  },
)

const HOLES = `
import mmap, os
P = 4096
fd = os.open('sparse', os.O_RDWR | os.O_CREAT)
os.ftruncate(fd, 100 * P); os.pwrite(fd, b'd' * P, 50 * P)
m = mmap.mmap(fd, 100 * P)
for page in (10, 49, 51, 99): m[page * P + 5] = page
data = lambda page: os.lseek(fd, page * P, os.SEEK_DATA) / P
hole = lambda page: os.lseek(fd, page * P, os.SEEK_HOLE) / P
assert [data(0), data(11), data(52)] == [10, 49, 99], [data(0), data(11), data(52)]
assert [hole(0), hole(49), hole(99)] == [0, 52, 100], [hole(0), hole(49), hole(99)]
assert [m[page * P + 5] for page in (10, 49, 50, 51, 99)] == [10, 49, 100, 51, 99]
`

t.test(
  'what a mapping stored is no hole, before it is written back',
  { skip: cannotMount() },
  async (t) => {
    for (const cache of ['keep', 'none']) {
      const mount = await mountRegion({ on: 'memory', options: [`cache=${cache}`] })
      const outcome = await mount.client(['python3', '-c', HOLES])
      t.equal(outcome.status, 0, `cache=${cache} ${outcome.stderr}`)
      await mount.unmount()
    }
  },
)
