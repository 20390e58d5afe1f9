/**
 * What several commands share: talking to the daemon of a target, and options they have in common.
 */
import { type Command, InvalidArgumentError } from 'commander'
import type { ControlClient } from '../../control/client.ts'
import type { Target } from '../../control/target.ts'
import { parseSize } from '../sizes.ts'

/** Connects to the target's daemon, hangs up when `work` is done. */
export async function withDaemon<T>(
  target: Target,
  work: (client: ControlClient) => Promise<T>,
): Promise<T> {
  const { connectTo } = await import('../../control/target.ts')
  const client = await connectTo(target)
  try {
    return await work(client)
  } finally {
    client.close()
  }
}

/** The same for what a person typed. */
export async function withTarget<T>(
  text: string,
  work: (client: ControlClient, target: Target) => Promise<T>,
): Promise<T> {
  const { resolveTarget } = await import('../../control/target.ts')
  const target = resolveTarget(text)
  return withDaemon(target, (client) => work(client, target))
}

export function jsonOption(command: Command): Command {
  return command.option('--json', 'print JSON')
}

/** For commander: a size, or its complaint about the option. */
export function sizeArgument(text: string): number {
  try {
    return parseSize(text)
  } catch {
    throw new InvalidArgumentError('Give bytes, or a number with K, M, G or T.')
  }
}

/** Where a mounted target is to be seen. */
export function placeOf(target: Target): string {
  return target.mount?.mountpoint ?? target.holder?.mountpoint ?? target.region
}
