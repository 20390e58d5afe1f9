/** QEMU's debugger port (GDB's remote protocol): stops the guest at the very touch of a byte. */
import { connect, type Socket } from 'node:net'

/** In the answer to `g`: sixteen general registers, rip and eflags come before it. */
const CS_AT = 16 * 8 + 8 + 4
const PACKET = /\$([^#]*)#[0-9a-f]{2}/

export class Debugger {
  readonly #socket: Socket
  readonly #waiting: ((packet: string) => void)[] = []
  #text = ''

  private constructor(socket: Socket) {
    this.#socket = socket
    socket.setEncoding('latin1').on('data', (text: string) => this.#received(text))
  }

  /** The guest stands still from now until `resume`. */
  static connect(path: string): Promise<Debugger> {
    const socket = connect(path)
    return new Promise((resolve, reject) => {
      socket.on('error', reject).on('connect', () => resolve(new Debugger(socket)))
    })
  }

  /** Loads and stores of eight bytes at a virtual address, of whatever process, stop the guest. */
  async watch(address: number): Promise<void> {
    await this.#expectOk(`Z4,${address.toString(16)},8`)
  }

  /** Lets the guest run until what is watched is touched. */
  async runUntilTouched(): Promise<void> {
    await this.#ask('c')
  }

  /** Whether a program was interrupted, and not the kernel. */
  async inUserMode(): Promise<boolean> {
    const registers = await this.#ask('g')
    const segment = Number.parseInt(registers.slice(2 * CS_AT, 2 * CS_AT + 2), 16)
    return (segment & 3) === 3
  }

  /** A command for QEMU's monitor. */
  async monitor(command: string): Promise<void> {
    await this.#expectOk(`qRcmd,${Buffer.from(command).toString('hex')}`)
  }

  /** Lets the guest run, with nothing watched any more, and leaves. */
  async resume(): Promise<void> {
    await this.#expectOk('D')
    this.#socket.destroy()
  }

  async #expectOk(command: string): Promise<void> {
    for (let answer = await this.#ask(command); answer !== 'OK'; answer = await this.#next()) {
      // The monitor's output, and the notice that the guest was stopped when we came.
      if (/^[OT]/.test(answer)) continue
      throw new Error(`QEMU's debugger answers '${answer}' to ${command}`)
    }
  }

  #ask(command: string): Promise<string> {
    const sum = [...command].reduce((total, character) => total + character.charCodeAt(0), 0) & 255
    this.#socket.write(`$${command}#${sum.toString(16).padStart(2, '0')}`)
    return this.#next()
  }

  /** Never comes when the guest ends before. */
  #next(): Promise<string> {
    return new Promise((resolve) => {
      this.#waiting.push(resolve)
      this.#received('')
    })
  }

  #received(text: string): void {
    this.#text += text
    for (;;) {
      const match = PACKET.exec(this.#text)
      if (match === null || this.#waiting.length === 0) return
      this.#text = this.#text.slice(match.index + match[0].length)
      this.#socket.write('+')
      this.#waiting.shift()!(match[1]!)
    }
  }
}
