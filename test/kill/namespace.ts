/**
 * A mount namespace of our own, so that programs can be shown another boot of the host: after a
 * power failure its boot id is another one. Mounts in it are gone when its last process is.
 */
import { randomUUID } from 'node:crypto'
import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { runClient } from '../support/mounts.ts'

const BOOT_ID = '/proc/sys/kernel/random/boot_id'

/**
 * A namespace keeps every mount that was there when it was made, and a FUSE mount that is kept
 * keeps its daemon: those of others are let go. Read first: the list changes with every umount.
 */
const LET_GO = `
mounts=$(cat /proc/self/mounts)
while read -r _ place type _; do
  case $type in fuse*) umount -l "$(printf %b "$place")";; esac
done <<< "$mounts"
exec "$@"`

/** The command, in a namespace of its own; needs root. */
export function inNamespace(command: readonly string[]): string[] {
  const unshare = ['unshare', '--mount', '--propagation', 'private']
  return [...unshare, 'bash', '-c', LET_GO, 'bash', ...command]
}

/** The boots of this host, as programs in this namespace see them. */
export class Boots {
  readonly #path: string

  private constructor(path: string) {
    this.#path = path
  }

  /** Throws when this namespace is the host's own. */
  static async begin(directory: string): Promise<Boots> {
    const path = join(directory, 'boot-id')
    writeFileSync(path, readFileSync(BOOT_ID))
    const own = await runClient(
      'test "$(readlink /proc/self/ns/mnt)" != "$(readlink /proc/1/ns/mnt)"',
    )
    if (own.status !== 0) throw new Error('not in a mount namespace of its own')
    const bound = await runClient(['mount', '--bind', path, BOOT_ID])
    if (bound.status !== 0) throw new Error(`cannot show another boot id: ${bound.stderr.trim()}`)
    return new Boots(path)
  }

  next(): void {
    writeFileSync(this.#path, `${randomUUID()}\n`)
  }

  async end(): Promise<void> {
    await runClient(['umount', '-l', BOOT_ID])
  }
}
