/**
 * Genuine machine checks, raised through QEMU's monitor when the guest asks for one: it puts a file
 * `machine-check.N.M` into the exchange directory, "ao|ar ADDRESS", and waits until it is gone.
 */
import { readdirSync, readFileSync, rmSync } from 'node:fs'
import { connect, type Socket } from 'node:net'
import { join } from 'node:path'

/**
 * IA32_MCi_STATUS and IA32_MCG_STATUS as Intel's processors report them: `ao` was found by the
 * memory's patrol scrubber, `ar` by the running program's load.
 */
const KINDS = {
  ao: ['0xbd000000000000c0', '0x5'],
  ar: ['0xbd80000000000134', '0x7'],
} as const

const REQUEST_NAME = /^machine-check\.\d+\.\d+$/
/** A physical address, exact to 2^12 bytes. */
const MISC = '0x8c'
const BANK = 9

export class MachineChecks {
  readonly #exchange: string
  readonly #monitor: string
  #socket: Socket | undefined

  constructor(exchange: string, monitor: string) {
    this.#exchange = exchange
    this.#monitor = monitor
  }

  /** Looks for a request; called over and over. */
  poll(): void {
    const names = readdirSync(this.#exchange).filter((name) => REQUEST_NAME.test(name))
    for (const name of names) {
      const file = join(this.#exchange, name)
      const request = /^(ao|ar) (0x[0-9a-f]+)$/.exec(readFileSync(file, 'utf8').trim())
      if (request !== null) this.#raise(request[1] as keyof typeof KINDS, request[2]!)
      rmSync(file, { force: true })
    }
  }

  close(): void {
    this.#socket?.destroy()
  }

  #raise(kind: keyof typeof KINDS, address: string): void {
    const [status, global] = KINDS[kind]
    this.#socket ??= this.#connect()
    this.#socket.write(`mce 0 ${BANK} ${status} ${global} ${address} ${MISC}\n`)
  }

  #connect(): Socket {
    const socket = connect(this.#monitor)
    // What the monitor prints is not wanted; when it is gone, so is the guest.
    socket.on('error', () => undefined).resume()
    return socket
  }
}
