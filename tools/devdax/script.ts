/** What the guest runs: a program of this checkout, which is at the same place there. */
import { execPath } from 'node:process'
import { fileURLToPath } from 'node:url'

const ROOT = fileURLToPath(new URL('../..', import.meta.url)).replace(/\/$/, '')

export function guestScript(program: string, args: readonly string[]): string {
  const command = [execPath, '--import=tsx', program, ...args].map(quoted)
  return `cd ${quoted(ROOT)} && exec ${command.join(' ')}\n`
}

function quoted(word: string): string {
  return `'${word.replaceAll("'", "'\\''")}'`
}
