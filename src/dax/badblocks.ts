/**
 * The list of bad memory that libnvdimm keeps: for the region of a device, or for the disk that a
 * plain file lies on. From the platform's own scrubbing and from machine checks, to the sector.
 * Poison that was only simulated is not in it.
 */
import {
  closeSync,
  existsSync,
  openSync,
  readdirSync,
  readFileSync,
  readSync,
  realpathSync,
} from 'node:fs'
import { basename, dirname, join } from 'node:path'
import { native } from '../native/binding.ts'
import { BadRanges, type ByteRange } from './bad-ranges.ts'
import { diskBelow, rangesOnDisk } from './file-extents.ts'
import { type Memory, PAGE_SIZE } from './memory.ts'
import { type Region, wholeKey } from './region.ts'

const SECTOR = 512
/** A sysfs attribute is one page at most. */
const ATTRIBUTE_MAX = 4096

/** Where a part of the device lies in physical memory. */
export interface MemoryRange {
  readonly physical: number
  /** Of the device, bytes. */
  readonly offset: number
  readonly length: number
}

export class Badblocks {
  /** Directory of the libnvdimm region, or of the disk, in sysfs. */
  readonly region: string
  /** Physical address of the list's sector 0; of a disk, its own byte 0. */
  readonly #base: number | undefined
  /** A file may be given other blocks of its disk, and more of them. */
  readonly #ranges: () => readonly MemoryRange[]
  readonly #fd: number

  private constructor(
    region: string,
    base: number | undefined,
    ranges: () => readonly MemoryRange[],
  ) {
    this.region = region
    this.#base = base
    this.#ranges = ranges
    this.#fd = openSync(join(region, 'badblocks'), 'r')
  }

  /**
   * Of what a device was made of, as it is mapped; a mapped device has none, but each of its
   * targets has. The disk is the memory of a file only where there is no page cache between (DAX).
   */
  static of(
    region: Region | undefined,
    { durableStores }: Pick<Memory, 'durableStores'>,
  ): Badblocks | undefined {
    if (region === undefined) return undefined
    if (region.key.startsWith('file-')) return durableStores ? Badblocks.#ofFile(region) : undefined
    return Badblocks.open(wholeKey(region.key), region.sysfs, region.pieces)
  }

  static #ofFile({ fd, sysfs = '/sys', pieces }: Region): Badblocks | undefined {
    return unlessRefused(() => {
      const disk = diskBelow(fd, sysfs)
      if (disk === undefined) return undefined
      return new Badblocks(disk.directory, undefined, () => {
        const file = rangesOnDisk(fd, disk)
        return pieces === undefined ? file : piecesIn(file, pieces)
      })
    })
  }

  /**
   * Undefined for a region that is no device-dax, or whose memory nobody keeps a list of. With
   * `pieces` of the node, an instance in it: the list counts as the instance does.
   */
  static open(
    key: string | undefined,
    sysfs = '/sys',
    pieces?: readonly ByteRange[],
  ): Badblocks | undefined {
    const number = /^dax-(\d+)-(\d+)$/.exec(key ?? '')
    if (number === null) return undefined
    return unlessRefused(() => {
      const device = realpathSync(`${sysfs}/dev/char/${number[1]}:${number[2]}`)
      const region = directoryAbove(device, 'badblocks')
      if (region === undefined) return undefined
      const node = memoryRanges(device)
      const ranges = pieces === undefined ? node : piecesIn(node, pieces)
      return new Badblocks(region, attribute(region, 'resource'), () => ranges)
    })
  }

  /** Bad pages of the device, as it counts its own bytes. Empty when the device is gone. */
  read(): ByteRange[] {
    const buffer = Buffer.alloc(ATTRIBUTE_MAX)
    let length = 0
    try {
      length = readSync(this.#fd, buffer, 0, buffer.length, 0)
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENODEV') throw error
    }
    const bad = new BadRanges()
    const listed = parseBadblocks(buffer.toString('latin1', 0, length))
    const ranges = listed.length > 0 ? this.#ranges() : []
    for (const { offset, length: bytes } of listed) {
      for (const part of toDevice((this.#base ?? 0) + offset, bytes, ranges)) {
        bad.add(part.offset, part.length)
      }
    }
    return bad.list()
  }

  /** Physical address of a byte of the device; nobody tells it of a disk. */
  physical(offset: number): number | undefined {
    if (this.#base === undefined) return undefined
    const range = this.#ranges().find((r) => offset >= r.offset && offset < r.offset + r.length)
    return range === undefined ? undefined : range.physical + offset - range.offset
  }

  /** The character device that takes commands for the region's bus. */
  get control(): string {
    return `/dev/ndctl${/\d+$/.exec(basename(dirname(this.region)))?.[0] ?? 0}`
  }

  /** Calls `onChange` when the list has changed (POLLPRI); returns what ends that. */
  watch(onChange: () => void): () => void {
    return native.watchAttribute(this.#fd, onChange)
  }

  close(): void {
    closeSync(this.#fd)
  }
}

/** No permission to read addresses, or no such attributes: then the list cannot be used. */
function unlessRefused(open: () => Badblocks | undefined): Badblocks | undefined {
  try {
    return open()
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== undefined) return undefined
    throw error
  }
}

/** What the list says now about what was opened; empty where there is no list. */
export function listedBad(region: Region, memory: Memory): ByteRange[] {
  const badblocks = Badblocks.of(region, memory)
  try {
    return badblocks?.read() ?? []
  } finally {
    badblocks?.close()
  }
}

/** Lines "sector count", as bytes from sector 0 on. */
export function parseBadblocks(text: string): ByteRange[] {
  return [...text.matchAll(/^(\d+) (\d+)$/gm)].map(([, sector, count]) => ({
    offset: Number(sector) * SECTOR,
    length: Number(count) * SECTOR,
  }))
}

/** The parts of physical [start, start + length) that are in the device, as whole pages of it. */
export function toDevice(
  start: number,
  length: number,
  ranges: readonly MemoryRange[],
): ByteRange[] {
  return ranges.flatMap((range) => {
    const from = Math.max(start, range.physical)
    const to = Math.min(start + length, range.physical + range.length)
    if (from >= to) return []
    const first = from - range.physical + range.offset
    const offset = first - (first % PAGE_SIZE)
    const end = Math.ceil((first + to - from) / PAGE_SIZE) * PAGE_SIZE
    return [{ offset, length: end - offset }]
  })
}

/** Where the pieces of a node, end to end, lie in physical memory. */
export function piecesIn(
  node: readonly MemoryRange[],
  pieces: readonly ByteRange[],
): MemoryRange[] {
  let at = 0
  return pieces.flatMap((piece) => {
    const start = at
    at += piece.length
    return node.flatMap((range) => {
      const from = Math.max(piece.offset, range.offset)
      const to = Math.min(piece.offset + piece.length, range.offset + range.length)
      if (from >= to) return []
      const physical = range.physical + from - range.offset
      return [{ physical, offset: start + from - piece.offset, length: to - from }]
    })
  })
}

/** Directories mappingN say it; before Linux 5.10 there is one range and no such directory. */
function memoryRanges(device: string): MemoryRange[] {
  const mappings = readdirSync(device).filter((name) => /^mapping\d+$/.test(name))
  if (mappings.length === 0) {
    const [physical, length] = [attribute(device, 'resource'), attribute(device, 'size')]
    return [{ physical, offset: 0, length }]
  }
  return mappings.map((name) => {
    const directory = join(device, name)
    const physical = attribute(directory, 'start')
    const offset = attribute(directory, 'page_offset') * PAGE_SIZE
    return { physical, offset, length: attribute(directory, 'end') - physical + 1 }
  })
}

function directoryAbove(from: string, file: string): string | undefined {
  for (let at = from; at !== dirname(at); at = dirname(at)) {
    if (existsSync(join(at, file)) && existsSync(join(at, 'resource'))) return at
  }
  return undefined
}

function attribute(directory: string, name: string): number {
  const value = Number(readFileSync(join(directory, name), 'utf8').trim())
  if (Number.isSafeInteger(value)) return value
  throw Object.assign(new Error(`${join(directory, name)} is no number`), { code: 'EINVAL' })
}
