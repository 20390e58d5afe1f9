/** The methods of the control socket over a mounted filesystem; what comes in is not trusted. */
import type { Administration, InjectRequest, ScrubRequest, Status } from '../fs/administration.ts'
import { EINVAL, ENOSYS } from '../fs/errors.ts'
import { ControlError, MAX_RMAP_ROWS, type MethodName, type Result } from './protocol.ts'

/** What the daemon knows of its mount and the filesystem does not. */
export type MountFacts = Pick<Status, 'region' | 'mountpoint' | 'transport' | 'holder'>

/** Everything but `watch`, which belongs to a connection. */
export type Callable = Exclude<MethodName, 'watch'>

type Fields = Record<string, unknown>

type Table = {
  [M in Callable]: (
    fs: Administration,
    params: Fields,
    facts: MountFacts,
  ) => Result<M> | Promise<Result<M>>
}

const METHODS: Table = {
  status: (fs, _params, facts) => ({ ...fs.status(), ...facts }),
  getmap: (fs, params) => fs.getmap(integer(params, 'inode', 1)),
  rmap: (fs, params) =>
    fs.rmap(
      integer(params, 'offset'),
      integer(params, 'length', 1),
      Math.min(integer(params, 'limit', 1), MAX_RMAP_ROWS),
    ),
  inject: async (fs, params) => {
    const request = injectRequest(params)
    const started = performance.now()
    const result = fs.inject(request)
    await fs.revoked()
    // To the microsecond: people read this as well.
    const milliseconds = Math.round((performance.now() - started) * 1000) / 1000
    return { ...result, milliseconds }
  },
  clearPoison: (fs, params) => ({ cleared: fs.clearPoison(poisonRange(params)) }),
  freeze: async (fs) => {
    await fs.freeze()
    return {}
  },
  thaw: (fs) => {
    fs.thaw()
    return {}
  },
  shutdown: (fs, params) => {
    fs.shutdown(text(params, 'reason'))
    return {}
  },
  checkpoint: (fs) => fs.checkpoint(),
  scrub: (fs, params) => {
    const action = word(params, 'action', ['start', 'stop', 'status'])
    if (action === 'stop') return fs.stopScrub()
    return action === 'status' ? fs.scrubStatus() : fs.startScrub(scrubRequest(params))
  },
}

export async function callMethod(
  method: string,
  params: unknown,
  fs: Administration,
  facts: MountFacts,
): Promise<unknown> {
  if (!isCallable(method)) throw new ControlError(ENOSYS, `there is no method '${method}'`)
  return METHODS[method](fs, asFields(params ?? {}, 'params'), facts)
}

function isCallable(method: string): method is Callable {
  return Object.hasOwn(METHODS, method)
}

function scrubRequest(params: Fields): ScrubRequest {
  return {
    ...(params.rate === undefined ? {} : { rate: integer(params, 'rate', 1) }),
    restart: params.restart === true,
  }
}

function injectRequest(params: Fields): InjectRequest {
  return {
    target: injectTarget(asFields(params.target, 'target')),
    length: integer(params, 'length', 1),
    method: word(params, 'method', ['soft', 'sigbus', 'hwpoison']),
  }
}

function injectTarget(target: Fields): InjectRequest['target'] {
  const kind = word(target, 'kind', ['file', 'offset', 'metadata', 'free'])
  switch (kind) {
    case 'file':
      return { kind, inode: integer(target, 'inode', 1), fileOffset: integer(target, 'fileOffset') }
    case 'offset':
      return { kind, offset: integer(target, 'offset') }
    case 'metadata':
      return { kind, structure: word(target, 'structure', ['superblock', 'journal', 'checkpoint']) }
    case 'free':
      return { kind }
  }
}

function poisonRange(params: Fields): { offset: number; length: number } | 'all' {
  if (params.range === 'all') return 'all'
  const range = asFields(params.range, 'range')
  return { offset: integer(range, 'offset'), length: integer(range, 'length', 1) }
}

function asFields(value: unknown, name: string): Fields {
  if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Fields
  throw new ControlError(EINVAL, `${name} must be an object`)
}

function integer(fields: Fields, name: string, minimum = 0): number {
  const value = fields[name]
  if (typeof value === 'number' && Number.isSafeInteger(value) && value >= minimum) return value
  throw new ControlError(EINVAL, `${name} must be an integer from ${minimum} up`)
}

function text(fields: Fields, name: string): string {
  const value = fields[name]
  if (typeof value === 'string') return value
  throw new ControlError(EINVAL, `${name} must be a string`)
}

function word<T extends string>(fields: Fields, name: string, allowed: readonly T[]): T {
  const found = allowed.find((candidate) => candidate === fields[name])
  if (found !== undefined) return found
  throw new ControlError(EINVAL, `${name} must be one of ${allowed.join(', ')}`)
}
