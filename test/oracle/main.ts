/** `npm run test:model`: random system calls on a mount and on tmpfs, for as long as it is told. */
import { parseArgs } from 'node:util'
import { mountRegion, notRoot, scratch } from '../support/mounts.ts'
import { compare, mountTmpfs } from './oracle.ts'

const HELP = `usage: npm run test:model -- [OPTION…]
  --minutes N      how long (default 5)
  --operations N   … or how many system calls in all
  --seed S         the first sequence (default 1); the same seed gives the same
  --length N       system calls of one sequence (default 10000)
  --mode NAME      cache=keep (default), cache=auto, cache=none or writeback
`

export async function main(args: readonly string[]): Promise<number> {
  const { values } = parseArgs({
    args: [...args],
    options: {
      help: { type: 'boolean', short: 'h', default: false },
      minutes: { type: 'string', default: '5' },
      operations: { type: 'string' },
      seed: { type: 'string', default: '1' },
      length: { type: 'string', default: '10000' },
      mode: { type: 'string', default: 'cache=keep' },
    },
  })
  const [minutes, seed, length] = [values.minutes, values.seed, values.length].map(Number)
  const wanted =
    values.operations === undefined ? Number.POSITIVE_INFINITY : Number(values.operations)
  const sound = minutes! > 0 && Number.isSafeInteger(seed) && length! > 0 && wanted > 0
  if (values.help || !sound) {
    process.stdout.write(HELP)
    return values.help ? 0 : 2
  }
  const excuse = notRoot()
  if (excuse !== false) {
    process.stderr.write(`model: ${excuse}: it acts as several users\n`)
    return 2
  }
  const until =
    values.operations === undefined ? Date.now() + minutes! * 60_000 : Number.POSITIVE_INFINITY
  return campaign(values.mode, seed!, length!, wanted, until)
}

async function campaign(
  mode: string,
  first: number,
  length: number,
  wanted: number,
  until: number,
): Promise<number> {
  const tmpfs = await mountTmpfs(scratch('memory'))
  const options = ['allow_other', mode]
  const mount = await mountRegion({ size: '512M', on: 'memory', options })
  let done = 0
  let differences = 0
  for (let seed = first; done < wanted && Date.now() < until; seed++) {
    const operations = Math.min(length, wanted - done)
    const difference = await compare(mount.mountpoint, tmpfs.path, { seed, operations })
    done += operations
    if (difference !== undefined) {
      differences++
      const again = `npm run test:model -- --mode ${mode} --seed ${seed} --operations ${operations}`
      process.stdout.write(`model: seed ${seed} differs (${again}):\n${difference}\n`)
    }
    if ((seed - first) % 10 === 9) process.stdout.write(`model: ${done} system calls so far\n`)
  }
  await mount.unmount()
  await tmpfs.end()
  const found = differences === 1 ? '1 sequence differs' : `${differences} sequences differ`
  process.stdout.write(`model: ${done} system calls, ${found} (${mode}, from seed ${first})\n`)
  return differences === 0 ? 0 : 1
}
