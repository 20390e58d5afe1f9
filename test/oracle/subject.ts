/** Where steps are done for real, and what the operator's steps are in terms of Administration. */
import type { FileMap, InjectRequest, InjectResult, Status } from '../../src/fs/administration.ts'
import { BLOCK, BLOCKS_MAX } from './file-model.ts'
import type { Step, StepName } from './steps.ts'

/** A way to a file's bytes. */
export type Place = { handle: number } | { map: number } | { name: string }

export interface Subject {
  /** A read that meets failed memory ends before it; otherwise it is EIO as a whole. */
  readonly shortReads: boolean
  /** Writes go through a page cache that reads before it writes: see FileModel.unwritable. */
  readonly writesPages: boolean
  /** Steps it cannot do. */
  readonly without: ReadonlySet<StepName>
  /** `ok …`, the name of an errno, or of the signal that killed who did it. */
  perform(step: Step): Promise<string>
  /** Bytes as they are; throws when they cannot be read. */
  peek(place: Place, offset: number, length: number): Promise<Buffer>
  /** Takes all down. Returns what fsck says against it. */
  end(): Promise<string | undefined>
}

/** The part of an operator's requests that steps need. */
export interface Operator {
  getmap(inode: number): Promise<FileMap>
  inject(request: InjectRequest): Promise<InjectResult>
  /** Returns the bytes given back. */
  clearPoison(range: { offset: number; length: number } | 'all'): Promise<number>
  status(): Promise<Pick<Status, 'state' | 'blocks'>>
  checkpoint(): Promise<unknown>
}

/** Undefined for the steps that are no operator's. */
export async function operate(operator: Operator, step: Step): Promise<string | undefined> {
  switch (step.do) {
    case 'fail': {
      const target = { kind: 'file', inode: step.ino, fileOffset: step.block * BLOCK } as const
      return fail(operator, target, step.blocks)
    }
    case 'fail-free':
      return fail(operator, { kind: 'free' }, step.blocks)
    case 'heal': {
      const { extents } = await operator.getmap(step.ino)
      let bytes = 0
      for (const { regionOffset: offset, length, flags } of extents) {
        if (flags.includes('poisoned')) bytes += await operator.clearPoison({ offset, length })
      }
      return `ok ${bytes}`
    }
    case 'heal-all':
      return `ok ${await operator.clearPoison('all')}`
    case 'status': {
      const { state, blocks } = await operator.status()
      return `${state} ${blocks.poisoned}`
    }
    case 'checkpoint':
      await operator.checkpoint()
      return 'ok'
    case 'extents':
      return shapeOf(await operator.getmap(step.ino))
    default:
      return undefined
  }
}

async function fail(
  operator: Operator,
  target: InjectRequest['target'],
  blocks: number,
): Promise<string> {
  const request = { target, length: blocks * BLOCK, method: 'soft' } as const
  const { kind, inodes, shutdown } = await operator.inject(request)
  return [kind, ...inodes, ...(shutdown ? ['shutdown'] : [])].join(' ')
}

/** The size, and a letter for each block: hole, unwritten or data. */
function shapeOf({ size, extents }: FileMap): string {
  const kinds = new Array<string>(BLOCKS_MAX).fill('.')
  for (const { fileOffset, length, flags } of extents) {
    const first = fileOffset / BLOCK
    kinds.fill(flags.includes('unwritten') ? 'u' : 'd', first, first + length / BLOCK)
  }
  return `${size} ${kinds.join('')}`
}
