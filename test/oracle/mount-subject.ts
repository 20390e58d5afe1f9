/** Steps on a real mount: files through a client in Python, failures through the control socket. */
import { readFileSync, rmSync } from 'node:fs'
import { dirname } from 'node:path'
import type { ControlClient } from '../../src/control/client.ts'
import { ControlError } from '../../src/control/protocol.ts'
import { connectTo, resolveTarget } from '../../src/control/target.ts'
import { errnoName } from '../../src/fs/errors.ts'
import { type MountedRegion, mountRegion, PythonClient, runProgram } from '../support/mounts.ts'
import type { Step, StepName } from './steps.ts'
import { type Operator, operate, type Place, type Subject } from './subject.ts'

const CLIENT = readFileSync(new URL('files.py', import.meta.url), 'utf8')
/** Poison under files is told by fsck's exit code, too. */
const FSCK_FINE = [0, 4]

export class MountSubject implements Subject {
  readonly shortReads: boolean
  readonly writesPages: boolean
  readonly without: ReadonlySet<StepName> = new Set()
  readonly #options: readonly string[]
  #mount: MountedRegion
  #control: ControlClient
  readonly #client: PythonClient

  private constructor(options: readonly string[], mount: MountedRegion, control: ControlClient) {
    this.#options = options
    this.#mount = mount
    this.#control = control
    this.writesPages = options.includes('writeback')
    const sync = this.writesPages ? ['sync'] : []
    this.#client = new PythonClient(CLIENT, [mount.mountpoint, ...sync])
    // Without a page cache the kernel does not ask again for the pages in front.
    this.shortReads = !options.includes('cache=none')
  }

  static async make(options: readonly string[]): Promise<MountSubject> {
    const mount = await mountRegion({ on: 'memory', options })
    const control = await connectTo(resolveTarget(mount.mountpoint))
    const subject = new MountSubject(options, mount, control)
    const ready = await subject.#client.ready
    if (!ready?.ok) throw new Error(`the client cannot start: ${ready?.error ?? 'it died'}`)
    return subject
  }

  async perform(step: Step): Promise<string> {
    if (step.do === 'remount') return this.#remount()
    try {
      const said = await operate(operatorOf(this.#control), step)
      return said ?? (await this.#ask(callOf(step)))
    } catch (error) {
      if (!(error instanceof ControlError)) throw error
      return errnoName(error.errno)
    }
  }

  async peek(place: Place, offset: number, length: number): Promise<Buffer> {
    const [[kind, which]] = Object.entries(place) as [[string, string | number]]
    const call = `peek_${kind}(${JSON.stringify(which)}, ${offset}, ${length})`
    return Buffer.from(await this.#ask(call), 'hex')
  }

  async end(): Promise<string | undefined> {
    await this.#client.stop()
    this.#control.close()
    await this.#mount.unmount()
    const check = await runProgram('fsck.holdfast', ['-n', '-f', this.#mount.region])
    rmSync(dirname(this.#mount.region), { recursive: true })
    if (FSCK_FINE.includes(check.status ?? -1)) return undefined
    return `fsck exits ${check.status}: ${check.stdout}${check.stderr}`
  }

  async #ask(call: string): Promise<string> {
    const answer = await this.#client.evaluate<string>(call)
    if (answer === undefined) return `the client died: ${await this.#client.ended}`
    return answer.ok ? String(answer.value) : String(answer.error)
  }

  async #remount(): Promise<string> {
    await this.#ask('do_release()')
    this.#control.close()
    await this.#mount.unmount()
    this.#mount = await this.#mount.mountAgain({ options: this.#options })
    this.#control = await connectTo(resolveTarget(this.#mount.mountpoint))
    return 'ok'
  }
}

function operatorOf(control: ControlClient): Operator {
  return {
    getmap: (inode) => control.call('getmap', { inode }),
    inject: (request) => control.call('inject', request),
    clearPoison: async (range) => (await control.call('clearPoison', { range })).cleared,
    status: () => control.call('status', {}),
    checkpoint: () => control.call('checkpoint', {}),
  }
}

/** The step as a call of files.py. */
function callOf(step: Step): string {
  const { do: name, ...rest } = step
  const words = Object.values(rest).map((value) => JSON.stringify(value))
  switch (step.do) {
    case 'allocate':
    case 'keep':
    case 'punch':
    case 'zero':
    case 'zero-keep':
      return `do_reshape(${[JSON.stringify(name), ...words].join(', ')})`
    default:
      return `do_${name.replace('-', '_')}(${named(rest).join(', ')})`
  }
}

function named(fields: Record<string, string | number>): string[] {
  return Object.entries(fields).map(
    ([field, value]) => `${field === 'map' ? 'index' : field}=${JSON.stringify(value)}`,
  )
}
