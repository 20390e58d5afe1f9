/**
 * Who uses a mount. Only links and tables of /proc are read: a stat of what they lead to would be a
 * request to the filesystem itself, and the one who asks may be its daemon.
 */
import { readdirSync, readFileSync, readlinkSync } from 'node:fs'
import { type Mount, readMounts } from '../control/mountinfo.ts'

export interface MountUser {
  readonly pid: number
  readonly command: string
  /** 'working directory', 'open file', … */
  readonly use: string
  readonly path: string
}

const LINKS = [
  ['cwd', 'working directory'],
  ['root', 'root directory'],
  ['exe', 'program'],
] as const

export function usersOf(mount: Mount): MountUser[] {
  const users: MountUser[] = []
  for (const entry of readdirSync('/proc')) {
    if (!/^\d+$/.test(entry) || Number(entry) === process.pid) continue
    const use = useBy(Number(entry), mount)
    if (use !== undefined) users.push({ pid: Number(entry), command: commandOf(entry), ...use })
  }
  return users
}

/** The first use found; one is enough to name a process. */
function useBy(pid: number, mount: Mount): { use: string; path: string } | undefined {
  for (const [link, use] of LINKS) {
    const path = readLink(`/proc/${pid}/${link}`)
    if (path !== undefined && isBelow(path, mount.mountpoint)) return { use, path }
  }
  for (const fd of list(`/proc/${pid}/fd`)) {
    const path = readLink(`/proc/${pid}/fd/${fd}`)
    if (path !== undefined && isBelow(path, mount.mountpoint)) return { use: 'open file', path }
  }
  const path = mappedFile(pid, mount.device)
  return path === undefined ? undefined : { use: 'mapped file', path }
}

export function isBelow(path: string, directory: string): boolean {
  return path === directory || path.startsWith(directory === '/' ? '/' : `${directory}/`)
}

/** Lines of maps: `range perms offset major:minor inode path`, the device in hexadecimal. */
function mappedFile(pid: number, device: string): string | undefined {
  const [major, minor] = device.split(':').map((part) => Number(part).toString(16).padStart(2, '0'))
  const wanted = ` ${major}:${minor} `
  const line = read(`/proc/${pid}/maps`)
    .split('\n')
    .find((candidate) => candidate.includes(wanted))
  return line?.replace(/^(?:\S+\s+){5}/, '')
}

/** 'bash (pid 12, working directory /mnt/a), …', or undefined when nobody is to be seen. */
export function nameUsers(mount: Mount, limit = 5): string | undefined {
  const nested = readMounts()
    .filter(({ mountpoint }) => mountpoint !== mount.mountpoint)
    .filter(({ mountpoint }) => isBelow(mountpoint, mount.mountpoint))
    .map(({ mountpoint }) => `a mount on ${mountpoint}`)
  const users = usersOf(mount).map(
    ({ command, pid, use, path }) => `${command} (pid ${pid}, ${use} ${path})`,
  )
  const all = [...users, ...nested]
  if (all.length === 0) return undefined
  const more = all.length > limit ? ` and ${all.length - limit} more` : ''
  return all.slice(0, limit).join(', ') + more
}

function commandOf(pid: string): string {
  return read(`/proc/${pid}/comm`).trim() || 'a process'
}

function readLink(path: string): string | undefined {
  try {
    return readlinkSync(path)
  } catch {
    return undefined
  }
}

function list(path: string): string[] {
  try {
    return readdirSync(path)
  } catch {
    return []
  }
}

function read(path: string): string {
  try {
    return readFileSync(path, 'utf8')
  } catch {
    return ''
  }
}
