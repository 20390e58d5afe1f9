/** The device-dax of the guest, and the ways in which its memory can be made to fail. */
import {
  existsSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  realpathSync,
  renameSync,
  writeFileSync,
} from 'node:fs'
import { basename, dirname } from 'node:path'
import { sleep } from '../../tools/quickstart/programs.ts'

export const DEVICE = '/dev/dax0.0'
export const NAME = 'dax0.0'
const DAX = '/sys/bus/dax'
const EXCHANGE = '/run/host'

let requests = 0

function attribute(path: string): string {
  return readFileSync(path, 'utf8').trim()
}

export const size = () => Number(attribute(`${DAX}/devices/${NAME}/size`))
export const align = () => Number(attribute(`${DAX}/devices/${NAME}/align`))

/** 'major:minor'. */
export const deviceNumber = () => attribute(`${DAX}/devices/${NAME}/dev`)

/** Physical address of a byte of the device. */
export function physical(offset: number): number {
  return Number(attribute(`${DAX}/devices/${NAME}/mapping0/start`)) + offset
}

/** What libnvdimm lists for the region, as device offsets of 512-byte sectors. */
export function badblocks(): { offset: number; length: number }[] {
  const region = '/sys/bus/nd/devices/region0'
  const lead = physical(0) - Number(attribute(`${region}/resource`))
  const lines = attribute(`${region}/badblocks`).split('\n').filter(Boolean)
  return lines.map((line) => {
    const [sector, sectors] = line.split(' ').map(Number) as [number, number]
    return { offset: sector * 512 - lead, length: sectors * 512 }
  })
}

/** The kernel's own injection, from outside of the daemon: hwpoison by page frame. */
export function corruptPage(offset: number): void {
  const frame = Math.floor(physical(offset) / 4096)
  writeFileSync('/sys/kernel/debug/hwpoison/corrupt-pfn', String(frame))
}

/**
 * A genuine machine check. `ao`: the scrubber found it, nobody touched it. `ar`: the program that
 * runs at that moment has just loaded it. Resolves when the processor was told.
 */
export async function machineCheck(kind: 'ao' | 'ar', offset: number): Promise<void> {
  // A name is used once: the share forgets late that a file is gone.
  const file = `${EXCHANGE}/machine-check.${process.pid}.${++requests}`
  writeFileSync(`${file}.new`, `${kind} 0x${physical(offset).toString(16)}\n`)
  renameSync(`${file}.new`, file)
  while (existsSync(file)) await sleep(20)
}

/** 'device_dax', or another driver of the bus; undefined without one. */
export function driver(): string | undefined {
  try {
    return basename(readlinkSync(`${DAX}/devices/${NAME}/driver`))
  } catch {
    return undefined
  }
}

export const drivers = () => readdirSync(`${DAX}/drivers`)

/** Takes the device from its driver. */
export function unbind(): void {
  const present = driver()
  if (present !== undefined) writeFileSync(`${DAX}/drivers/${present}/unbind`, NAME)
}

/** Gives the device to a driver, as daxctl reconfigure-device does. */
export function bind(name: string): void {
  unbind()
  const place = `${DAX}/drivers/${name}`
  // A driver that does not match by itself is told of the device, which binds it as well.
  if (name !== 'device_dax') writeFileSync(`${place}/new_id`, NAME)
  if (driver() === undefined) writeFileSync(`${place}/bind`, NAME)
}

/** Unbinds the driver that made the device of a namespace: the device is gone. */
export function removeDevice(): void {
  const parent = basename(dirname(realpathSync(`${DAX}/devices/${NAME}`)))
  writeFileSync('/sys/bus/nd/drivers/dax_pmem/unbind', parent)
}
