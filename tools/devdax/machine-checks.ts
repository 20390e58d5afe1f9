/**
 * Genuine machine checks, raised through QEMU when the guest asks for one: it puts a file
 * `machine-check.N.M` into the exchange directory, and waits until it is gone.
 *
 *     ao|ar PHYSICAL              the machine check is raised now
 *     ar PHYSICAL at VIRTUAL      it will be at the next touch of that byte by a program; there is
 *                                 a file `machine-check.N.M.raised` when that has happened
 */
import { readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { connect, type Socket } from 'node:net'
import { join } from 'node:path'
import { Debugger } from './debugger.ts'

/**
 * IA32_MCi_STATUS and IA32_MCG_STATUS as Intel's processors report them: `ao` was found by the
 * memory's patrol scrubber, `ar` by the running program's load.
 */
const KINDS = {
  ao: ['0xbd000000000000c0', '0x5'],
  ar: ['0xbd80000000000134', '0x7'],
} as const

const REQUEST_NAME = /^machine-check\.\d+\.\d+$/
const REQUEST = /^(ao|ar) (0x[0-9a-f]+)(?: at (0x[0-9a-f]+))?$/
/** A physical address, exact to 2^12 bytes. */
const MISC = '0x8c'
const BANK = 9

/** Unix sockets of QEMU. */
export interface Ports {
  readonly monitor: string
  readonly debugger: string
}

export class MachineChecks {
  readonly #exchange: string
  readonly #ports: Ports
  /** Requests that wait for a touch. */
  readonly #armed = new Set<string>()
  #socket: Socket | undefined

  constructor(exchange: string, ports: Ports) {
    this.#exchange = exchange
    this.#ports = ports
  }

  /** Looks for a request; called over and over. */
  poll(): void {
    const names = readdirSync(this.#exchange).filter((name) => REQUEST_NAME.test(name))
    for (const name of names) {
      const file = join(this.#exchange, name)
      if (this.#armed.has(file)) continue
      const request = REQUEST.exec(readFileSync(file, 'utf8').trim())
      const command =
        request === null ? '' : commandOf(request[1] as keyof typeof KINDS, request[2]!)
      if (request?.[3] !== undefined) {
        this.#armed.add(file)
        this.#raiseAt(Number(request[3]), command, file).catch((error: Error) => {
          process.stderr.write(`devdax: no machine check at a touch: ${error.message}\n`)
        })
        continue
      }
      if (request !== null) this.#raise(command)
      rmSync(file, { force: true })
    }
  }

  close(): void {
    this.#socket?.destroy()
  }

  #raise(command: string): void {
    this.#socket ??= this.#connect()
    this.#socket.write(`${command}\n`)
  }

  /**
   * The processor is stopped behind the touch, and goes on with the machine check. In the kernel
   * that would be a panic; a program that touches the byte itself comes first or later.
   */
  async #raiseAt(address: number, command: string, file: string): Promise<void> {
    const guest = await Debugger.connect(this.#ports.debugger)
    try {
      await guest.watch(address)
      rmSync(file, { force: true })
      do await guest.runUntilTouched()
      while (!(await guest.inUserMode()))
      await guest.monitor(command)
      writeFileSync(`${file}.raised`, '')
    } finally {
      await guest.resume()
    }
  }

  #connect(): Socket {
    const socket = connect(this.#ports.monitor)
    // What the monitor prints is not wanted; when it is gone, so is the guest.
    socket.on('error', () => undefined).resume()
    return socket
  }
}

function commandOf(kind: keyof typeof KINDS, address: string): string {
  const [status, global] = KINDS[kind]
  return `mce 0 ${BANK} ${status} ${global} ${address} ${MISC}`
}
