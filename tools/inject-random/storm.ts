/** A storm of failures against one mount: what fell where, and how long it took to be dealt with. */
import type { ControlClient } from '../../src/control/client.ts'
import type { InjectRequest, InjectResult } from '../../src/fs/administration.ts'
import { type Draw, draws } from './draws.ts'

export interface StormOptions {
  readonly seed: number
  readonly count: number
  /** Longest failure, bytes. */
  readonly most: number
  readonly method: InjectRequest['method']
  /** Inodes that are left alone. */
  readonly spare: ReadonlySet<number>
  /** Metadata, too: the first hit on what is in use ends the storm, and the mount. */
  readonly metadata: boolean
  /** Instead of drawing: what an earlier storm did. */
  readonly replay?: readonly Draw[]
  readonly onFailure?: (failure: Failure, number: number) => void
}

export interface Failure extends Draw {
  readonly kind: InjectResult['kind']
  readonly inodes: number[]
  readonly handlesKilled: number
  readonly shutdown: boolean
  /** From the failure until every handle is dead and every mapping revoked. */
  readonly milliseconds: number
}

export interface StormResult {
  readonly failures: Failure[]
  /** Draws that met what is to be left alone. */
  readonly skipped: number
}

export async function storm(control: ControlClient, options: StormOptions): Promise<StormResult> {
  const { regionSize } = await control.call('status', {})
  const failures: Failure[] = []
  let skipped = 0
  const source = options.replay ?? draws(options.seed, regionSize, options.most)
  for (const draw of source) {
    if (failures.length >= options.count) break
    // A region that is all metadata or spared files would never be hit.
    if (skipped > 100 * options.count + 1000) break
    if (options.replay === undefined && !(await mayHit(control, draw, options))) {
      skipped++
      continue
    }
    const failure = await strike(control, draw, options.method)
    failures.push(failure)
    options.onFailure?.(failure, failures.length)
    if (failure.shutdown) break
  }
  return { failures, skipped }
}

async function strike(
  control: ControlClient,
  { offset, length }: Draw,
  method: InjectRequest['method'],
): Promise<Failure> {
  const target = { kind: 'offset', offset } as const
  const result = await control.call('inject', { target, length, method })
  const { kind, inodes, handlesKilled, shutdown, milliseconds } = result
  return { offset, length, kind, inodes, handlesKilled, shutdown, milliseconds }
}

async function mayHit(
  control: ControlClient,
  { offset, length }: Draw,
  { spare, metadata }: StormOptions,
): Promise<boolean> {
  const rows = await control.call('rmap', { offset, length, limit: 4096 })
  return rows.every(({ owner }) => {
    if (typeof owner === 'number') return !spare.has(owner)
    return metadata || owner === 'free' || owner === 'poison'
  })
}

/** The value that `part` of all do not exceed. */
export function percentile(values: readonly number[], part: number): number {
  const sorted = [...values].sort((a, b) => a - b)
  return sorted[Math.min(sorted.length - 1, Math.floor(sorted.length * part))] ?? 0
}
