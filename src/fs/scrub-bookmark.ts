/** Where a scrub was stopped, kept beside the control socket: lost with the host's next boot. */
import { readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { runtimeDirectory } from '../dax/runtime-directory.ts'

export interface Bookmark {
  /** Of the filesystem: another one may be in the region by now. */
  readonly uuid: string
  readonly position: number
  readonly checked: number
  readonly found: number
}

/** Memory that only this process sees has no key, and no bookmark. */
function pathOf(key: string | undefined): string | undefined {
  return key === undefined ? undefined : join(runtimeDirectory(), `${key}.scrub`)
}

export function loadBookmark(key: string | undefined, uuid: string): Bookmark | undefined {
  const path = pathOf(key)
  if (path === undefined) return undefined
  try {
    const bookmark = JSON.parse(readFileSync(path, 'utf8')) as Bookmark
    const numbers = [bookmark.position, bookmark.checked, bookmark.found]
    const whole = numbers.every((number) => Number.isSafeInteger(number) && number >= 0)
    return whole && bookmark.uuid === uuid ? bookmark : undefined
  } catch {
    return undefined
  }
}

/** A scrub that cannot be bookmarked begins anew the next time: no reason to fail. */
export function saveBookmark(key: string | undefined, bookmark: Bookmark): void {
  const path = pathOf(key)
  if (path === undefined) return
  try {
    writeFileSync(`${path}.new`, JSON.stringify(bookmark), { mode: 0o600 })
    renameSync(`${path}.new`, path)
  } catch {
    rmSync(`${path}.new`, { force: true })
  }
}

export function removeBookmark(key: string | undefined): void {
  const path = pathOf(key)
  if (path !== undefined) rmSync(path, { force: true })
}
