/** `npm run test:fuzz`: judges one mutated region after another, and prints its figure last. */
import { parseArgs } from 'node:util'
import { mixSeeds } from '../crash/random.ts'
import {
  LONG_HELP,
  LONG_OPTIONS,
  type LongOptions,
  longOptions,
  longRun,
  wholeNumber,
} from '../support/long-run.ts'
import { generate } from './generate.ts'
import { Runner } from './runner.ts'
import { Tally } from './tally.ts'

const HELP = `usage: npm run test:fuzz -- [OPTION…]
${LONG_HELP}  --image N          one region only, as a failure names it, with all that can be said of it
`

export async function main(args: readonly string[]): Promise<number> {
  const { values } = parseArgs({
    args: [...args],
    options: { ...LONG_OPTIONS, image: { type: 'string' } },
  })
  if (values.help) {
    process.stdout.write(HELP)
    return 0
  }
  const options = longOptions(values)
  const runner = new Runner()
  process.on('exit', () => runner.close())
  if (values.image !== undefined) return single(runner, wholeNumber('--image', values.image))
  return long(runner, options)
}

async function single(runner: Runner, seed: number): Promise<number> {
  process.stdout.write(`${JSON.stringify(generate(seed), null, 2)}\n`)
  const answer = await runner.judge({ seed })
  process.stdout.write(`${answer.offence ?? JSON.stringify(answer.outcome)}\n`)
  return answer.offence === undefined ? 0 : 1
}

function long(runner: Runner, options: LongOptions): Promise<number> {
  const plan = {
    name: 'fuzz',
    key: [],
    options,
    fresh: new Tally(),
    progress: ({ images }: Tally) => `${images} mutated regions`,
    figure: ({ state, before }: { state: Tally; before: Pick<Tally, 'images'> }) =>
      `${state.line(before.images)} (seed ${options.seed})`,
  }
  return longRun(plan, async ({ state, goOn, fail }) => {
    while (goOn()) {
      const image = mixSeeds(options.seed, state.images)
      const answer = await runner.judge({ seed: image })
      state.add(answer)
      if (answer.offence === undefined) continue
      fail(`image ${image}: ${answer.offence}`, `npm run test:fuzz -- --image ${image}`)
    }
  })
}
