/** The same random calls on the core and on tmpfs: every result must be the same. */
import { readFileSync } from 'node:fs'
import fc from 'fast-check'
import { PythonClient, scratch } from '../support/mounts.ts'
import { BEGINNING, type Call, call } from './calls.ts'
import { CoreCalls } from './core-calls.ts'
import { mountTmpfs } from './oracle.ts'

const CLIENT = readFileSync(new URL('calls.py', import.meta.url), 'utf8')
/** Of half of which a sequence consists as a rule. */
const CALLS_MAX = 160
const CALLS_MEAN = CALLS_MAX / 2
const LIMIT_MS = 60_000

/** About `operations` calls, in sequences; the first difference is shrunk. */
export async function compareCore(
  mode: 'cacheline' | 'page',
  seed: number,
  operations: number,
): Promise<string | undefined> {
  const tmpfs = await mountTmpfs(scratch('memory'))
  const client = new PythonClient(CLIENT, [tmpfs.path])
  try {
    const ready = await client.ready
    if (!ready?.ok) throw new Error(`the client cannot start: ${ready?.error ?? 'it died'}`)
    const sequence = fc.array(call, { minLength: 1, maxLength: CALLS_MAX, size: 'max' })
    const property = fc.asyncProperty(sequence, async (calls) => {
      const difference = await compareOne(client, mode, [...BEGINNING, ...calls])
      if (difference !== undefined) throw new Error(difference)
    })
    const numRuns = Math.ceil(operations / CALLS_MEAN)
    const { counterexample, errorInstance } = await fc.check(property, { seed, numRuns })
    if (counterexample === null) return undefined
    const calls = [...BEGINNING, ...counterexample[0]].map((one) => JSON.stringify(one))
    const why = errorInstance instanceof Error ? errorInstance.message : String(errorInstance)
    return [...calls, why].join('\n')
  } finally {
    await client.stop()
    await tmpfs.end()
  }
}

async function compareOne(
  client: PythonClient,
  mode: 'cacheline' | 'page',
  calls: readonly Call[],
): Promise<string | undefined> {
  const text = JSON.stringify(JSON.stringify(calls))
  const theirs = client.evaluate<string[]>(`run(${text})`, LIMIT_MS)
  const core = new CoreCalls(mode)
  const ours = await core.run(calls)
  const answer = await theirs
  if (!answer?.ok || answer.value === undefined) throw new Error(`tmpfs: ${answer?.error}`)
  const at = ours.findIndex((line, index) => line !== answer.value?.[index])
  if (at === -1) return core.end()
  const what = at < calls.length ? JSON.stringify(calls[at]) : 'in the end'
  return `${what}\nholdfast: ${ours[at]}\ntmpfs:    ${answer.value[at]}`
}
