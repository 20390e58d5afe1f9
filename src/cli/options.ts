/** The `-o` list of a mount, typed. Every option that is not known is an error that says so. */
import { resolve } from 'node:path'
import type { MountFlag } from '../fuse/mount.ts'
import { CliError, MOUNT_USAGE } from './errors.ts'

export type TransportName = 'kernel' | 'fuse-native'
export type CachePolicy = 'keep' | 'auto' | 'none'
export type FailurePolicy = 'handles' | 'sigbus'

/** Generic flags that mount(2) takes for any filesystem, and their opposites. */
const FLAGS = {
  nodev: 'dev',
  nosuid: 'suid',
  noexec: 'exec',
  noatime: 'atime',
  nodiratime: 'diratime',
  dirsync: 'nodirsync',
  sync: 'async',
} as const satisfies Partial<Record<MountFlag, string>>

export interface MountOptions {
  readOnly: boolean
  allowOther: boolean
  transport: TransportName
  cache: CachePolicy
  writeback: boolean
  /** On plain files everything is made durable at least this often, seconds. */
  commitSeconds: number
  /** Where an index too big for memory lives while mounted. */
  indexDir?: string
  onFailure: FailurePolicy
  log?: string
  debug: boolean
  flags: Set<MountFlag>
}

export function defaultOptions(): MountOptions {
  return {
    readOnly: false,
    allowOther: false,
    transport: 'kernel',
    cache: 'keep',
    writeback: false,
    commitSeconds: 1,
    onFailure: 'handles',
    debug: false,
    flags: new Set(),
  }
}

/** What mount(8), mount.fuse and systemd keep for themselves, or what is as it is here. */
const IGNORED = new Set(
  (
    'defaults auto noauto user nouser users owner noowner group nogroup nofail _netdev ' +
    'relatime norelatime strictatime nostrictatime lazytime nolazytime symfollow ' +
    'default_permissions nonempty silent loud iversion noiversion mand nomand ' +
    'private shared slave unbindable rprivate rshared rslave runbindable'
  ).split(' '),
)
const IGNORED_PREFIXES = [
  'x-',
  'X-',
  'comment=',
  'user=',
  'fsname=',
  'subtype=',
  'uhelper=',
  'helper=',
]

/** What people may expect to work, and what to do instead. */
const REFUSED: Record<string, string> = {
  remount: 'a holdfast mount cannot be remounted: unmount it and mount it again',
  bind: 'a bind mount is made by mount(8) itself: use `mount --bind`',
  allow_root: 'allow_root is not supported: use allow_other',
  loop: 'loop is not needed: a region file is mounted as it is',
  auto_unmount: 'auto_unmount is not needed: the next mount cleans up after a dead daemon',
}

type Setter = (options: MountOptions, value: string) => void

/** `name=value` options. */
const VALUED: Record<string, Setter> = {
  transport: (o, v) => {
    o.transport = oneOf('transport', v, ['kernel', 'fuse-native'])
  },
  cache: (o, v) => {
    o.cache = oneOf('cache', v, ['keep', 'auto', 'none'])
  },
  on_failure: (o, v) => {
    o.onFailure = oneOf('on_failure', v, ['handles', 'sigbus'])
  },
  commit: (o, v) => {
    o.commitSeconds = seconds(v)
  },
  index_dir: (o, v) => {
    o.indexDir = resolve(needed('index_dir', v))
  },
  log: (o, v) => {
    o.log = resolve(needed('log', v))
  },
}

/** Options that stand alone. */
const SWITCHES: Record<string, (options: MountOptions) => void> = {
  ro: (o) => {
    o.readOnly = true
  },
  rw: (o) => {
    o.readOnly = false
  },
  allow_other: (o) => {
    o.allowOther = true
  },
  writeback: (o) => {
    o.writeback = true
  },
  debug: (o) => {
    o.debug = true
  },
}

/**
 * Applies one `-o` list, left to right, so that the last of two contradicting options wins.
 * `sloppy` passes over names that are not known, as mount(8) -s wants it.
 */
export function parseOptions(
  list: string,
  options: MountOptions = defaultOptions(),
  sloppy = false,
): MountOptions {
  for (const option of splitList(list)) {
    if (option !== '' && !applyOption(option, options) && !sloppy) throw unknown(option)
  }
  return options
}

/** The list that gives these options again. */
export function formatOptions(options: MountOptions): string {
  const list: string[] = [
    options.readOnly ? 'ro' : 'rw',
    `transport=${options.transport}`,
    `cache=${options.cache}`,
    `commit=${options.commitSeconds}`,
    `on_failure=${options.onFailure}`,
    ...options.flags,
  ]
  if (options.allowOther) list.push('allow_other')
  if (options.writeback) list.push('writeback')
  if (options.debug) list.push('debug')
  if (options.indexDir !== undefined) list.push(`index_dir=${options.indexDir}`)
  if (options.log !== undefined) list.push(`log=${options.log}`)
  return list.map((option) => option.replace(/[\\,]/g, '\\$&')).join(',')
}

/** Commas separate; `\,` is a comma inside a value, as in every FUSE program. */
export function splitList(list: string): string[] {
  const parts = list.match(/(?:\\.|[^,\\]|\\$)+/gs) ?? []
  return parts.map((part) => part.replace(/\\(.)/gs, '$1').trim())
}

/** False when there is no such option. */
function applyOption(option: string, options: MountOptions): boolean {
  const equals = option.indexOf('=')
  const name = equals < 0 ? option : option.slice(0, equals)
  if (Object.hasOwn(REFUSED, name)) throw usage(REFUSED[name] ?? '')
  if (IGNORED.has(option) || IGNORED_PREFIXES.some((prefix) => option.startsWith(prefix)))
    return true
  if (applyFlag(option, options)) return true
  if (Object.hasOwn(VALUED, name)) {
    if (equals < 0) throw usage(`mount option ${name} needs a value: ${name}=…`)
    VALUED[name]?.(options, option.slice(equals + 1))
    return true
  }
  if (!Object.hasOwn(SWITCHES, name)) return false
  if (equals >= 0) throw usage(`mount option ${name} takes no value`)
  SWITCHES[name]?.(options)
  return true
}

function applyFlag(option: string, options: MountOptions): boolean {
  for (const [flag, opposite] of Object.entries(FLAGS) as [MountFlag, string][]) {
    if (option === flag) options.flags.add(flag)
    else if (option === opposite) options.flags.delete(flag)
    else continue
    return true
  }
  return false
}

function oneOf<T extends string>(name: string, value: string, allowed: readonly T[]): T {
  const found = allowed.find((candidate) => candidate === value)
  if (found !== undefined) return found
  throw usage(`mount option ${name} is one of ${allowed.join(', ')}, not '${value}'`)
}

function seconds(value: string): number {
  const number = Number(value)
  if (value.trim() !== '' && number >= 0.1 && number <= 3600) return number
  throw usage(`mount option commit takes seconds from 0.1 to 3600, not '${value}'`)
}

function needed(name: string, value: string): string {
  if (value !== '') return value
  throw usage(`mount option ${name} needs a path: ${name}=/…`)
}

function unknown(option: string): CliError {
  const [name] = option.split('=', 1)
  return usage(`unknown mount option '${name}': \`holdfast mount --help\` lists those there are`)
}

function usage(sentence: string): CliError {
  return new CliError(sentence, MOUNT_USAGE)
}
