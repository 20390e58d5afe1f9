/** Who uses a mount, for people. */
import { type Mount, readMounts } from '../control/mountinfo.ts'
import { lookAtProcesses, type Seen } from './processes.ts'

/** For who is in the middle of an unmap to be done with it; others are seen in a moment. */
const PATIENCE_MS = 3000

export function isBelow(path: string, directory: string): boolean {
  return path === directory || path.startsWith(directory === '/' ? '/' : `${directory}/`)
}

/** 'bash (pid 12, working directory /mnt/a), …', or undefined when nobody is to be seen. */
export async function nameUsers(mount: Mount, limit = 5): Promise<string | undefined> {
  const nested = readMounts()
    .filter(({ mountpoint }) => mountpoint !== mount.mountpoint)
    .filter(({ mountpoint }) => isBelow(mountpoint, mount.mountpoint))
    .map(({ mountpoint }) => `a mount on ${mountpoint}`)
  const users: Seen[] = []
  await lookAtProcesses(mount, PATIENCE_MS, (seen) => users.push(seen))
  users.sort((one, other) => one.pid - other.pid)
  const all = [...users.map(describe), ...nested]
  if (all.length === 0) return undefined
  const more = all.length > limit ? ` and ${all.length - limit} more` : ''
  return all.slice(0, limit).join(', ') + more
}

/** One use is enough to name a process. */
function describe({ pid, command, link, maps }: Seen): string {
  const { use, path } = link ?? { use: 'mapped file', path: pathOf(maps[0] ?? '') }
  return `${command || 'a process'} (pid ${pid}, ${use} ${path})`
}

/** The sixth field of a line of maps, which may hold spaces. */
function pathOf(line: string): string {
  return line.replace(/^(?:\S+\s+){5}/, '')
}
