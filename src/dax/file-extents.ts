/** Where a plain file lies on the disk below its filesystem, which may be one of persistent memory. */
import { existsSync, fstatSync, readFileSync, realpathSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { native } from '../native/binding.ts'
import type { MemoryRange } from './badblocks.ts'
import { deviceNumber } from './region.ts'

const SECTOR = 512

export interface Disk {
  /** Directory in sysfs of the whole disk. */
  readonly directory: string
  /** Byte of the disk where the filesystem's partition begins. */
  readonly start: number
}

/** Undefined for a filesystem without a disk of its own, and for a disk without a list. */
export function diskBelow(fd: number, sysfs: string): Disk | undefined {
  const { major, minor } = deviceNumber(fstatSync(fd, { bigint: true }).dev)
  const link = `${sysfs}/dev/block/${major}:${minor}`
  if (!existsSync(link)) return undefined
  const directory = realpathSync(link)
  if (existsSync(join(directory, 'badblocks'))) return { directory, start: 0 }
  const disk = dirname(directory)
  if (!existsSync(join(disk, 'badblocks'))) return undefined
  return { directory: disk, start: Number(readFileSync(join(directory, 'start'), 'utf8')) * SECTOR }
}

/** The parts of the file that lie on the disk now; holes and what is packed have no place. */
export function rangesOnDisk(fd: number, { start }: Disk): MemoryRange[] {
  let numbers: number[]
  try {
    numbers = native.fileExtents(fd)
  } catch (error) {
    // The filesystem does not say it.
    if ((error as NodeJS.ErrnoException).code !== undefined) return []
    throw error
  }
  const ranges: MemoryRange[] = []
  for (let at = 0; at < numbers.length; at += 3) {
    const [offset, place, length] = numbers.slice(at, at + 3) as [number, number, number]
    ranges.push({ physical: start + place, offset, length })
  }
  return ranges
}
