/** What a person did wrong or what went wrong, in one line, with the exit code it means. */

export const EXIT_OK = 0
export const EXIT_FAILED = 1
export const EXIT_USAGE = 2

/** The exit codes of mount(8), used by `holdfast mount` and mount.holdfast. */
export const MOUNT_USAGE = 1
export const MOUNT_SYSTEM = 2
export const MOUNT_FAILED = 32

export class CliError extends Error {
  readonly exitCode: number

  constructor(sentence: string, exitCode: number = EXIT_FAILED, options?: ErrorOptions) {
    super(sentence, options)
    this.name = 'CliError'
    this.exitCode = exitCode
  }
}

/** One line for stderr, whatever was thrown. */
export function sentenceOf(error: unknown): string {
  const text = error instanceof Error ? error.message : String(error)
  return text.replace(/\s*\n\s*/g, ' ').trim() || 'failed without a reason'
}

/** The `code` of a system error ('ENOENT'), or undefined. */
export function codeOf(error: unknown): string | undefined {
  if (!(error instanceof Error)) return undefined
  const code = (error as NodeJS.ErrnoException).code
  return typeof code === 'string' ? code : undefined
}

/** Prints `program: sentence` on stderr, and the stack when HOLDFAST_DEBUG is set. */
export function complain(program: string, error: unknown): void {
  process.stderr.write(`${program}: ${sentenceOf(error)}\n`)
  if (process.env.HOLDFAST_DEBUG && error instanceof Error) process.stderr.write(`${error.stack}\n`)
}
