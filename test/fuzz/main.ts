/**
 * `npm run test:fuzz -- --minutes N --seed S`: judges one image after another until the time is
 * over. Goes on where an earlier run of the same seed stopped; prints its figure last.
 */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { mixSeeds } from '../crash/random.ts'
import { generate } from './generate.ts'
import { Runner } from './runner.ts'
import { Tally } from './tally.ts'

const STATE = join(dirname(fileURLToPath(import.meta.url)), '../../build/fuzz')
const REPORT_MS = 10_000

const { values } = parseArgs({
  options: {
    minutes: { type: 'string', default: '1' },
    seed: { type: 'string', default: '1' },
    /** One image only, with all that can be said of it. */
    image: { type: 'string' },
    fresh: { type: 'boolean', default: false },
  },
})

const runner = new Runner()
try {
  process.exitCode = values.image === undefined ? await run() : await single(Number(values.image))
} finally {
  runner.close()
}

async function single(seed: number): Promise<number> {
  print(JSON.stringify(generate(seed), null, 2))
  const answer = await runner.judge({ seed })
  print(answer.offence ?? JSON.stringify(answer.outcome))
  return answer.offence === undefined ? 0 : 1
}

async function run(): Promise<number> {
  const seed = Number(values.seed)
  const state = join(STATE, `seed-${seed}.json`)
  const tally = values.fresh ? new Tally() : load(state)
  if (tally.images > 0) print(`goes on behind image ${tally.images} of seed ${seed}`)
  const end = Date.now() + Number(values.minutes) * 60_000
  let reported = Date.now()
  while (Date.now() < end) {
    const image = mixSeeds(seed, tally.images)
    const answer = await runner.judge({ seed: image })
    tally.add(image, answer)
    if (answer.offence !== undefined) {
      print(`image ${image}: ${answer.offence}\n  npm run test:fuzz -- --image ${image}`)
    }
    if (Date.now() - reported < REPORT_MS) continue
    reported = Date.now()
    save(state, tally)
    print(`${tally.line()}, ${Math.ceil((end - reported) / 60_000)} min to go`)
  }
  save(state, tally)
  print(`${tally.line()} (seed ${seed})`)
  return tally.offences.length === 0 ? 0 : 1
}

function load(path: string): Tally {
  if (!existsSync(path)) return new Tally()
  return Tally.from(JSON.parse(readFileSync(path, 'utf8')) as Partial<Tally>)
}

function save(path: string, tally: Tally): void {
  mkdirSync(dirname(path), { recursive: true })
  writeFileSync(path, JSON.stringify(tally))
}

function print(line: string): void {
  process.stdout.write(`${line}\n`)
}
