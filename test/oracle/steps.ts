/** Random steps with files whose memory fails. A seed determines them, given the model's state. */
import { Random } from '../crash/random.ts'
import type { FailureModel } from './failure-model.ts'
import { BLOCK, BLOCKS_MAX, FILE_MAX } from './file-model.ts'

export const NAMES = ['a', 'b', 'c', 'd', 'e']
const HANDLES = 8
const MAPS = 4

interface Range {
  readonly offset: number
  readonly length: number
}

interface OnHandle {
  readonly handle: number
}

interface OnMap {
  readonly map: number
}

interface OnName {
  readonly name: string
}

/** A file by its inode number: it need not have a name any more. */
interface OnFile {
  readonly ino: number
}

/** The number of the step, from which the bytes that are written come. */
interface Numbered {
  readonly number: number
}

/** What each step says; handles and mappings are places in a table. */
interface Fields {
  open: OnHandle & OnName
  close: OnHandle
  size: OnHandle
  sync: OnHandle
  read: OnHandle & Range
  write: OnHandle & Range & Numbered
  allocate: OnHandle & Range
  keep: OnHandle & Range
  punch: OnHandle & Range
  zero: OnHandle & Range
  'zero-keep': OnHandle & Range
  resize: OnHandle & { readonly size: number }
  copy: OnHandle & Range & { readonly to: number; readonly onto: number }
  map: OnHandle & OnMap & { readonly length: number }
  unmap: OnMap
  load: OnMap & Range
  store: OnMap & Range & Numbered
  'resize-path': OnName & { readonly size: number }
  'size-path': OnName
  unlink: OnName
  rename: OnName & { readonly onto: string }
  fail: OnFile & { readonly block: number; readonly blocks: number }
  'fail-free': { readonly blocks: number }
  heal: OnFile
  'heal-all': object
  status: object
  checkpoint: object
  remount: object
  extents: OnFile
}

export type StepName = keyof Fields
/** The steps of these names. */
export type On<Names extends StepName> = { [N in Names]: { readonly do: N } & Fields[N] }[Names]
export type Step = On<StepName>

const WEIGHTS: Record<StepName, number> = {
  open: 12,
  close: 4,
  size: 3,
  sync: 2,
  read: 18,
  write: 20,
  allocate: 3,
  keep: 3,
  punch: 5,
  zero: 3,
  'zero-keep': 2,
  resize: 4,
  copy: 5,
  map: 4,
  unmap: 1,
  load: 8,
  store: 5,
  'resize-path': 2,
  'size-path': 3,
  unlink: 1,
  rename: 2,
  fail: 8,
  'fail-free': 1,
  heal: 2,
  'heal-all': 0.3,
  status: 1,
  checkpoint: 0.5,
  remount: 0.1,
  extents: 3,
}

export type Reshape = 'allocate' | 'keep' | 'punch' | 'zero' | 'zero-keep'
type HandleStep = 'close' | 'size' | 'sync' | 'read' | 'write' | 'resize' | 'copy' | 'map' | Reshape

export class Steps {
  readonly #random: Random
  readonly #bag: StepName[]
  #number = 0

  constructor(seed: number, without: ReadonlySet<StepName>) {
    this.#random = new Random(seed)
    this.#bag = (Object.keys(WEIGHTS) as StepName[])
      .filter((name) => !without.has(name))
      .flatMap((name) => new Array<StepName>(WEIGHTS[name] * 10).fill(name))
  }

  /** A step that means something in the model's state. */
  next(model: FailureModel): Step {
    this.#number++
    for (;;) {
      const step = this.#draw(this.#random.pick(this.#bag), model)
      if (step !== undefined) return step
    }
  }

  #draw(name: StepName, model: FailureModel): Step | undefined {
    const random = this.#random
    switch (name) {
      case 'open':
        return { do: name, handle: random.below(HANDLES), name: random.pick(NAMES) }
      case 'rename':
        return { do: name, name: random.pick(NAMES), onto: random.pick(NAMES) }
      case 'size-path':
      case 'unlink':
        return { do: name, name: random.pick(NAMES) }
      case 'resize-path':
        return { do: name, name: random.pick(NAMES), size: random.below(FILE_MAX) }
      case 'fail-free':
        return { do: name, blocks: 1 + random.below(3) }
      case 'heal-all':
      case 'status':
      case 'checkpoint':
      case 'remount':
        return { do: name }
      case 'fail':
      case 'heal':
      case 'extents':
        return this.#onFile(name, model)
      case 'unmap':
      case 'load':
      case 'store':
        return this.#onMap(name, model)
      default:
        return this.#onHandle(name, model)
    }
  }

  #onFile(name: 'fail' | 'heal' | 'extents', model: FailureModel): Step | undefined {
    const files = model.files()
    if (files.length === 0) return undefined
    const { ino } = this.#random.pick(files)
    if (name !== 'fail') return { do: name, ino }
    const blocks = this.#random.chance(0.8) ? 1 : 1 + this.#random.below(6)
    return { do: name, ino, block: this.#random.below(BLOCKS_MAX - blocks), blocks }
  }

  #onMap(name: 'unmap' | 'load' | 'store', model: FailureModel): Step | undefined {
    const maps = [...model.maps.keys()]
    if (maps.length === 0) return undefined
    const map = this.#random.pick(maps)
    if (name === 'unmap') return { do: name, map }
    const { length: mapped, file } = model.maps.get(map)!
    const end = Math.min(mapped, file.size)
    if (end === 0) return undefined
    const offset = this.#random.below(end)
    if (name === 'load') {
      return { do: name, map, offset, length: 1 + this.#random.below(end - offset) }
    }
    // Within one page: of a longer one that is killed, nobody knows how far it came.
    const most = Math.min(end, (Math.floor(offset / BLOCK) + 1) * BLOCK) - offset
    const length = 1 + this.#random.below(most)
    return { do: name, map, offset, length, number: this.#number }
  }

  #onHandle(name: HandleStep, model: FailureModel): Step | undefined {
    const random = this.#random
    const handles = [...model.handles.keys()]
    if (handles.length === 0) return undefined
    const handle = random.pick(handles)
    const { offset, length } = this.#range()
    switch (name) {
      case 'read':
        return { do: name, handle, offset, length }
      case 'write':
        return { do: name, handle, offset, length, number: this.#number }
      case 'resize':
        return { do: name, handle, size: offset }
      case 'map': {
        const { size } = model.handles.get(handle)!.file
        return size === 0 ? undefined : { do: name, handle, map: random.below(MAPS), length: size }
      }
      case 'copy': {
        const to = random.pick(handles)
        const onto = this.#range().offset
        const same = model.handles.get(handle)!.file === model.handles.get(to)!.file
        const most = Math.min(length, FILE_MAX - onto)
        const apart = same ? Math.min(most, Math.abs(offset - onto)) : most
        return apart === 0 ? undefined : { do: name, handle, offset, to, onto, length: apart }
      }
      case 'close':
      case 'size':
      case 'sync':
        return { do: name, handle }
      default:
        return { do: name, handle, offset, length }
    }
  }

  /** Whole blocks as often as not: only they heal. */
  #range(): Range {
    const random = this.#random
    if (random.chance(0.5)) {
      const block = random.below(BLOCKS_MAX)
      const blocks = 1 + random.below(Math.min(8, BLOCKS_MAX - block))
      return { offset: block * BLOCK, length: blocks * BLOCK }
    }
    const offset = random.below(FILE_MAX)
    const length = 1 + random.below(random.chance(0.5) ? 300 : 20_000)
    return { offset, length: Math.min(length, FILE_MAX - offset) }
  }
}
