/** One sequence of steps, with failing memory, on a subject and on the model, compared. */
import { type Answer, FailureModel, settle } from './failure-model.ts'
import { BLOCK, type Doubt, FILE_MAX } from './file-model.ts'
import { NAMES, type Step, Steps } from './steps.ts'
import type { Place, Subject } from './subject.ts'

/** Steps before the one that went wrong that are told. */
const TOLD = 20

/** Undefined when all is as the model says, else what is not and how it came about. */
export async function compareWithModel(
  subject: Subject,
  seed: number,
  operations: number,
): Promise<string | undefined> {
  const trace: string[] = []
  const wrong = await play(subject, seed, operations, trace).catch((error: Error) => error.message)
  const atTheEnd = await subject.end().catch((error: Error) => error.message)
  if (wrong === undefined) return atTheEnd
  return [...trace.slice(-TOLD), `operation ${trace.length}: ${wrong}`].join('\n')
}

async function play(
  subject: Subject,
  seed: number,
  operations: number,
  trace: string[],
): Promise<string | undefined> {
  const model = new FailureModel(subject)
  const steps = new Steps(seed, subject.without)
  const one = async (step: Step): Promise<string | undefined> => {
    const said = await subject.perform(step)
    const answer = model.apply(step, said)
    trace.push(`${JSON.stringify(step)} ${said}`)
    if (said !== answer.expected) return `not ${answer.expected}`
    return settleAll(subject, model, answer)
  }
  for (let number = 0; number < operations; number++) {
    const wrong = await one(steps.next(model))
    if (wrong !== undefined) return wrong
  }
  // What is there in the end is what the next mount finds.
  for (const step of [{ do: 'remount' } as const, ...lastLook(model)]) {
    const wrong = await one(step)
    if (wrong !== undefined) return wrong
  }
  return undefined
}

function lastLook(model: FailureModel): Step[] {
  const handle = 0
  const looks = NAMES.filter((name) => model.names.has(name)).flatMap((name): Step[] => [
    { do: 'open', handle, name },
    ...Array.from({ length: FILE_MAX / BLOCK }, (_, block): Step => {
      return { do: 'read', handle, offset: block * BLOCK, length: BLOCK }
    }),
    { do: 'extents', ino: model.names.get(name)!.ino },
  ])
  return [...looks, { do: 'status' }]
}

/** Looks at the bytes of which the model is not sure. */
async function settleAll(
  subject: Subject,
  model: FailureModel,
  { doubts }: Answer,
): Promise<string | undefined> {
  for (const doubt of doubts) {
    const place = placeOf(model, doubt)
    if (place === undefined) continue
    const { file, offset } = doubt
    const end = Math.min(doubt.end, file.size)
    for (let at = offset; at < end; at = (Math.floor(at / BLOCK) + 1) * BLOCK) {
      const stop = Math.min(end, (Math.floor(at / BLOCK) + 1) * BLOCK)
      if (file.unreadable(at, stop) !== undefined) continue
      const seen = await subject.peek(place, at, stop - at)
      const wrong = seen.length === stop - at ? settle(doubt, at, seen) : at + seen.length
      if (wrong !== undefined) return `byte ${wrong} of inode ${file.ino} is neither old nor new`
    }
  }
  return undefined
}

/** Nobody can see the bytes of a file that has neither a name nor a living handle or mapping. */
function placeOf({ names, handles, maps }: FailureModel, { file }: Doubt): Place | undefined {
  for (const [name, named] of names) if (named === file) return { name }
  for (const [handle, open] of handles) if (open.file === file && !open.dead) return { handle }
  for (const [map, open] of maps) if (open.file === file && !open.dead) return { map }
  return undefined
}
