/** A made-up sysfs of NVDIMMs, and regions of files that take themselves for their device-dax. */
import { mkdirSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Region } from '../../src/dax/region.ts'

const UNIT = 2 << 20
/** No device has this number. */
const MAJOR = 4095

export interface Nvdimm {
  /** The made-up /sys. */
  readonly sysfs: string
  readonly minor: number
  /** The list of bad blocks, to be rewritten. */
  readonly list: string
  /** The line of the list for the page of the device at this offset. */
  line(offset: number): string
  /** A file that is open, as if it were the device. */
  as(region: Region): Region
}

/**
 * A region of the bus with one device in it, behind an info block of 2 MiB. With `list`, a file
 * that is there already.
 */
export function makeNvdimm(sysfs: string, minor: number, size: number, list?: string): Nvdimm {
  const base = (minor + 1) * 2 ** 36
  const region = join(sysfs, `devices/ndbus${minor}/region${minor}`)
  const mapping = join(region, `dax${minor}.0/mapping0`)
  mkdirSync(mapping, { recursive: true })
  mkdirSync(join(sysfs, 'dev/char'), { recursive: true })
  symlinkSync(join(region, `dax${minor}.0`), join(sysfs, `dev/char/${MAJOR}:${minor}`))
  writeFileSync(join(region, 'resource'), `0x${base.toString(16)}\n`)
  writeFileSync(join(mapping, 'start'), `0x${(base + UNIT).toString(16)}\n`)
  writeFileSync(join(mapping, 'end'), `0x${(base + UNIT + size - 1).toString(16)}\n`)
  writeFileSync(join(mapping, 'page_offset'), '0x0\n')
  if (list === undefined) writeFileSync(join(region, 'badblocks'), '')
  else symlinkSync(list, join(region, 'badblocks'))
  const own = `dax-${MAJOR}-${minor}`
  return {
    sysfs,
    minor,
    list: join(region, 'badblocks'),
    line: (offset) => `${(UNIT + offset) / 512} 8\n`,
    as: (opened) => ({ ...opened, sysfs, key: opened.key.replace(/^file-[0-9a-f]+-\d+/, own) }),
  }
}
