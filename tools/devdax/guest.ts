/** One boot of a guest: runs a command in it, hands its output on line by line, cleans up. */
import { type ChildProcess, spawn } from 'node:child_process'
import {
  closeSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  readSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { GuestError, LimitError, NoGuestError } from './errors.ts'
import { writeInitramfs } from './initramfs.ts'
import type { Kernel } from './kernel.ts'
import { MachineChecks, type Ports } from './machine-checks.ts'
import { DISK_MIB, NVDIMM_MIB, qemuCommand } from './qemu.ts'

const POLL_MS = 50
const CONSOLE_LINES = 30

export interface GuestOptions {
  readonly kernel: Kernel
  readonly align: number
  readonly cpus: number
  /** A shell script that runs as root in the guest, in this machine's root directory. */
  readonly script: string
  readonly limitSeconds: number
  /** Called with each line of the script's output. */
  readonly onLine: (line: string) => void
  /** Leaves console, kernel log and memory where they are, and says where. */
  readonly keep: boolean
}

/** Resolves to the exit status of the script; rejects with GuestError when it came to no end. */
export async function runGuest(options: GuestOptions): Promise<number> {
  const directory = mkdtempSync(join(tmpdir(), 'holdfast-devdax-'))
  const guest = new Guest(directory, options)
  const stop = () => {
    guest.kill()
    if (!options.keep) rmSync(directory, { recursive: true, force: true })
  }
  process.on('exit', stop)
  try {
    return await guest.run()
  } finally {
    process.off('exit', stop)
    stop()
    if (options.keep) options.onLine(`kept ${directory}`)
  }
}

class Guest {
  readonly #options: GuestOptions
  readonly #directory: string
  readonly #exchange: string
  readonly #ports: Ports
  #child: ChildProcess | undefined

  constructor(directory: string, options: GuestOptions) {
    this.#options = options
    this.#directory = directory
    this.#exchange = join(directory, 'exchange')
    this.#ports = { monitor: join(directory, 'monitor'), debugger: join(directory, 'debugger') }
  }

  kill(): void {
    this.#child?.kill('SIGKILL')
    this.#child = undefined
  }

  async run(): Promise<number> {
    const { script, limitSeconds, onLine } = this.#options
    mkdirSync(this.#exchange)
    writeFileSync(join(this.#exchange, 'run'), script)
    const outputs = ['stdout', 'stderr'].map((name) => new Tail(this.#file(name), onLine))
    const checks = new MachineChecks(this.#exchange, this.#ports)
    const timer = setInterval(() => {
      for (const output of outputs) output.poll()
      checks.poll()
    }, POLL_MS)
    let timedOut = false
    const limit = setTimeout(() => {
      timedOut = true
      this.kill()
    }, limitSeconds * 1000)
    try {
      await this.#boot()
    } finally {
      clearTimeout(limit)
      clearInterval(timer)
      checks.close()
      for (const output of outputs) output.end()
    }
    if (timedOut) {
      throw new LimitError(this.#told(`the guest was stopped after ${limitSeconds} s`))
    }
    return this.#status()
  }

  /** Resolves when the machine is switched off. */
  #boot(): Promise<void> {
    const { kernel, align, cpus } = this.#options
    const memory = this.#sparse('memory', NVDIMM_MIB)
    const disk = this.#sparse('disk', DISK_MIB)
    const initramfs = join(this.#directory, 'initramfs')
    writeInitramfs(kernel, initramfs)
    const [program, ...args] = qemuCommand({
      ...{ kernel, initramfs, memory, disk, align, cpus, exchange: this.#exchange },
      ports: this.#ports,
      console: join(this.#directory, 'console'),
    }) as [string, ...string[]]
    const log = openSync(join(this.#directory, 'qemu'), 'w')
    this.#child = spawn(program, args, { stdio: ['ignore', 'ignore', log] })
    closeSync(log)
    return new Promise((resolve, reject) => {
      this.#child?.on('error', (error) => reject(new NoGuestError(error.message)))
      this.#child?.on('exit', () => resolve())
    })
  }

  #sparse(name: string, mib: number): string {
    const path = join(this.#directory, name)
    writeFileSync(path, '')
    truncateSync(path, mib * 2 ** 20)
    return path
  }

  #file(name: string): string {
    return join(this.#exchange, name)
  }

  #status(): number {
    if (existsSync(this.#file('status'))) return Number(readFileSync(this.#file('status'), 'utf8'))
    const setup = this.#file('setup-error')
    if (existsSync(setup)) throw new GuestError(this.#told(readFileSync(setup, 'utf8').trim()))
    throw new GuestError(this.#told('the guest ended before the command did'))
  }

  /** With the end of what the kernel said, for that is mostly why. */
  #told(sentence: string): string {
    const tails = ['qemu', 'console'].map((name) => {
      const path = join(this.#directory, name)
      const lines = existsSync(path) ? readFileSync(path, 'utf8').trimEnd().split('\n') : []
      return lines.slice(-CONSOLE_LINES).join('\n')
    })
    return [sentence, ...tails].filter(Boolean).join('\n')
  }
}

/** Follows a file that the guest writes. */
class Tail {
  readonly #path: string
  readonly #onLine: (line: string) => void
  readonly #buffer = Buffer.alloc(1 << 16)
  #fd: number | undefined
  #position = 0
  #rest = ''

  constructor(path: string, onLine: (line: string) => void) {
    this.#path = path
    this.#onLine = onLine
  }

  poll(): void {
    if (this.#fd === undefined) {
      if (!existsSync(this.#path)) return
      this.#fd = openSync(this.#path, 'r')
    }
    for (;;) {
      const count = readSync(this.#fd, this.#buffer, 0, this.#buffer.length, this.#position)
      if (count === 0) return
      this.#position += count
      const lines = (this.#rest + this.#buffer.toString('utf8', 0, count)).split('\n')
      this.#rest = lines.pop()!
      for (const line of lines) this.#onLine(line)
    }
  }

  end(): void {
    this.poll()
    if (this.#rest !== '') this.#onLine(this.#rest)
    if (this.#fd !== undefined) closeSync(this.#fd)
    this.#fd = undefined
  }
}
