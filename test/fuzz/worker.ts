/** A process that judges images one by one; its parent watches the clock. */
import { applyMutations } from './apply.ts'
import { copyOfBase } from './bases.ts'
import { generate } from './generate.ts'
import type { Mutation } from './mutation.ts'
import { judge, type Outcome } from './verdict.ts'

export type Task =
  | { seed: number }
  | { base: string; mutations: readonly Mutation[] }
  /** To see that the watchdog bites. */
  | { hang: true }

export interface Answer {
  readonly outcome?: Outcome
  readonly offence?: string
  /** Most memory this process ever had, bytes. */
  readonly memory: number
}

process.on('message', (task: Task) => {
  void work(task).then((answer) => process.send?.(answer))
})
process.on('disconnect', () => process.exit(0))
process.on('unhandledRejection', (error) => {
  process.send?.({ offence: `nobody waited for: ${(error as Error).stack}`, memory: 0 })
})

async function work(task: Task): Promise<Answer> {
  while ('hang' in task);
  const { base, mutations } = 'seed' in task ? generate(task.seed) : task
  const answer = await attempt(base, mutations)
  return { ...answer, memory: process.resourceUsage().maxRSS * 1024 }
}

async function attempt(base: string, mutations: readonly Mutation[]) {
  const memory = await copyOfBase(base)
  try {
    applyMutations(memory, mutations)
  } catch (error) {
    return { offence: `the fuzzer itself: ${(error as Error).stack}` }
  }
  try {
    return {
      outcome: await judge(
        memory,
        mutations.some(({ kind }) => kind === 'poison'),
      ),
    }
  } catch (error) {
    return { offence: (error as Error).message }
  }
}

// The bases are made before the clock runs.
for (const base of ['clean', 'crashed', 'paged', 'poisoned', 'shutdown', 'fresh']) {
  await copyOfBase(base)
}
process.send?.({ memory: 0 } satisfies Answer)
