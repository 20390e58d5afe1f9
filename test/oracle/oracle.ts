/**
 * The same random system calls on a mount and on tmpfs: every result must be the same, to the byte
 * and to the errno. What is compared, and what is left out, says client.py.
 */
import { mkdirSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { runClient } from '../support/mounts.ts'

const CLIENT = fileURLToPath(new URL('client.py', import.meta.url))
const SECONDS_PER_1000 = 10

export interface Sequence {
  readonly seed: number
  /** Does a write allocate at once? */
  readonly blocks: boolean
  readonly operations: number
}

/** Undefined when they agree, else the first call that differed, with both results. */
export async function compare(
  mountpoint: string,
  tmpfs: string,
  sequence: Sequence,
): Promise<string | undefined> {
  const [ours, theirs] = await Promise.all([record(mountpoint, sequence), record(tmpfs, sequence)])
  const at = ours.findIndex((line, index) => line !== theirs[index])
  if (at === -1 && ours.length === theirs.length) return undefined
  return `holdfast: ${ours[at]}\ntmpfs:    ${theirs[at]}`
}

/** The lines of one run in a fresh directory below `place`. */
async function record(place: string, sequence: Sequence): Promise<string[]> {
  const { seed, operations, blocks } = sequence
  const directory = join(place, `seed-${seed}`)
  const command = `mkdir "$0" && python3 "$1" "$0" "$2" "$3" 0 "$4"; status=$?; rm -rf "$0"; exit $status`
  const words = ['bash', '-c', command, directory, CLIENT, String(seed), String(operations)]
  words.push(blocks ? 'blocks' : '')
  const timeoutMs = 20_000 + (operations / 1000) * SECONDS_PER_1000 * 1000
  const outcome = await runClient(words, { timeoutMs })
  if (outcome.status !== 0) throw new Error(`seed ${seed}: ${outcome.stderr}`)
  return outcome.stdout.trimEnd().split('\n')
}

/** A tmpfs of our own, without the options that /dev/shm has (nodev, nosuid). */
export async function mountTmpfs(
  directory: string,
): Promise<{ path: string; end(): Promise<void> }> {
  const path = join(directory, 'tmpfs')
  mkdirSync(path)
  const made = await runClient(['mount', '-t', 'tmpfs', '-o', 'size=2G', 'tmpfs', path])
  if (made.status !== 0) throw new Error(made.stderr)
  return {
    path,
    async end() {
      await runClient(['umount', '-l', path])
      rmSync(path, { recursive: true })
    },
  }
}
