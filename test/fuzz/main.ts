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

const HELP = `usage: npm run test:fuzz -- [OPTION…]
  --minutes N   how long (default 1)
  --seed S      which images (default 1); the same seed gives the same
  --fresh       from the first image of the seed, not where the last run stopped
  --image N     one image only, as a failure names it, with all that can be said of it
`

export async function main(args: readonly string[]): Promise<number> {
  const { values } = parseArgs({
    args: [...args],
    options: {
      help: { type: 'boolean', short: 'h', default: false },
      minutes: { type: 'string', default: '1' },
      seed: { type: 'string', default: '1' },
      image: { type: 'string' },
      fresh: { type: 'boolean', default: false },
    },
  })
  const minutes = Number(values.minutes)
  const seed = Number(values.image ?? values.seed)
  if (values.help || !(minutes > 0) || !Number.isSafeInteger(seed)) {
    process.stdout.write(HELP)
    return values.help ? 0 : 2
  }
  const runner = new Runner()
  try {
    if (values.image !== undefined) return await single(runner, seed)
    return await run(runner, seed, minutes, values.fresh)
  } finally {
    runner.close()
  }
}

async function single(runner: Runner, seed: number): Promise<number> {
  print(JSON.stringify(generate(seed), null, 2))
  const answer = await runner.judge({ seed })
  print(answer.offence ?? JSON.stringify(answer.outcome))
  return answer.offence === undefined ? 0 : 1
}

async function run(runner: Runner, seed: number, minutes: number, fresh: boolean): Promise<number> {
  const state = join(STATE, `seed-${seed}.json`)
  const tally = fresh ? new Tally() : load(state)
  if (tally.images > 0) print(`goes on behind image ${tally.images} of seed ${seed}`)
  const end = Date.now() + minutes * 60_000
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
