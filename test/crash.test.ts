/**
 * Crashes at every persist point of generated operations: a slice of `npm run test:crash`, which
 * see (test/crash/main.ts). What a crash may leave is said in docs/DURABILITY.md.
 */
import t from 'tap'
import { SimulatedMemory } from '../src/dax/simulated-memory.ts'
import { type CampaignOptions, campaign, describe, type Mode } from './crash/campaign.ts'
import { BLOCK, emptyNode, State } from './crash/model.ts'
import { exploreNarrow } from './crash/mutation.ts'
import type { Found } from './crash/survey.ts'
import { compare, Violation } from './crash/verdict.ts'

const IMAGES = 1500
/** A machine that is busy with other things does about twice the least in this time. */
const SECONDS_MAX = 60
const IMAGES_MIN = 500
const NARROW_MIN = 120

for (const mode of ['cacheline', 'page'] as const satisfies readonly Mode[]) {
  t.test(`every crash over ${mode} memory leaves what was promised`, async (t) => {
    const totals = { sequences: 0, images: 0 }
    const end = Date.now() + SECONDS_MAX * 1000
    const options: CampaignOptions = {
      seed: 2,
      modes: [mode],
      goOn: ({ images }) => images < IMAGES && (Date.now() < end || images < IMAGES_MIN),
    }
    const finding = await campaign(options, totals)
    if (finding !== undefined) t.fail(await describe(finding))
    t.ok(totals.images >= IMAGES_MIN, `${totals.images} images of ${totals.sequences} sequences`)
  })
}

t.test('operations of several records, and images of several slices', async (t) => {
  for (const mode of ['cacheline', 'page'] as const satisfies readonly Mode[]) {
    const seconds = SECONDS_MAX / 2
    const limits = { mode, seed: 3, images: IMAGES / 3, seconds, least: NARROW_MIN }
    const { images, failure, sequence } = await exploreNarrow(limits)
    t.ok(images >= NARROW_MIN || failure !== undefined, `${images} images over ${mode} memory`)
    const rerun = `npm run test:crash -- --narrow --kind ${mode} --sequence ${sequence}`
    t.equal(failure, undefined, failure === undefined ? `${images} images` : rerun)
  }
})

// --- what is accepted ---------------------------------------------------------------------------

const FILE = 2
/** A file of three blocks: a hole, a preallocated one, and one that holds data. */
const before = State.initial().change((draft) => {
  draft.add(emptyNode(FILE, 'file', 0o600))
  draft.enter(1, 'f', FILE)
  draft.resize(FILE, 3 * BLOCK)
  draft.write(FILE, 2 * BLOCK, Buffer.alloc(BLOCK, 1))
})

function written(state: State, block: number, byte: number): State {
  return state.change((draft) => draft.write(FILE, block * BLOCK, Buffer.alloc(BLOCK, byte)))
}

/** Is this what a crash may leave? Each byte given stands for 8 of the file, from `block` on. */
function accepted(states: readonly State[], block: number, words: readonly number[]): boolean {
  const bytes = Buffer.alloc(3 * BLOCK)
  states[0]!.node(FILE).bytes.copy(bytes)
  for (const [at, word] of words.entries())
    bytes.fill(word, block * BLOCK + at * 8, (at + 1) * 8 + block * BLOCK)
  const nodes: [string, Found][] = [...states[0]!.paths()].map(([path, node]) => {
    const found = { ...node, ino: node.id, mtime: 0, unreadable: new Set<number>() }
    return [path, node.type === 'file' ? { ...found, bytes } : found]
  })
  try {
    compare(new Map(nodes), states, () => 'something else')
    return true
  } catch (error) {
    if (!(error instanceof Violation)) throw error
    return false
  }
}

const WORDS = BLOCK / 8
const half = (one: number, other: number) =>
  Array.from({ length: WORDS }, (_, word) => (word < WORDS / 2 ? one : other))

t.test('bytes in blocks that are new to a file: whole, or not at all', async (t) => {
  const filled = written(before, 0, 7)
  t.ok(accepted([before, filled], 0, half(0, 0)), 'not at all')
  t.ok(accepted([before, filled], 0, half(7, 7)), 'whole')
  t.notOk(accepted([before, filled], 0, half(7, 0)), 'torn')
  const over = written(filled, 0, 8)
  t.ok(accepted([before, filled, over], 0, half(8, 7)), 'no hole any more')
  t.notOk(accepted([before, filled, over], 0, half(8, 0)), 'torn, of what was stored over it')
  t.notOk(accepted([filled, written(before, 0, 8)], 0, half(8, 7)), 'of other blocks')
})

t.test('a write into a hole comes after what was done before it', async (t) => {
  const one = written(before, 0, 7)
  const both = written(one, 1, 8)
  t.notOk(accepted([before, one, both], 1, half(8, 8)), 'the second without the first')
  t.ok(accepted([before, one, both], 0, half(7, 7)), 'the first without the second')
  const later = before.change((draft) => {
    draft.add(emptyNode(FILE + 1, 'file', 0o600))
    draft.enter(1, 'g', FILE + 1)
  })
  t.notOk(accepted([before, later, written(later, 0, 7)], 0, half(7, 7)), 'without the create')
})

t.test('bytes over others: word by word, and without what was done before', async (t) => {
  t.ok(accepted([before, written(before, 2, 7)], 2, half(7, 1)), 'torn')
  t.ok(accepted([before, written(written(before, 0, 8), 2, 7)], 2, half(7, 7)), 'out of order')
  t.notOk(accepted([before, written(before, 2, 7)], 2, half(6, 1)), 'something else')
  const punched = before.change((draft) => draft.clear(FILE, 2 * BLOCK, 3 * BLOCK))
  const again = written(punched, 2, 7)
  t.ok(accepted([before, punched, again], 2, half(0, 0)), 'punched')
  t.notOk(accepted([before, punched, again], 2, half(7, 1)), 'other blocks since a punch')
  t.notOk(accepted([punched, again], 2, half(7, 0)), 'a hole since a punch')
})

t.test('a program on a plain file may be killed in the middle of a store', async (t) => {
  const memory = new SimulatedMemory(8192, 'page')
  const bytes = Buffer.alloc(32, 1)
  const seen: Buffer[] = []
  memory.onStore = () => {
    const image = Buffer.alloc(32)
    memory.crash(() => true).read(0, image, 0, 32)
    seen.push(image)
  }
  memory.write(0, bytes, 0, 32)
  memory.zero(0, 32)
  memory.flush(0, 32)
  const halves = (one: number, other: number) => Buffer.alloc(32, other).fill(one, 0, 16)
  t.strictSame(seen, [halves(1, 0), halves(0, 1)])
  memory.write(4, bytes, 0, 20)
  const third = Buffer.alloc(32).fill(1, 4, 8)
  t.strictSame(seen.at(-1), third, 'no word is torn, wherever the store begins')
  const fenced = new SimulatedMemory(8192, 'cacheline')
  fenced.onStore = () => t.fail('such a store is a persist point')
  fenced.write(0, bytes, 0, 32)
})
