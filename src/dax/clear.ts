/**
 * Clearing poison: the platform is asked where it keeps a list and has a command for it, and only
 * what can be read afterwards counts as cleared.
 */
import { closeSync, openSync } from 'node:fs'
import { native } from '../native/binding.ts'
import { BadRanges, type ByteRange } from './bad-ranges.ts'
import { Badblocks } from './badblocks.ts'
import type { DaxDevice } from './device.ts'
import { withdrawFault } from './fault.ts'
import { MemoryFailure, PAGE_SIZE } from './memory.ts'

/** Makes whole pages usable again where that can be; returns those that work and are not listed. */
export function clearFault(device: DaxDevice, offset: number, length: number): ByteRange[] {
  withdrawFault(device, offset, length)
  const left = new BadRanges()
  left.add(offset, length)
  for (const listed of askPlatform(device, offset, length))
    left.remove(listed.offset, listed.length)
  const working = left.list().flatMap((range) => readable(device, range))
  return working
}

/** Asks for what is listed in the range; returns what is listed still. */
function askPlatform(device: DaxDevice, offset: number, length: number): ByteRange[] {
  const parts = device.below?.parts(offset, length)
  if (parts !== undefined) {
    return parts.flatMap((part) =>
      askPlatform(part.device, part.offset, part.length).map((bad) => {
        return { offset: part.at + bad.offset - part.offset, length: bad.length }
      }),
    )
  }
  const badblocks = Badblocks.of(device.region, device.memory)
  if (badblocks === undefined) return []
  try {
    const listed = () => {
      const all = new BadRanges()
      for (const bad of badblocks.read()) all.add(bad.offset, bad.length)
      return all.within(offset, length)
    }
    for (const bad of listed()) clearListed(badblocks, bad)
    return listed()
  } finally {
    badblocks.close()
  }
}

function clearListed(badblocks: Badblocks, { offset, length }: ByteRange): void {
  let fd: number | undefined
  try {
    fd = openSync(badblocks.control, 'r+')
    // Pages side by side in the device may be far from each other in physical memory.
    for (let at = offset; at < offset + length; at += PAGE_SIZE) {
      const address = badblocks.physical(at)
      if (address !== undefined) native.clearError(fd, address, PAGE_SIZE)
    }
  } catch {
    // No such command, or no permission: it stays in the list, which is what is looked at.
  } finally {
    if (fd !== undefined) closeSync(fd)
  }
}

/** The pages of the range that can be read; the others are refused as before. */
function readable(device: DaxDevice, { offset, length }: ByteRange): ByteRange[] {
  device.markHealed(offset, length)
  const good = new BadRanges()
  const end = offset + length
  good.add(offset, length)
  for (let at = offset; at < end; ) {
    try {
      device.memory.probe(at, end - at)
      break
    } catch (error) {
      if (!(error instanceof MemoryFailure)) throw error
      good.remove(error.offset, PAGE_SIZE)
      device.badRanges.add(error.offset, PAGE_SIZE)
      at = error.offset + PAGE_SIZE
    }
  }
  return good.list()
}
