/**
 * A region that goes away under its holder. The daemon learns of it at once where the system tells:
 * a plain file that is cut or unlinked by inotify; the driver of a device-dax node by a look once a
 * second. Elsewhere the first touch that fails asks.
 *
 *     all of it is gone      killDax: the holder hears MF_MEM_PRE_REMOVE, then the device is dead
 *     a part is cut off      memory failure of that part
 *     the name is gone       a warning: the memory is there as long as it is held open
 */
import { existsSync, type FSWatcher, fstatSync, watch } from 'node:fs'
import type { ByteRange } from './bad-ranges.ts'
import type { DaxDevice } from './device.ts'
import { killDax } from './holder.ts'
import { PAGE_SIZE } from './memory.ts'
import type { Region } from './region.ts'

const LOOK_MS = 1000

/** Returns the function that ends the watch; to be called before the device is closed. */
export function watchRemoval(dev: DaxDevice, warn: (sentence: string) => void): () => void {
  const stops = leavesOf(dev).map((leaf) => watchLeaf(leaf, warn))
  return () => {
    for (const stop of stops) stop()
  }
}

/** After a touch that failed: true when it is explained, and its consequences have been had. */
export function lookForRemoval(dev: DaxDevice): boolean {
  let news = false
  for (const leaf of leavesOf(dev)) news = lookAt(leaf) || news
  return news
}

/** The devices that have memory of their own, below any mapped ones. */
function leavesOf(dev: DaxDevice): DaxDevice[] {
  return dev.below === undefined ? [dev] : dev.below.targets.flatMap(leavesOf)
}

function watchLeaf(dev: DaxDevice, warn: (sentence: string) => void): () => void {
  const { region } = dev
  if (region === undefined) return () => {}
  if (region.kind === 'device-dax') {
    const timer = setInterval(() => lookAt(dev), LOOK_MS).unref()
    return () => clearInterval(timer)
  }
  let named = true
  return watchFile(region, () => {
    lookAt(dev)
    if (!named || fstatSync(region.fd).nlink > 0) return
    named = false
    warn(`${region.path} was deleted: its memory lasts until this mount ends, and no longer`)
  })
}

/** By its descriptor: the path may lead elsewhere by now. */
function watchFile({ fd }: Region, changed: () => void): () => void {
  let watcher: FSWatcher | undefined
  try {
    watcher = watch(`/proc/self/fd/${fd}`, { persistent: false }, changed)
    watcher.on('error', () => watcher?.close())
  } catch {
    // No inotify, or no watch left: the first touch tells.
  }
  return () => watcher?.close()
}

/** True when something is missing that was not known to be. */
function lookAt(dev: DaxDevice): boolean {
  const { region } = dev
  if (region === undefined || !dev.alive) return false
  const lost = region.kind === 'file' ? cutOff(region) : withoutDriver(region)
  const news = lost.filter(({ offset, length }) => !isKnown(dev, offset, length))
  if (news.length === 0) return false
  if (lost.reduce((sum, range) => sum + range.length, 0) === dev.size) killDax(dev)
  else for (const { offset, length } of news) dev.memoryFailure(offset, length)
  return true
}

function isKnown(dev: DaxDevice, offset: number, length: number): boolean {
  const [known] = dev.badRanges.within(offset, length)
  return known?.length === length
}

/** Ranges of the device that lie behind the end of the file. */
function cutOff({ fd, size, pieces }: Region): ByteRange[] {
  const end = fstatSync(fd).size
  const lost: ByteRange[] = []
  let at = 0
  for (const piece of pieces ?? [{ offset: 0, length: size }]) {
    // The page that the end is in can still be touched.
    const left = Math.ceil(Math.max(0, end - piece.offset) / PAGE_SIZE) * PAGE_SIZE
    const kept = Math.min(piece.length, left)
    if (kept < piece.length) lost.push({ offset: at + kept, length: piece.length - kept })
    at += piece.length
  }
  return lost
}

function withoutDriver({ key, size }: Region): ByteRange[] {
  const number = /^dax-(\d+)-(\d+)/.exec(key)
  const bound = number === null || existsSync(`/sys/dev/char/${number[1]}:${number[2]}/driver`)
  return bound ? [] : [{ offset: 0, length: size }]
}
