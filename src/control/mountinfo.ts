/** The mounts a process sees, from /proc/PID/mountinfo. Reading it never touches a mount. */
import { readFileSync } from 'node:fs'

export interface Mount {
  readonly id: number
  /** As stat(2) tells it in st_dev: 'major:minor'. */
  readonly device: string
  readonly mountpoint: string
  /** Mount flags ('ro', 'nodev') and those of the superblock ('ro', 'user_id=0'). */
  readonly options: readonly string[]
  readonly type: string
  readonly source: string
}

/** Every type the transports mount with, and nothing else. */
export function isHoldfast(mount: Mount): boolean {
  return mount.type === 'fuse.holdfast'
}

/** The mounts, oldest first: of two on one mountpoint the later one is on top. */
export function readMounts(pid: number | 'self' = 'self'): Mount[] {
  return parseMountinfo(readFileSync(`/proc/${pid}/mountinfo`, 'utf8'))
}

/** Those another process sees; ours when we may not know. It may have a mount namespace of its own. */
export function mountsSeenBy(pid: number): Mount[] {
  try {
    return readMounts(pid)
  } catch {
    return readMounts()
  }
}

export function parseMountinfo(text: string): Mount[] {
  const mounts: Mount[] = []
  for (const line of text.split('\n')) {
    const mount = parseLine(line)
    if (mount !== undefined) mounts.push(mount)
  }
  return mounts
}

/** `id parent major:minor root mountpoint options [tag…] - type source superoptions` */
function parseLine(line: string): Mount | undefined {
  const [before, after] = line.split(' - ', 2)
  if (before === undefined || after === undefined) return undefined
  const fields = before.split(' ')
  const [type, source, superOptions] = after.split(' ')
  const [id, , device, , mountpoint, options] = fields
  if (mountpoint === undefined || device === undefined || type === undefined) return undefined
  return {
    id: Number(id),
    device,
    mountpoint: unescapeOctal(mountpoint),
    options: [...(options ?? '').split(','), ...(superOptions ?? '').split(',')],
    type,
    source: unescapeOctal(source ?? ''),
  }
}

/** The kernel writes space, tab, newline, backslash and '#' as \ooo; the bytes are UTF-8. */
export function unescapeOctal(text: string): string {
  return text.replace(/\\([0-7]{3})/g, (_, digits: string) =>
    String.fromCharCode(Number.parseInt(digits, 8)),
  )
}

/** The mount that covers exactly this absolute path, the topmost if there are several. */
export function mountAt(path: string, mounts: readonly Mount[] = readMounts()): Mount | undefined {
  return mounts.findLast((mount) => mount.mountpoint === path)
}

/** The mount a file lies on, by the st_dev of a stat. */
export function mountOfDevice(
  device: bigint,
  mounts: readonly Mount[] = readMounts(),
): Mount | undefined {
  const number = deviceNumber(device)
  return mounts.findLast((mount) => mount.device === number)
}

/** 'major:minor' of a dev_t, as glibc packs it. */
export function deviceNumber(device: bigint): string {
  const major = ((device >> 8n) & 0xfffn) | ((device >> 32n) & 0xfffff000n)
  const minor = (device & 0xffn) | ((device >> 12n) & 0xffffff00n)
  return `${major}:${minor}`
}
