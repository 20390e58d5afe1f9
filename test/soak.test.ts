/**
 * A daemon that is used and comes to rest, over and over, and has then what it had before: a slice
 * of `npm run test:soak`; and that growth is found when there is some.
 */
import t from 'tap'
import { judge, type Sample, table } from './soak/samples.ts'
import { Soak } from './soak/soak.ts'
import { cannotMount, lacks, notRoot } from './support/mounts.ts'

const CYCLES = 8
const SECONDS = 0.8

t.test(
  'after work, failures and orders: descriptors, threads, rows and free space are as before',
  { skip: cannotMount() || notRoot() || lacks('python3') },
  async (t) => {
    const soak = await Soak.begin()
    const samples: Sample[] = []
    for (let cycle = 0; cycle < CYCLES; cycle++) samples.push(await soak.cycle(cycle, SECONDS))
    t.same(judge(samples), [])
    t.ok(
      samples.some(({ poisoned }) => poisoned > 0),
      'memory had failed',
    )
    t.ok(soak.operations > 100, `${soak.operations} operations`)
    for (const line of table(samples).split('\n')) t.comment(line)
    t.same(await soak.end(), [], 'nothing is left behind')
  },
)

/** An hour of a daemon whose memory goes up and down by 3 MiB, and grows by so much in all. */
function hour(change: (part: number) => Partial<Sample>, growth = 0): Sample[] {
  return Array.from({ length: 100 }, (_, index) => ({
    seconds: index * 36,
    operations: index * 1000,
    memory: (40 + 3 * Math.sin(index * 1.7) + (growth * index) / 100) * 2 ** 20,
    heap: (10 + 0.2 * Math.sin(index * 2.3)) * 2 ** 20,
    descriptors: 26,
    threads: 11,
    rmapRows: 6,
    image: 150_000,
    freeBlocks: 60_000,
    poisoned: 0,
    inodes: 4,
    ...change(index / 100),
  }))
}

t.test('growth is found, and noise is not growth', async (t) => {
  t.same(judge(hour(() => ({}))), [])
  t.match(judge(hour(() => ({}), 20)), [/^memory: from/])
  t.match(judge(hour((part) => ({ descriptors: part < 0.9 ? 26 : 27 }))), [/descriptors: 26 .* 27/])
  t.match(judge(hour((part) => ({ heap: (10 + 3 * part) * 2 ** 20 }))), [/^heap/])
  t.match(judge(hour((part) => ({ threads: part < 0.5 ? 11 : 12 }))), [/threads/])
  t.match(judge(hour((part) => ({ freeBlocks: part < 0.5 ? 60_000 : 59_999 }))), [/free blocks/])
  t.match(judge(hour((part) => ({ rmapRows: part < 0.7 ? 6 : 7 }))), [/reverse map/])
  t.match(judge(hour((part) => ({ inodes: part < 0.9 ? 4 : 5 }))), [/^inodes: 4 .* 5/])
  t.match(judge(hour((part) => ({ image: 150_000 + 9e6 * part }))), [/^image/])
  t.match(
    judge(hour((part) => ({ memory: part < 0.2 ? 30 * 2 ** 20 : 40 * 2 ** 20 }))),
    [],
    'warming up is not growth',
  )
})
