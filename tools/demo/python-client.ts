/**
 * A process that uses files and can be asked about it while memory fails under it: Python, since
 * JavaScript has no mmap, and since it may die of SIGBUS without taking us along.
 */
import { type ChildProcess, spawn } from 'node:child_process'
import { createInterface } from 'node:readline'

/** Runs the set-up, then evaluates each line of stdin and answers with a line of JSON. */
const SERVER = `
import errno, json, mmap, os, sys, threading, time
scope = {"errno": errno, "mmap": mmap, "os": os, "sys": sys, "threading": threading, "time": time}
def attempt(run):
    try:
        value = run()
        return {"ok": True, "value": value.hex() if isinstance(value, bytes) else value}
    except OSError as error:
        return {"ok": False, "error": errno.errorcode.get(error.errno, str(error.errno))}
setup = sys.argv[1]
print(json.dumps(attempt(lambda: exec(setup, scope))), flush=True)
for line in sys.stdin:
    print(json.dumps(attempt(lambda: eval(line, scope)), default=str), flush=True)
`

export interface Answer<T = string | number | null> {
  ok: boolean
  /** Bytes come as hexadecimal digits. */
  value?: T
  /** Name of the errno: 'EIO'. */
  error?: string
}

const ANSWER_LIMIT_MS = 20_000

export class PythonClient {
  readonly process: ChildProcess
  /** The signal that killed it, or its exit code. */
  readonly ended: Promise<NodeJS.Signals | number>
  /** How the set-up went; undefined when the process died of it. */
  readonly ready: Promise<Answer | undefined>
  /** Who waits for the next line, in order. */
  readonly #waiting: ((line: string | undefined) => void)[] = []

  /** `setup` is Python; the modules errno, mmap, os, sys, threading and time are imported. */
  constructor(setup: string, args: readonly string[] = [], limitMs = ANSWER_LIMIT_MS) {
    this.process = spawn('python3', ['-u', '-c', SERVER, setup, ...args], {
      stdio: ['pipe', 'pipe', 'inherit'],
    })
    this.process.stdin?.on('error', () => undefined)
    createInterface({ input: this.process.stdout! }).on('line', (line) =>
      this.#waiting.shift()?.(line),
    )
    this.ended = new Promise((resolve) => {
      this.process.on('error', () => resolve(127))
      this.process.on('close', (code, signal) => resolve(signal ?? code ?? 0))
    })
    this.ended.then(() => {
      for (const answer of this.#waiting.splice(0)) answer(undefined)
    })
    this.ready = this.#next<Answer>('set-up', limitMs)
  }

  /**
   * Evaluates an expression over what the set-up defined; undefined when the process died of it.
   * Rejects, and kills the process, when there is no answer in time.
   */
  evaluate<T = string | number | null>(
    expression: string,
    limitMs = ANSWER_LIMIT_MS,
  ): Promise<Answer<T> | undefined> {
    if (this.process.exitCode !== null || this.process.signalCode !== null) {
      return Promise.resolve(undefined)
    }
    this.process.stdin?.write(`${expression.replaceAll('\n', ' ')}\n`)
    return this.#next<Answer<T>>(expression, limitMs)
  }

  /** Lets it run to its end, files closed. */
  async end(): Promise<void> {
    this.process.stdin?.end()
    await this.ended
  }

  /** Kills it; resolves when it is gone, and with it its files and its mappings. */
  async stop(): Promise<void> {
    this.process.kill('SIGKILL')
    await this.ended
  }

  #next<T>(what: string, limitMs = ANSWER_LIMIT_MS): Promise<T | undefined> {
    return new Promise((resolve, reject) => {
      const limit = setTimeout(() => {
        this.process.kill('SIGKILL')
        reject(new Error(`no answer to '${what}' within ${limitMs} ms`))
      }, limitMs)
      this.#waiting.push((line) => {
        clearTimeout(limit)
        resolve(line === undefined ? undefined : (JSON.parse(line) as T))
      })
    })
  }
}
