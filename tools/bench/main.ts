/** `npm run bench`: how fast holdfast is, beside what else there is; and how it grows. */
import { parseArgs } from 'node:util'
import { compare, print } from './compare.ts'
import { FULL, JOBS, QUICK } from './jobs.ts'
import { TARGET_NAMES } from './targets.ts'

const HELP = `usage: npm run bench -- [OPTION…]
  (none)            compare holdfast with tmpfs, ext4 on a loop file and bindfs
  --quick           small files, one round: to see that it works, not to quote
  --rounds N        rounds (default 5)
  --only PART,…     jobs whose name contains a part:
                    ${JOBS.map(({ name }) => name).join('; ')}
  --targets PART,…  filesystems whose name contains a part:
                    ${TARGET_NAMES.join('; ')}
  --scale           growth: mount, lookup, create, rmap and memory with 1k … 1M files
  --max N           most files for --scale (default 1000000)
  --memory          memory of the daemon with 100,000 files, and its idle CPU time
  --failure         from a memory failure to its last consequence (100,000 extents, 1,000 handles)
  --striped         sequential I/O over a stripe set of two devices, beside one device
  --json            everything that was measured, as JSON
`

export async function main(args: readonly string[]): Promise<number> {
  const { values } = parseArgs({
    args: [...args],
    options: {
      help: { type: 'boolean', short: 'h', default: false },
      quick: { type: 'boolean', default: false },
      rounds: { type: 'string' },
      only: { type: 'string', default: '' },
      targets: { type: 'string', default: '' },
      scale: { type: 'boolean', default: false },
      max: { type: 'string', default: '1000000' },
      memory: { type: 'boolean', default: false },
      failure: { type: 'boolean', default: false },
      striped: { type: 'boolean', default: false },
      json: { type: 'boolean', default: false },
    },
  })
  if (values.help) {
    process.stdout.write(HELP)
    return 0
  }
  const progress = (line: string) => process.stderr.write(`bench: ${line}\n`)
  const show = (json: unknown, text: string) =>
    process.stdout.write(`${values.json ? JSON.stringify(json, null, 2) : text}\n`)
  if (values.scale) {
    const { growth, printGrowth } = await import('./growth.ts')
    const result = await growth(Number(values.max), progress)
    show(result, printGrowth(result))
  } else if (values.failure) {
    const { failureLatency, printFailureLatency } = await import('./failure.ts')
    const scale = { files: values.quick ? 100 : 1000, extents: 100 }
    const result = await failureLatency(scale, progress)
    show(result, printFailureLatency(result))
  } else if (values.striped) {
    const { printStriped, striped } = await import('./striped.ts')
    const rounds = values.rounds ? Number(values.rounds) : values.quick ? 1 : 5
    const result = await striped(values.quick ? QUICK : FULL, rounds, progress)
    show(result, printStriped(result))
  } else if (values.memory) {
    const { memory, printMemory } = await import('./memory.ts')
    const result = await memory(values.quick ? 10_000 : 100_000, progress)
    show(result, printMemory(result))
  } else {
    const result = await compare({
      scale: values.quick ? QUICK : FULL,
      rounds: values.rounds ? Number(values.rounds) : values.quick ? 1 : 5,
      targets: list(values.targets),
      jobs: list(values.only),
      progress,
    })
    show(result, print(result))
  }
  return 0
}

function list(text: string): string[] {
  return text.split(',').filter((part) => part !== '')
}
