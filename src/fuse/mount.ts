/** Getting a FUSE connection mounted and unmounted, as root or through fusermount3. */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { closeSync, constants, openSync, readFileSync, realpathSync, statSync } from 'node:fs'
import { constants as os } from 'node:os'
import { native } from '../native/binding.ts'

/** Mount flags of mount(2), by the names of mount(8). */
export const MOUNT_FLAGS = {
  ro: 1 << 0,
  nosuid: 1 << 1,
  nodev: 1 << 2,
  noexec: 1 << 3,
  sync: 1 << 4,
  dirsync: 1 << 7,
  noatime: 1 << 10,
  nodiratime: 1 << 11,
} as const

export type MountFlag = keyof typeof MOUNT_FLAGS

/** What is durable before its answer: with dirsync changes of names, with sync every change. */
export type Durable = 'nothing' | 'names' | 'everything'

export function durableWith(flags: readonly MountFlag[]): Durable {
  if (flags.includes('sync')) return 'everything'
  return flags.includes('dirsync') ? 'names' : 'nothing'
}

export interface MountRequest {
  readonly mountpoint: string
  /** Shown as the source of the mount. */
  readonly fsname: string
  readonly subtype: string
  readonly flags: readonly MountFlag[]
  readonly allowOther: boolean
  /** Through fusermount3, which is for users: mount(2) is root's. */
  readonly helper: boolean
}

/** What mount(2), umount(8) or fusermount3 refused, with the errno name where it is known. */
export class MountError extends Error {
  readonly code: string | undefined

  constructor(sentence: string, code?: string, cause?: unknown) {
    super(sentence, { cause })
    this.name = 'MountError'
    this.code = code
  }
}

/** Mounts and returns the connection's descriptor, close-on-exec. */
export async function openConnection(request: MountRequest): Promise<number> {
  return request.helper ? mountWithHelper(request) : mountAsRoot(request)
}

function mountAsRoot(request: MountRequest): number {
  const { mountpoint, fsname, subtype } = request
  const fd = openSync('/dev/fuse', constants.O_RDWR)
  try {
    native.mount(
      fsname,
      mountpoint,
      `fuse.${subtype}`,
      flagBits(request.flags),
      rootData(fd, request),
    )
  } catch (cause) {
    closeSync(fd)
    const code = errorCode(cause)
    throw new MountError(`cannot mount on ${mountpoint}: ${code ?? String(cause)}`, code, cause)
  }
  return fd
}

function flagBits(flags: readonly MountFlag[]): number {
  return flags.reduce((bits, flag) => bits | MOUNT_FLAGS[flag], 0)
}

function rootData(fd: number, request: MountRequest): string {
  const rootMode = statSync(request.mountpoint).mode & constants.S_IFMT
  const data = [
    `fd=${fd}`,
    `rootmode=${rootMode.toString(8)}`,
    `user_id=${process.geteuid?.() ?? 0}`,
    `group_id=${process.getegid?.() ?? 0}`,
    'default_permissions',
  ]
  if (request.allowOther) data.push('allow_other')
  return data.join(',')
}

/** fusermount3 mounts, then sends the descriptor over the socket named by _FUSE_COMMFD. */
async function mountWithHelper(request: MountRequest): Promise<number> {
  const quote = (text: string) => text.replace(/[\\,]/g, '\\$&')
  const options: string[] = [...request.flags, 'default_permissions']
  options.push(`fsname=${quote(request.fsname)}`, `subtype=${quote(request.subtype)}`)
  if (request.allowOther) options.push('allow_other')
  const [ours, theirs] = native.socketPair()
  try {
    const helper = spawn('fusermount3', ['-o', options.join(','), '--', request.mountpoint], {
      stdio: ['ignore', 'ignore', 'pipe', theirs],
      env: { ...process.env, _FUSE_COMMFD: '3' },
    })
    // The helper has its own copy now, and ours would keep the socket from ending with it.
    closeSync(theirs)
    await finished(helper, `fusermount3 cannot mount on ${request.mountpoint}`)
    // The message waits in the socket, so this does not block.
    return native.receiveDescriptor(ours)
  } finally {
    closeSync(ours)
  }
}

/** Waits for a helper program; MountError with what it said on stderr unless it exits with 0. */
export async function finished(child: ChildProcess, sentence: string): Promise<void> {
  let said = ''
  child.stderr?.setEncoding('utf8').on('data', (text: string) => {
    said += text
  })
  const [status] = (await once(child, 'close').catch((cause: unknown) => {
    throw new MountError(`${sentence}: ${String(cause)}`, errorCode(cause), cause)
  })) as [number | null]
  if (status === 0) return
  throw new MountError(`${sentence}: ${said.trim() || `exit status ${status}`}`, codeOf(said))
}

/** The errno behind a helper's words. */
function codeOf(said: string): string | undefined {
  if (/busy/i.test(said)) return 'EBUSY'
  if (/not mounted|not found in \/etc\/mtab/i.test(said)) return 'EINVAL'
  return /not permitted|permission denied/i.test(said) ? 'EPERM' : undefined
}

function errorCode(error: unknown): string | undefined {
  return error instanceof Error && 'code' in error ? String(error.code) : undefined
}

/** Absolute, without symbolic links, an existing directory. */
export function resolveMountpoint(path: string): string {
  try {
    const resolved = realpathSync(path)
    if (statSync(resolved).isDirectory()) return resolved
  } catch (cause) {
    const code = errorCode(cause)
    throw new MountError(`mountpoint ${path}: ${code ?? String(cause)}`, code, cause)
  }
  throw new MountError(`mountpoint ${path} is not a directory`, 'ENOTDIR')
}

/** 'major:minor' of the newest mount on `mountpoint`; does not touch the mount itself. */
export function deviceOfMount(mountpoint: string): string | undefined {
  const escaped = mountpoint.replace(/[ \t\n\\]/g, octal)
  const lines = readFileSync('/proc/self/mountinfo', 'utf8').trimEnd().split('\n')
  return lines.map((line) => line.split(' ')).findLast((fields) => fields[4] === escaped)?.[2]
}

function octal(character: string): string {
  return `\\${character.charCodeAt(0).toString(8).padStart(3, '0')}`
}

/** Errnos with which a connection ends that was unmounted or aborted. */
export const CONNECTION_ENDED: ReadonlySet<number> = new Set([
  os.errno.ENODEV,
  os.errno.ECONNABORTED,
])
