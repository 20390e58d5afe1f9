/** The demo's transcript. Every claim is checked; the first that is false ends the demo. */
import {
  type Outcome,
  type Program,
  ROOT,
  type RunOptions,
  run,
  runProgram,
} from '../quickstart/programs.ts'

export class DemoFailure extends Error {}

const SHOWN_LINES = 12

export class Transcript {
  readonly #directory: string
  #step = 0
  #checks = 0
  readonly #started = performance.now()

  /** Paths below `directory` are shown relative to it: commands run there. */
  constructor(directory: string) {
    this.#directory = directory
  }

  step(title: string): void {
    this.#step += 1
    this.#print(`\n${this.#step}. ${title}`)
  }

  note(text: string): void {
    this.#print(`   ${text}`)
  }

  /** A claim, and whether the program has found it true; `detail` is for the failure. */
  check(claim: string, holds: boolean, detail: unknown = ''): void {
    if (!holds) throw new DemoFailure(`${claim}: not so ${JSON.stringify(detail)}`)
    this.#checks += 1
    this.#print(`   ok  ${claim}`)
  }

  /** Runs one of our programs as the reader would, shows it and what it printed. */
  async program(program: Program, args: readonly string[]): Promise<Outcome> {
    this.#print(`   $ ${program} ${args.join(' ')}`)
    return this.#show(await runProgram(program, args, this.#options()))
  }

  /** The same for a shell command. */
  async shell(command: string): Promise<Outcome> {
    this.#print(`   $ ${command}`)
    return this.#show(await run(['bash', '-c', command], this.#options()))
  }

  /** A shell command that is not part of the story. */
  behindTheScenes(command: string): Promise<Outcome> {
    return run(['bash', '-c', command], this.#options())
  }

  end(): void {
    const seconds = Math.round((performance.now() - this.#started) / 1000)
    this.#print(`\nAll ${this.#checks} checks passed in ${seconds} s.`)
  }

  #options(): RunOptions {
    return { cwd: this.#directory, timeoutMs: 300_000 }
  }

  #show(outcome: Outcome): Outcome {
    if (outcome.timedOut) throw new DemoFailure('this did not come to its end')
    const text = `${outcome.stdout}${outcome.stderr}`.trimEnd()
    if (text === '') return outcome
    const lines = text.split('\n')
    for (const line of lines.slice(0, SHOWN_LINES)) this.#print(`     ${line}`.trimEnd())
    if (lines.length > SHOWN_LINES) this.#print(`     … (${lines.length - SHOWN_LINES} more lines)`)
    return outcome
  }

  #print(line: string): void {
    const text = line.replaceAll(`${this.#directory}/`, '').replaceAll(`${ROOT}/`, '')
    process.stdout.write(`${text}\n`)
  }
}
