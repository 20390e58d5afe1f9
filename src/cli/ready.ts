/**
 * How a background daemon tells the command that started it that the mount is there, or why not:
 * one line of JSON on a pipe that both know by its number.
 */
import { closeSync, writeSync } from 'node:fs'
import { MOUNT_FAILED } from './errors.ts'

/** Set in the daemon's environment: the descriptor of the pipe. */
export const READY_VARIABLE = 'HOLDFAST_READY_FD'
export const READY_FD = 3

export type Readiness = { ready: true; pid: number } | { ready: false; error: string; code: number }

/** True in a process that was started to be a daemon. */
export function isDaemon(): boolean {
  return process.env[READY_VARIABLE] === `${READY_FD}`
}

/** Tells the waiting command; only the first call does anything. */
export function reportReadiness(readiness: Readiness): void {
  if (!isDaemon()) return
  delete process.env[READY_VARIABLE]
  try {
    writeSync(READY_FD, `${JSON.stringify(readiness)}\n`)
    closeSync(READY_FD)
  } catch {
    // Whoever started us has given up waiting; the mount stands all the same.
  }
}

/** What a daemon wrote before it closed the pipe; undefined when it died without a word. */
export function parseReadiness(text: string): Readiness | undefined {
  try {
    const value = JSON.parse(text) as Partial<{ ready: boolean; error: string; code: number }>
    if (value.ready === true) return value as Readiness
    return { ready: false, error: `${value.error}`, code: Number(value.code ?? MOUNT_FAILED) }
  } catch {
    return undefined
  }
}
