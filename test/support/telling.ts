/** Clients in Python that tell, line by line, how they fared; each line is an assertion. */
import { fileURLToPath } from 'node:url'
import type { Test } from 'tap'
import { type MountedRegion, runClient } from './mounts.ts'

const CLIENTS = fileURLToPath(new URL('../clients/', import.meta.url))

/** The path of a client: 'abuse.py'. */
export function clientPath(name: string): string {
  return `${CLIENTS}${name}`
}

/**
 * Runs `name KIND MOUNTPOINT WORD…`. It does not start in the mount: nothing may be running there
 * when it is taken down.
 */
export async function tellingClient(
  t: Pick<Test, 'ok' | 'equal'>,
  mount: MountedRegion,
  name: string,
  [kind, ...rest]: readonly [kind: string, ...rest: string[]],
  timeoutMs = 120_000,
): Promise<void> {
  const command = ['python3', '-B', clientPath(name), kind, mount.mountpoint, ...rest]
  const { status, stdout, stderr } = await runClient(command, { timeoutMs })
  for (const line of stdout.trim().split('\n').filter(Boolean)) {
    const [what, ok, detail] = JSON.parse(line) as [string, boolean, string]
    t.ok(ok, ok ? what : `${what} (${detail})`)
  }
  t.equal(status, 0, stderr === '' ? `the client comes to its end: ${kind}` : stderr)
}
