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
import { basename, dirname, join } from 'node:path'
import { sleep } from '../../tools/quickstart/programs.ts'

const DAX = '/sys/bus/dax'
const EXCHANGE = '/run/host'

/** The device of the NVDIMM: dax0.0, unless the region of the memory set aside came first. */
export const NAME = readdirSync(`${DAX}/devices`).find((name) => place(name).includes('/ndbus'))!
export const DEVICE = `/dev/${NAME}`

let requests = 0

/** Directory of a device in sysfs, below that of its region. */
function place(name: string): string {
  return realpathSync(`${DAX}/devices/${name}`)
}

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
  const device = place(NAME)
  const region = device.slice(0, device.indexOf('/', device.indexOf('/region') + 1))
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
  await machineCheckAt(kind, physical(offset))
}

/** The same, of any memory. */
export async function machineCheckAt(kind: 'ao' | 'ar', address: number): Promise<void> {
  await request(`${kind} ${hex(address)}`)
}

/**
 * A genuine machine check (ar) at the very touch with which a process meets that byte, outside of
 * the kernel. Resolves when it will be; the answer says whether it was.
 */
export async function machineCheckAtTouch(pid: number, offset: number): Promise<() => boolean> {
  const page = physical(offset - (offset % 4096))
  const file = await request(`ar ${hex(page)} at ${hex(addressIn(pid, offset))}`)
  return () => existsSync(`${file}.raised`)
}

/** Resolves to the name of the request when the host has taken it. */
async function request(words: string): Promise<string> {
  // A name is used once: the share forgets late that a file is gone.
  const file = join(EXCHANGE, `machine-check.${process.pid}.${++requests}`)
  writeFileSync(`${file}.new`, `${words}\n`)
  renameSync(`${file}.new`, file)
  while (existsSync(file)) await sleep(20)
  return file
}

/** Where a process has a byte of the device mapped. */
function addressIn(pid: number, offset: number): number {
  const lines = readFileSync(`/proc/${pid}/maps`, 'utf8').split('\n')
  for (const line of lines.filter((text) => text.endsWith(` ${DEVICE}`))) {
    const fields = /^(\w+)-(\w+) \S+ (\w+)/.exec(line)!.slice(1)
    const [start, end, from] = fields.map((text) => Number.parseInt(text, 16)) as [
      number,
      number,
      number,
    ]
    const address = start + offset - from
    if (address >= start && address < end) return address
  }
  throw new Error(`process ${pid} has not mapped byte ${offset} of ${DEVICE}`)
}

const hex = (value: number) => `0x${value.toString(16)}`

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
  const parent = basename(dirname(place(NAME)))
  writeFileSync('/sys/bus/nd/drivers/dax_pmem/unbind', parent)
}
