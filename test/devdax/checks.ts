/** Runs checks one after the other and prints one line each; the harness counts the lines. */

const LIMIT_MS = 240_000

/** Thrown by a check that cannot be made here. */
class Skipped extends Error {}

export function skip(why: string): never {
  throw new Skipped(why)
}

export class Checks {
  failed = 0
  readonly #align: string

  constructor(align: string) {
    this.#align = align
  }

  /** A failure does not stop the checks that follow. */
  async check(name: string, body: () => Promise<void> | void): Promise<void> {
    const started = performance.now()
    const title = `${this.#align}: ${name}`
    try {
      await withLimit(Promise.resolve().then(body))
      print(`ok    ${title} (${Math.round(performance.now() - started)} ms)`)
    } catch (error) {
      if (error instanceof Skipped) {
        print(`skipped ${title}: ${error.message}`)
        return
      }
      this.failed++
      print(`FAILED ${title}`)
      const lines = ((error as Error).stack ?? String(error)).split('\n').filter(Boolean)
      for (const line of lines.filter((text) => !/node:internal|checks\.ts|guest\.ts/.test(text))) {
        print(line)
      }
    }
  }
}

function print(line: string): void {
  process.stdout.write(`${line}\n`)
}

async function withLimit(work: Promise<void>): Promise<void> {
  let timer: NodeJS.Timeout | undefined
  const limit = new Promise<never>((_resolve, reject) => {
    const sentence = `it took longer than ${LIMIT_MS / 1000} s`
    timer = setTimeout(() => reject(new Error(sentence)), LIMIT_MS)
  })
  try {
    await Promise.race([work, limit])
  } finally {
    clearTimeout(timer)
  }
}
