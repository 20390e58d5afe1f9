/** A program's connection to a mounted filesystem's daemon. */
import { createConnection, type Socket } from 'node:net'
import { constants } from 'node:os'
import type { FilesystemEvent } from '../fs/administration.ts'
import { LineReader } from './lines.ts'
import {
  ControlError,
  isEvent,
  MAX_REPLY,
  type MethodName,
  type Params,
  type Reply,
  type Result,
  type ServerLine,
} from './protocol.ts'

const { ECONNRESET, ETIMEDOUT } = constants.errno

/** Long enough for a checkpoint of millions of files; a daemon that is silent longer is stuck. */
const PATIENCE_MS = 120_000

interface Waiting {
  resolve: (result: unknown) => void
  reject: (error: Error) => void
}

export class ControlClient {
  readonly #socket: Socket
  readonly #waiting = new Map<number, Waiting>()
  readonly #reader = new LineReader(MAX_REPLY)
  #nextId = 1
  #onEvent: ((event: FilesystemEvent) => void) | undefined
  /** Resolves when the daemon hangs up, or after close(). */
  readonly closed: Promise<void>

  private constructor(socket: Socket) {
    this.#socket = socket
    socket.on('data', (chunk) => {
      if (!this.#reader.push(chunk, (line) => this.#receive(line))) socket.destroy()
    })
    this.closed = new Promise((resolve) => {
      socket.once('close', () => {
        this.#hangUp()
        resolve()
      })
    })
    // 'close' follows every error, and that is where callers are told.
    socket.on('error', () => {})
  }

  /** Rejects with the system's error (ENOENT, ECONNREFUSED, EACCES) when nobody is there. */
  static connect(path: string): Promise<ControlClient> {
    return new Promise((resolve, reject) => {
      const socket = createConnection(path)
      socket.once('error', reject)
      socket.once('connect', () => {
        socket.off('error', reject)
        resolve(new ControlClient(socket))
      })
    })
  }

  call<M extends MethodName>(
    method: M,
    params: Params<M>,
    patience: number = PATIENCE_MS,
  ): Promise<Result<M>> {
    const id = this.#nextId++
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#waiting.delete(id)
        reject(new ControlError(ETIMEDOUT, `the daemon did not answer in ${patience / 1000} s`))
      }, patience)
      this.#waiting.set(id, {
        resolve: (result) => {
          clearTimeout(timer)
          resolve(result as Result<M>)
        },
        reject: (error) => {
          clearTimeout(timer)
          reject(error)
        },
      })
      if (this.#socket.destroyed) this.#hangUp()
      else this.#socket.write(`${JSON.stringify({ id, method, params })}\n`)
    })
  }

  /** Events go to `onEvent` from now on. */
  async watch(onEvent: (event: FilesystemEvent) => void): Promise<void> {
    this.#onEvent = onEvent
    await this.call('watch', {})
  }

  close(): void {
    this.#socket.destroy()
  }

  #receive(text: string): void {
    const line = JSON.parse(text) as ServerLine
    if (isEvent(line)) this.#onEvent?.(line)
    else this.#settle(line)
  }

  #settle({ id, result, error }: Reply): void {
    const waiting = this.#waiting.get(id ?? -1)
    if (id === null || waiting === undefined) return
    this.#waiting.delete(id)
    if (error === undefined) waiting.resolve(result)
    else waiting.reject(new ControlError(error.errno, error.message))
  }

  #hangUp(): void {
    for (const { reject } of this.#waiting.values()) {
      reject(new ControlError(ECONNRESET, 'the daemon hung up before it answered'))
    }
    this.#waiting.clear()
  }
}
