/**
 * Has a daemon collect its garbage, over the inspector that every Node process opens on SIGUSR1:
 * V8 lets what nobody refers to lie for minutes, and that would hide what somebody does refer to.
 */
import { randomBytes } from 'node:crypto'
import { readdirSync, readFileSync, readlinkSync } from 'node:fs'
import { get } from 'node:http'
import { connect, type Socket } from 'node:net'
import { sleep } from '../support/mounts.ts'

/** For the environment of the daemon: any port that is free. */
export const INSPECTABLE = '--inspect-port=0'

const TRIES = 200
const LISTENS = '0A'
const TEXT_FRAME = 0x81
const MASKED = 0x80
/** Lengths that stand for a longer field: 16 bits, or 64. */
const SHORT_LENGTH = 126

export class Inspector {
  readonly #socket: Socket
  #received = Buffer.alloc(0)
  #number = 0
  #answered: ((text: string) => void) | undefined

  private constructor(socket: Socket) {
    this.#socket = socket
    socket.on('data', (bytes: Buffer) => this.#receive(bytes))
  }

  static async open(pid: number): Promise<Inspector> {
    process.kill(pid, 'SIGUSR1')
    let port = portOf(pid)
    for (let tries = TRIES; port === undefined && tries > 0; tries--) {
      await sleep(20)
      port = portOf(pid)
    }
    if (port === undefined) throw new Error(`process ${pid} opens no inspector`)
    const path = new URL(await addressAt(port)).pathname
    return new Inspector(await upgraded(port, path))
  }

  /** Resolves to the bytes of the JavaScript heap that are in use, and outside of it. */
  async collectGarbage(): Promise<number> {
    // What a first collection finalises, a second one gives back.
    for (let times = 0; times < 2; times++) await this.#call('HeapProfiler.collectGarbage')
    const expression = '(({ heapUsed, external }) => heapUsed + external)(process.memoryUsage())'
    const answer = await this.#call('Runtime.evaluate', { expression })
    return (JSON.parse(answer) as { result: { result: { value: number } } }).result.result.value
  }

  close(): void {
    this.#socket.destroy()
  }

  #call(method: string, params: object = {}): Promise<string> {
    const text = Buffer.from(JSON.stringify({ id: ++this.#number, method, params }))
    // The mask of a client may be zero: then the bytes are what they are.
    const head = Buffer.from([TEXT_FRAME, MASKED | SHORT_LENGTH, 0, 0, 0, 0, 0, 0])
    head.writeUInt16BE(text.length, 2)
    this.#socket.write(Buffer.concat([head, text]))
    return new Promise((resolve, reject) => {
      this.#answered = resolve
      this.#socket.once('close', () => reject(new Error('the inspector hung up')))
    })
  }

  /** Whole frames, of which only answers come: no domain that has events is enabled. */
  #receive(bytes: Buffer): void {
    this.#received = Buffer.concat([this.#received, bytes])
    for (;;) {
      if (this.#received.length < 4) return
      const short = this.#received[1]!
      const start = short < SHORT_LENGTH ? 2 : 4
      const length = short < SHORT_LENGTH ? short : this.#received.readUInt16BE(2)
      if (this.#received.length < start + length) return
      const text = this.#received.toString('utf8', start, start + length)
      this.#received = this.#received.subarray(start + length)
      this.#socket.removeAllListeners('close')
      this.#answered?.(text)
    }
  }
}

/** Where the process listens on TCP. */
function portOf(pid: number): number | undefined {
  const own = new Set<string>()
  for (const fd of readdirSync(`/proc/${pid}/fd`)) {
    try {
      own.add(readlinkSync(`/proc/${pid}/fd/${fd}`))
    } catch {}
  }
  for (const line of readFileSync(`/proc/${pid}/net/tcp`, 'utf8').split('\n').slice(1)) {
    const [, local, , state, , , , , , inode] = line.trim().split(/\s+/)
    if (state === LISTENS && own.has(`socket:[${inode}]`)) {
      return Number.parseInt(local!.split(':')[1]!, 16)
    }
  }
  return undefined
}

function addressAt(port: number): Promise<string> {
  return new Promise((resolve, reject) => {
    get({ host: '127.0.0.1', port, path: '/json/list' }, (response) => {
      let text = ''
      response.on('data', (chunk: Buffer) => {
        text += chunk
      })
      response.on('end', () => resolve(JSON.parse(text)[0].webSocketDebuggerUrl))
    }).on('error', reject)
  })
}

/** A connection that speaks WebSocket from here on. */
function upgraded(port: number, path: string): Promise<Socket> {
  const socket = connect(port, '127.0.0.1')
  const lines = [
    `GET ${path} HTTP/1.1`,
    `Host: 127.0.0.1:${port}`,
    'Upgrade: websocket',
    'Connection: Upgrade',
    `Sec-WebSocket-Key: ${randomBytes(16).toString('base64')}`,
    'Sec-WebSocket-Version: 13',
  ]
  socket.write(`${lines.join('\r\n')}\r\n\r\n`)
  return new Promise((resolve, reject) => {
    socket.once('error', reject)
    socket.once('data', (bytes: Buffer) => {
      if (bytes.toString().startsWith('HTTP/1.1 101')) resolve(socket)
      else reject(new Error(`the inspector refuses: ${bytes}`))
    })
  })
}
