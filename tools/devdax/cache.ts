/** Where downloaded kernels are kept from one run to the next. */
import { closeSync, mkdirSync, openSync, rmSync } from 'node:fs'
import { isAbsolute, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { native } from '../../src/native/binding.ts'

const PAUSE_MS = 200

export function cacheDirectory(): string {
  const given = process.env.XDG_CACHE_HOME
  const parent = given !== undefined && isAbsolute(given) ? given : '/var/tmp'
  const directory = join(parent, 'holdfast-devdax')
  mkdirSync(directory, { recursive: true, mode: 0o700 })
  return directory
}

/** Runs `work` while no other run prepares the cache. A run that dies lets go of the lock. */
export async function alone<T>(directory: string, work: () => Promise<T> | T): Promise<T> {
  const fd = openSync(join(directory, 'lock'), 'a+', 0o600)
  try {
    while (!native.lockRange(fd, 0, 0, true)) await sleep(PAUSE_MS)
    return await work()
  } finally {
    closeSync(fd)
  }
}

/** A directory of the cache that is empty now. */
export function emptied(directory: string): string {
  rmSync(directory, { recursive: true, force: true })
  mkdirSync(directory, { recursive: true })
  return directory
}
