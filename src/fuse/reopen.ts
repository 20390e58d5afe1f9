/** Revocation over fuse-native: a child that opens what the kernel is to forget. */
import { spawn } from 'node:child_process'
import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import type { Filesystem } from '../fs/filesystem.ts'
import { type KernelCache, ROOT_INODE } from '../fs/operations.ts'

/** How names end that only a retirement makes. */
export const RETIRING = `.holdfast-retiring-${randomUUID()}`
const REVOKE_LIMIT_MS = 10_000

const CHILD = `
const fs = require('fs')
const [suffix, ...paths] = process.argv.slice(1)
for (const path of paths) try {
  fs.closeSync(fs.openSync(path, 'r'))
  if (suffix === '') continue
  fs.linkSync(path, path + suffix)
  fs.renameSync(path + suffix, path)
} catch {}
`

/**
 * libfuse 2 has no notifications in the binding, but an open without keep_cache drops the pages of
 * the inode and unmaps them. Then the node is retired, or the pages of the next opener would be the
 * dead handle's too: a link (answered, but not made) gets a node of its own, and renamed over the
 * first name it leaves the old node to those who have it open.
 * A child does all that: this process must never use its own mount.
 */
async function reopen(files: readonly string[], suffix: string): Promise<void> {
  // Not by its path, which may lead into the mount by now.
  const child = spawn('/proc/self/exe', ['-e', CHILD, '--', suffix, ...files], {
    cwd: '/',
    stdio: 'ignore',
    timeout: REVOKE_LIMIT_MS,
    killSignal: 'SIGKILL',
    env: {},
  })
  await once(child, 'close')
}

/** Revocation for want of notifications, see reopen(). */
export class Reopener implements KernelCache {
  readonly #fs: Filesystem
  readonly #mountpoint: string
  /** Paths that answer after a shutdown, for as long as a revocation has to get through by them. */
  readonly #revoking: Map<string, number>

  constructor(fs: Filesystem, mountpoint: string, revoking: Map<string, number>) {
    this.#fs = fs
    this.#mountpoint = mountpoint
    this.#revoking = revoking
  }

  revoke(ino: number): Promise<void> {
    return this.#reopen(this.#paths(ino), RETIRING)
  }

  invalidate(ino: number): Promise<void> {
    return this.#reopen(this.#paths(ino))
  }

  /** Nothing can be opened any more, so these paths get an answer for as long as it takes. */
  async revokeAll(): Promise<void> {
    const { handles } = this.#fs.volume
    const inodes = new Set([...handles.all()].filter((h) => !h.directory).map((h) => h.ino))
    const revoking = this.#revoking
    const paths: string[] = []
    for (const ino of inodes) {
      for (const path of this.#paths(ino, revoking)) {
        revoking.set(path, ino)
        paths.push(path)
      }
    }
    await this.#reopen(paths).finally(() => revoking.clear())
  }

  #paths(ino: number, directories?: Map<string, number>): string[] {
    const { dirents } = this.#fs.volume.index
    return dirents.names(ino).flatMap(({ parent, name }) => {
      const above = parent === ROOT_INODE ? [''] : this.#paths(parent, directories)
      for (const path of above) if (path !== '') directories?.set(path, parent)
      return above.map((path) => `${path}/${name.toString('utf8')}`)
    })
  }

  async #reopen(paths: readonly string[], suffix = ''): Promise<void> {
    const files = paths.map((path) => this.#mountpoint + path)
    if (files.length > 0) await reopen(files, suffix)
  }
}
