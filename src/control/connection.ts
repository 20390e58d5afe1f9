/** One client of the control socket: requests in, replies and events out. Never throws. */
import type { Socket } from 'node:net'
import type { Administration } from '../fs/administration.ts'
import { E2BIG, EINVAL, EIO } from '../fs/errors.ts'
import { LineReader } from './lines.ts'
import { callMethod, type MountFacts } from './methods.ts'
import { ControlError, MAX_LINE, MAX_REPLY, type ServerLine } from './protocol.ts'

/**
 * Unread output that a client may leave and still be sent more, bytes: a stopped watcher must not
 * fill our memory.
 */
const MAX_UNREAD = 8 * 1024 * 1024

export interface ConnectionContext {
  readonly fs: Administration
  readonly facts: MountFacts
  /** Told of what is worth a line in the log. */
  readonly warn: (sentence: string) => void
}

export class Connection {
  readonly #socket: Socket
  readonly #context: ConnectionContext
  readonly #reader = new LineReader(MAX_LINE)
  #unsubscribe: (() => void) | undefined
  #garbage = false

  constructor(socket: Socket, context: ConnectionContext) {
    this.#socket = socket
    this.#context = context
    socket.on('data', (chunk) => this.#read(chunk))
    socket.on('error', () => socket.destroy())
    socket.on('close', () => this.#unsubscribe?.())
  }

  #read(chunk: Buffer): void {
    const fits = this.#reader.push(chunk, (line) => {
      if (line.trim() !== '' && !this.#socket.destroyed) void this.#answer(line)
    })
    if (fits) return
    this.#complain(`a line longer than ${MAX_LINE} bytes`)
    this.#send({ id: null, error: { message: 'the line is too long', errno: E2BIG } })
    this.#socket.destroySoon()
    this.#socket.removeAllListeners('data')
  }

  async #answer(line: string): Promise<void> {
    let id: number | null = null
    try {
      const request = this.#parse(line)
      id = request.id
      const result = await this.#call(request.method, request.params)
      this.#send({ id, result }, MAX_REPLY)
    } catch (error) {
      const errno = errnoOf(error)
      // Whatever says no has an errno; anything else is a bug, of which the log should know.
      if (errno === undefined) this.#context.warn(`control socket: ${bug(error)}`)
      this.#send({ id, error: { message: messageOf(error), errno: errno ?? EIO } })
    }
  }

  #parse(line: string): { id: number; method: string; params: unknown } {
    let value: unknown
    try {
      value = JSON.parse(line)
    } catch {
      this.#complain('a line that is not JSON')
      throw new ControlError(EINVAL, 'a request must be one line of JSON')
    }
    const { id, method, params } = (value ?? {}) as Record<string, unknown>
    if (typeof id !== 'number' || !Number.isSafeInteger(id) || typeof method !== 'string') {
      this.#complain('a request without id and method')
      throw new ControlError(EINVAL, 'a request must have a number `id` and a string `method`')
    }
    return { id, method, params }
  }

  async #call(method: string, params: unknown): Promise<unknown> {
    const { fs, facts } = this.#context
    if (method !== 'watch') return callMethod(method, params, fs, facts)
    this.#unsubscribe ??= fs.subscribe((event) => this.#send(event))
    return {}
  }

  #send(line: ServerLine, limit = Number.POSITIVE_INFINITY): void {
    if (this.#socket.destroyed || !this.#socket.writable) return
    const bytes = Buffer.from(`${JSON.stringify(line)}\n`)
    if (bytes.length > limit) {
      const sentence = 'the answer is longer than 64 MiB: `holdfast rmap` tells it in parts'
      throw new ControlError(E2BIG, sentence)
    }
    // Before the write: one line may be longer than that, a map of very many extents say.
    if (this.#socket.writableLength > MAX_UNREAD) this.#socket.destroy()
    else this.#socket.write(bytes)
  }

  /** Once per connection: garbage must not fill the log either. */
  #complain(what: string): void {
    if (this.#garbage) return
    this.#garbage = true
    this.#context.warn(`control socket: a client sent ${what}`)
  }
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}

function errnoOf(error: unknown): number | undefined {
  const errno = (error as { errno?: unknown } | null)?.errno
  return typeof errno === 'number' && errno !== 0 ? Math.abs(errno) : undefined
}

function bug(error: unknown): string {
  return error instanceof Error ? (error.stack ?? error.message) : String(error)
}
