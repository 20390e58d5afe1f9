/** Steps on the filesystem itself, without a kernel in front, over simulated memory. */
import type { SimulatedMemory } from '../../src/dax/simulated-memory.ts'
import { checkIndex } from '../../src/fs/check/check.ts'
import { errnoName, FsError } from '../../src/fs/errors.ts'
import type { Filesystem } from '../../src/fs/filesystem.ts'
import type { Handle } from '../../src/fs/handles.ts'
import { remount, scratchFilesystem } from '../support/core.ts'
import { digest } from './failure-model.ts'
import { payload } from './file-model.ts'
import type { Step, StepName } from './steps.ts'
import { type Operator, operate, type Place, type Subject } from './subject.ts'

const SIZE = 32 * 2 ** 20
const O_RDWR = 2
const ROOT = 1
const caller = { uid: 0, gid: 0, pid: 1, umask: 0 }
const plain = { cached: false, killPrivileges: false, append: false }
const FALLOCATE = { allocate: 0, keep: 1, punch: 3, zero: 0x10, 'zero-keep': 0x11 }

export class CoreSubject implements Subject {
  readonly shortReads = true
  readonly writesPages = false
  /** A mapping, and what fstat(2) and fsync(2) make of a dead handle, is the transport's. */
  readonly without: ReadonlySet<StepName> = new Set([
    ...(['map', 'unmap', 'load', 'store', 'size', 'sync'] as const),
  ])
  #fs: Filesystem
  #memory: SimulatedMemory
  readonly #handles = new Map<number, Handle>()

  constructor(mode: 'cacheline' | 'page') {
    const { fs, memory } = scratchFilesystem(SIZE, mode)
    this.#fs = fs
    this.#memory = memory
  }

  async perform(step: Step): Promise<string> {
    try {
      if (step.do === 'remount') return await this.#remount()
      return (await operate(operatorOf(this.#fs), step)) ?? this.#do(step)
    } catch (error) {
      if (!(error instanceof FsError)) throw error
      return errnoName(error.errno)
    }
  }

  async peek(place: Place, offset: number, length: number): Promise<Buffer> {
    if ('handle' in place) return this.#read(this.#handles.get(place.handle)!, offset, length)
    if (!('name' in place)) throw new Error('the core has no mappings')
    const handle = this.#fs.open(this.#ino(place.name), O_RDWR, false)
    const bytes = this.#read(handle, offset, length)
    this.#fs.release(handle)
    return bytes
  }

  async end(): Promise<string | undefined> {
    const { index, geometry, superblock } = this.#fs.volume
    const problems = checkIndex(index.database, geometry, superblock)
    await this.#fs.unmount()
    return problems.length === 0 ? undefined : problems.map(({ message }) => message).join('; ')
  }

  #do(step: Step): string {
    const fs = this.#fs
    switch (step.do) {
      case 'open':
        return this.#open(step.handle, step.name)
      case 'close':
        fs.release(this.#handles.get(step.handle)!)
        this.#handles.delete(step.handle)
        return 'ok'
      case 'resize-path':
        fs.setattr(this.#ino(step.name), { size: step.size }, caller)
        return 'ok'
      case 'size-path':
        return `ok ${fs.getattr(this.#ino(step.name)).size}`
      case 'unlink':
        fs.unlink(ROOT, Buffer.from(step.name))
        return 'ok'
      case 'rename':
        fs.rename(ROOT, Buffer.from(step.name), ROOT, Buffer.from(step.onto), 0)
        return 'ok'
      default:
        if ('handle' in step) return this.#onHandle(step, this.#handles.get(step.handle)!)
        throw new Error(`the core cannot ${step.do}`)
    }
  }

  #onHandle(step: Extract<Step, { handle: number }>, handle: Handle): string {
    const fs = this.#fs
    switch (step.do) {
      case 'read':
        return digest(this.#read(handle, step.offset, step.length))
      case 'write': {
        const bytes = payload(step.number, step.length)
        return `ok ${fs.write(handle, step.offset, bytes, 0, bytes.length, plain)}`
      }
      case 'resize':
        fs.setattr(handle.ino, { size: step.size }, caller, handle)
        return 'ok'
      case 'copy': {
        const target = this.#handles.get(step.to)!
        return `ok ${fs.copyFileRange(handle, step.offset, target, step.onto, step.length)}`
      }
      case 'allocate':
      case 'keep':
      case 'punch':
      case 'zero':
      case 'zero-keep':
        fs.fallocate(handle, FALLOCATE[step.do], step.offset, step.length)
        return 'ok'
      default:
        throw new Error(`the core cannot ${step.do}`)
    }
  }

  #open(place: number, name: string): string {
    const handle = this.#fs.create(ROOT, Buffer.from(name), 0o600, O_RDWR, caller)
    this.#fs.forget(handle.ino, 1)
    const before = this.#handles.get(place)
    if (before !== undefined) this.#fs.release(before)
    this.#handles.set(place, handle)
    return `ok ${handle.ino}`
  }

  #read(handle: Handle, offset: number, length: number): Buffer {
    const bytes = Buffer.alloc(length)
    return bytes.subarray(0, this.#fs.readInto(handle, offset, bytes, 0, length))
  }

  #ino(name: string): number {
    const { ino } = this.#fs.lookup(ROOT, Buffer.from(name))
    this.#fs.forget(ino, 1)
    return ino
  }

  async #remount(): Promise<string> {
    await this.#fs.unmount()
    this.#handles.clear()
    this.#memory = this.#memory.crash()
    this.#fs = remount(this.#memory)
    return 'ok'
  }
}

function operatorOf({ administration }: Filesystem): Operator {
  return {
    getmap: async (inode) => administration.getmap(inode),
    inject: async (request) => administration.inject(request),
    clearPoison: async (range) => administration.clearPoison(range),
    status: async () => administration.status(),
    checkpoint: () => administration.checkpoint(),
  }
}
