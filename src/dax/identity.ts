/** Who we are on this host: what tells one boot, one process, one machine from another. */
import { readFileSync } from 'node:fs'
import { hostname } from 'node:os'

export { hostname }

let boot: string | undefined

/** Changes with every boot of the host; 36 characters. */
export function bootId(): string {
  boot ??= readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim()
  return boot
}

/** Clock ticks after boot at which the process began; undefined when it is gone or hidden. */
export function processStartTime(pid: number): number | undefined {
  const ticks = Number(statFields(pid)?.[22 - 3])
  return Number.isSafeInteger(ticks) ? ticks : undefined
}

/** True when a process has this number now and, if told, began at `startTime`. */
export function processAlive(pid: number, startTime?: number): boolean {
  try {
    process.kill(pid, 0)
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EPERM') return false
  }
  // A zombie still answers to signals; what it held is free.
  const state = statFields(pid)?.[0]
  if (state === 'Z' || state === 'X') return false
  const now = processStartTime(pid)
  return startTime === undefined || now === undefined || now === startTime
}

/**
 * /proc/PID/stat from its third field on: the second, the name, may hold spaces and parentheses.
 */
function statFields(pid: number): string[] | undefined {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'utf8')
    return stat.slice(stat.lastIndexOf(')') + 2).split(' ')
  } catch {
    return undefined
  }
}
