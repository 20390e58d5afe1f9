/**
 * Judges images in a child process with a watchdog: an image that hangs, crashes the process or
 * takes too much memory is an offence like any other.
 */
import { type ChildProcess, fork } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import type { Answer, Task } from './worker.ts'

const WORKER = fileURLToPath(new URL('./worker.ts', import.meta.url))
/** Of the process's own time: on a busy machine the clock on the wall says little. */
const HANG_MS = 2000
/** Wall time after which not even a starved process is waited for. */
const STARVED_MS = 20_000
const START_MS = 60_000
const MEMORY_MAX = 1024 ** 3

export class Runner {
  #child: ChildProcess | undefined

  /** The answer to one task; never rejects for what an image does. */
  async judge(task: Task): Promise<Answer> {
    const child = await this.#worker()
    const answer = await ask(child, task)
    const broken = answer.offence === GONE || answer.offence === HANGS
    if (broken || answer.memory > MEMORY_MAX) this.close()
    if (answer.memory <= MEMORY_MAX || answer.offence !== undefined) return answer
    return { ...answer, offence: `it took ${Math.round(answer.memory / 2 ** 20)} MiB of memory` }
  }

  close(): void {
    this.#child?.kill('SIGKILL')
    this.#child = undefined
  }

  async #worker(): Promise<ChildProcess> {
    if (this.#child?.connected) return this.#child
    const child = fork(WORKER, [], {
      execArgv: ['--import=tsx', '--max-old-space-size=512'],
      stdio: ['ignore', 'ignore', 'ignore', 'ipc'],
    })
    this.#child = child
    await new Promise<void>((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error('the worker did not start')), START_MS)
      child.once('message', () => {
        clearTimeout(timer)
        resolve()
      })
      child.once('exit', () => reject(new Error('the worker died at its start')))
    })
    child.removeAllListeners('exit')
    return child
  }
}

const GONE = 'the process died'
const HANGS = `it hangs: more than ${HANG_MS} ms`

function ask(child: ChildProcess, task: Task): Promise<Answer> {
  return new Promise((resolve) => {
    const began = cpuOf(child)
    const started = Date.now()
    const watchdog = setInterval(() => {
      const worked = cpuOf(child) - began
      if (worked > HANG_MS || Date.now() - started > STARVED_MS) end({ offence: HANGS, memory: 0 })
    }, 250)
    const end = (answer: Answer) => {
      clearInterval(watchdog)
      child.off('message', end).off('exit', gone)
      resolve(answer)
    }
    const gone = () => end({ offence: GONE, memory: 0 })
    child.once('message', end).once('exit', gone)
    child.send(task)
  })
}

/** Milliseconds the process has worked so far. */
function cpuOf({ pid }: ChildProcess): number {
  try {
    const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]!.split(' ')
    // utime and stime, in hundredths of a second.
    return 10 * (Number(fields[11]) + Number(fields[12]))
  } catch {
    return 0
  }
}
