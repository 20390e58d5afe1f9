/** Programs of the host that the harness runs to their end. */
import { spawnSync } from 'node:child_process'
import { NoGuestError } from './errors.ts'

const PATH = `${process.env.PATH ?? ''}:/usr/local/sbin:/usr/sbin:/sbin`
const LIMIT_MS = 300_000

/** Standard output of a command; a command that fails means that there is no guest. */
export function output(command: readonly string[], input?: Buffer, cwd?: string): Buffer {
  const [program, ...args] = command as [string, ...string[]]
  const { status, stdout, stderr, error } = spawnSync(program, args, {
    env: { ...process.env, PATH, LC_ALL: 'C' },
    maxBuffer: 2 ** 30,
    timeout: LIMIT_MS,
    ...(input === undefined ? {} : { input }),
    ...(cwd === undefined ? {} : { cwd }),
  })
  if (error !== undefined) throw new NoGuestError(`${program}: ${error.message}`)
  if (status !== 0) {
    const last = stderr.toString().trim().split('\n').at(-1) ?? ''
    throw new NoGuestError(`${command.slice(0, 3).join(' ')}… failed (${status}): ${last}`)
  }
  return stdout
}
