/**
 * A few files, the handles and mappings on them, and memory that fails: what every step must
 * answer. A handle or a mapping dies when memory of its file fails, and is EIO or SIGBUS from then
 * on; whoever opens the file again gets all but the failed bytes; other files notice nothing.
 */
import { createHash } from 'node:crypto'
import { BLOCK, type Doubt, FileModel, HOLE, payload } from './file-model.ts'
import type { On, Reshape, Step } from './steps.ts'
import type { Subject } from './subject.ts'

export interface Answer {
  /** What the step must answer. */
  readonly expected: string
  /** What is to be looked at before the next step: see settle(). */
  readonly doubts: readonly Doubt[]
}

interface OpenFile {
  readonly file: FileModel
  dead: boolean
  /** Of the file when it died: all that the kernel knows of it. */
  lastSize: number
}

/** What depends on how the subject gets at a file. */
type Habits = Pick<Subject, 'shortReads' | 'writesPages'>

/** Instead of an answer: the filesystem writes by itself, no page cache takes part. */
const COPIED = 'copied'

export function digest(bytes: Uint8Array): string {
  return `ok ${bytes.length}:${createHash('md5').update(bytes).digest('hex')}`
}

export class FailureModel {
  readonly names = new Map<string, FileModel>()
  readonly handles = new Map<number, OpenFile>()
  readonly maps = new Map<number, OpenFile & { readonly length: number }>()
  /** Blocks of failed memory, whoever has them or had them. */
  #poisoned = 0
  readonly #habits: Habits
  #doubts: Doubt[] = []

  constructor(habits: Habits) {
    this.#habits = habits
  }

  /** All that have a name, or are open or mapped still. */
  files(): FileModel[] {
    const open = [...this.handles.values(), ...this.maps.values()].map(({ file }) => file)
    return [...new Set([...this.names.values(), ...open])]
  }

  /** `said` is what the step answered: only a new file's inode number is taken from it. */
  apply(step: Step, said: string): Answer {
    this.#doubts = []
    const expected = this.#apply(step, said)
    return { expected, doubts: this.#doubts }
  }

  #apply(step: Step, said: string): string {
    switch (step.do) {
      case 'open':
        return this.#open(step, said)
      case 'close':
        return this.#close(step, said)
      case 'unmap':
        this.maps.delete(step.map)
        return 'ok'
      case 'load':
      case 'store':
        return this.#touch(step)
      case 'size-path':
      case 'resize-path':
      case 'unlink':
      case 'rename':
        return this.#onName(step)
      case 'fail':
      case 'heal':
      case 'extents':
        return this.#onFile(step)
      case 'fail-free':
        this.#poisoned += step.blocks
        return 'free'
      case 'heal-all':
        return this.#healAll()
      case 'status':
        return `mounted ${this.#poisoned}`
      case 'checkpoint':
        return 'ok'
      case 'remount':
        this.handles.clear()
        this.maps.clear()
        return 'ok'
      case 'copy':
        return this.#copy(step, said)
      case 'map': {
        this.maps.set(step.map, { ...this.handles.get(step.handle)!, length: step.length })
        return 'ok'
      }
      default: {
        const open = this.handles.get(step.handle)!
        return open.dead ? this.#onDead(step, open) : this.#onHandle(step, open.file, said)
      }
    }
  }

  #open({ handle, name }: On<'open'>, said: string): string {
    let file = this.names.get(name)
    if (file === undefined) {
      const ino = Number(/^ok (\d+)$/.exec(said)?.[1])
      if (!(ino > 0)) return 'ok INODE'
      file = new FileModel(ino)
      this.names.set(name, file)
    }
    this.handles.set(handle, { file, dead: false, lastSize: 0 })
    return `ok ${file.ino}`
  }

  /** A kernel that keeps pages may say that it could not write them; the handle is closed. */
  #close({ handle }: On<'close'>, said: string): string {
    const { dead } = this.handles.get(handle)!
    this.handles.delete(handle)
    return dead && this.#habits.writesPages && said === 'EIO' ? said : 'ok'
  }

  /** ... and knows for itself where the file ends. */
  #onDead(
    step: On<'size' | 'sync' | 'read' | 'write' | 'resize' | Reshape>,
    open: OpenFile,
  ): string {
    const nothing = step.do === 'read' && step.offset >= open.lastSize
    return nothing && this.#habits.writesPages ? digest(Buffer.alloc(0)) : 'EIO'
  }

  #onHandle(
    step: On<'size' | 'sync' | 'read' | 'write' | 'resize' | Reshape>,
    file: FileModel,
    said: string,
  ): string {
    switch (step.do) {
      case 'size':
        return `ok ${file.size}`
      case 'sync':
        return 'ok'
      case 'read':
        return this.#read(file, step.offset, step.length)
      case 'write':
        return this.#write(file, step.offset, payload(step.number, step.length), said)
      case 'resize':
        file.resize(step.size)
        return 'ok'
      default:
        reshape(file, step)
        return 'ok'
    }
  }

  #read(file: FileModel, offset: number, length: number): string {
    const end = Math.min(offset + length, file.size)
    const bad = file.unreadable(offset, end)
    if (bad === undefined) return digest(file.bytes.subarray(offset, Math.max(offset, end)))
    if (bad * BLOCK <= offset || !this.#habits.shortReads) return 'EIO'
    return digest(file.bytes.subarray(offset, bad * BLOCK))
  }

  /**
   * 'ok COUNT' or EIO. In front of the block that fails, blocks may have been written; when the
   * kernel made several requests of the write, it says how far the first ones came.
   */
  #write(file: FileModel, offset: number, data: Buffer, said = COPIED): string {
    const byPages = this.#habits.writesPages && said !== COPIED
    const bad = file.unwritable(offset, offset + data.length, byPages)
    if (bad === undefined) {
      file.write(offset, data)
      return `ok ${data.length}`
    }
    const most = Math.max(0, bad * BLOCK - offset)
    const some = Math.min(most, Number(/^ok (\d+)$/.exec(said)?.[1] ?? 0))
    const count = byPages ? most : some
    if (count > 0) file.write(offset, data.subarray(0, count))
    const other = data.subarray(count, most)
    this.#doubts.push({ file, offset: offset + count, end: offset + most, other })
    return count > 0 ? `ok ${count}` : 'EIO'
  }

  /** As many pieces as the source has healthy parts; short when one after the first fails. */
  #copy({ handle, offset, to, onto, length }: On<'copy'>, said: string): string {
    const source = this.handles.get(handle)!
    const target = this.handles.get(to)!
    if (source.dead || target.dead) {
      // Of nothing: the kernel may answer by itself.
      const size = source.dead ? source.lastSize : source.file.size
      return offset >= size && said === 'ok 0' ? said : 'EIO'
    }
    const end = Math.min(offset + length, source.file.size)
    let at = offset
    while (at < end) {
      const bad = source.file.unreadable(at, end)
      const stop = bad === undefined ? end : bad * BLOCK
      if (stop <= at) break
      const data = Buffer.from(source.file.bytes.subarray(at, stop))
      if (this.#write(target.file, onto + at - offset, data) === 'EIO') break
      at = stop
    }
    return at === offset && at < end ? 'EIO' : `ok ${Math.max(0, at - offset)}`
  }

  #touch(step: On<'load' | 'store'>): string {
    const { file, dead } = this.maps.get(step.map)!
    const { offset, length } = step
    if (dead || file.unreadable(offset, offset + length) !== undefined) return 'SIGBUS'
    if (step.do === 'load') return digest(file.bytes.subarray(offset, offset + length))
    // The page is written back as a whole, and heals the block.
    const start = Math.floor(offset / BLOCK) * BLOCK
    payload(step.number, length).copy(file.bytes, offset)
    file.write(start, Buffer.from(file.bytes.subarray(start, Math.min(start + BLOCK, file.size))))
    return 'ok'
  }

  #onName(step: On<'size-path' | 'resize-path' | 'unlink' | 'rename'>): string {
    const file = this.names.get(step.name)
    if (file === undefined) return 'ENOENT'
    switch (step.do) {
      case 'size-path':
        return `ok ${file.size}`
      case 'resize-path':
        file.resize(step.size)
        return 'ok'
      case 'rename':
        this.names.delete(step.name)
        this.names.set(step.onto, file)
        return 'ok'
      default:
        this.names.delete(step.name)
        return 'ok'
    }
  }

  #onFile(step: On<'fail' | 'heal' | 'extents'>): string {
    const file = this.files().find(({ ino }) => ino === step.ino)!
    switch (step.do) {
      case 'fail':
        return this.#fail(file, step)
      case 'heal': {
        const blocks = file.bad.size
        this.#poisoned -= blocks
        this.#doubts = file.heal()
        return `ok ${blocks * BLOCK}`
      }
      default: {
        const kinds = [...file.blocks].map((kind) => '.ud'[kind])
        return `${file.size} ${kinds.join('')}`
      }
    }
  }

  #fail(file: FileModel, { block, blocks }: On<'fail'>): string {
    const hit = file.blocks.subarray(block, block + blocks)
    if (hit.every((kind) => kind === HOLE)) return 'ENXIO'
    const fresh = file.fail(block, blocks)
    if (fresh.length === 0) return 'data'
    this.#poisoned += fresh.length
    for (const open of [...this.handles.values(), ...this.maps.values()]) {
      if (open.file !== file || open.dead) continue
      open.dead = true
      open.lastSize = file.size
    }
    return `data ${file.ino}`
  }

  #healAll(): string {
    const bytes = this.#poisoned * BLOCK
    this.#poisoned = 0
    for (const file of this.files()) this.#doubts.push(...file.heal())
    return `ok ${bytes}`
  }
}

function reshape(file: FileModel, step: On<Reshape>): void {
  const { offset, length } = step
  if (step.do === 'punch' || step.do === 'zero' || step.do === 'zero-keep') {
    file.punch(offset, length)
  }
  if (step.do === 'punch') return
  file.allocate(offset, length, step.do === 'keep' || step.do === 'zero-keep')
}

/**
 * Makes up the model's mind: `seen` are the bytes from the doubt's offset on. Returns the offset of
 * a byte that is neither what was nor what might be.
 */
export function settle(
  { file, offset, other }: Doubt,
  at: number,
  seen: Buffer,
): number | undefined {
  for (let index = 0; index < seen.length; index++) {
    const byte = seen[index]!
    const place = at + index
    if (byte !== file.bytes[place] && byte !== (other[place - offset] ?? byte)) return place
    file.bytes[place] = byte
  }
  return undefined
}
