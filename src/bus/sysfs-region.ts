/** A region of the kernel's dax bus, driven through its attributes in sysfs. */
import {
  closeSync,
  existsSync,
  constants as fsConstants,
  openSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  realpathSync,
  writeSync,
} from 'node:fs'
import { constants } from 'node:os'
import { basename, dirname, join } from 'node:path'
import type { ByteRange } from '../dax/bad-ranges.ts'
import { whoHolds } from '../dax/claim.ts'
import { DaxError } from '../dax/errors.ts'
import { describeRecord } from '../dax/holder-record.ts'
import { instanceName, parseInstance } from '../dax/name.ts'
import type { DaxRegion, DeviceInfo, MappingInfo, RegionInfo } from './dax-region.ts'

const { EACCES, EBUSY, EINVAL, ENODEV, ENOENT, ENOMEM, ENOSPC, ENXIO } = constants.errno

/** The driver whose devices can be mapped. */
const DRIVER = 'device_dax'

export class SysfsRegion implements DaxRegion {
  /** The device that is the parent of the instances. */
  readonly #parent: string
  readonly #sysfs: string
  readonly #id: number

  private constructor(sysfs: string, parent: string, id: number) {
    this.#sysfs = sysfs
    this.#parent = parent
    this.#id = id
  }

  /** Every region of the dax bus. `sysfs` is where sysfs is mounted; tests put one of files there. */
  static all(sysfs = '/sys'): SysfsRegion[] {
    const devices = join(sysfs, 'bus/dax/devices')
    if (!existsSync(devices)) return []
    const parents = new Set(
      readdirSync(devices).map((name) => dirname(realpathSync(join(devices, name)))),
    )
    return [...parents]
      .filter((parent) => existsSync(join(parent, 'dax_region')))
      .map((parent) => new SysfsRegion(sysfs, parent, numberIn(join(parent, 'dax_region/id'))))
      .sort((a, b) => a.#id - b.#id)
  }

  /** Throws DaxError ENODEV when the kernel has no such region. */
  static open(id: number, sysfs = '/sys'): SysfsRegion {
    const found = SysfsRegion.all(sysfs).find((region) => region.#id === id)
    if (found !== undefined) return found
    throw new DaxError(ENODEV, `the kernel has no dax region ${id}: holdfast region list`)
  }

  info(): RegionInfo {
    const isStatic = this.#static()
    const size = numberIn(this.#attribute('size'))
    const named = (name: string) => {
      const text = isStatic ? '' : textIn(this.#attribute(name))
      return text === '' ? null : text
    }
    return {
      region: `dax${this.#id}`,
      id: this.#id,
      kind: 'sysfs',
      static: isStatic,
      size,
      align: numberIn(this.#attribute('align')),
      available_size: isStatic ? 0 : numberIn(this.#attribute('available_size')),
      seed: named('seed'),
      youngest: named('create'),
      devices: this.#devices(),
    }
  }

  createDevice(): string {
    this.#requireDynamic()
    store(this.#attribute('create'), '1', 'create a device', {
      [ENOSPC]: 'the region has no memory left for a new instance',
    })
    return textIn(this.#attribute('create'))
  }

  resize(id: number, size: number): void {
    const name = this.#name(id)
    this.#requireWritable(name)
    store(this.#deviceAttribute(id, 'size'), `${size}`, `resize ${name}`, {
      [EINVAL]: 'the size is off the alignment',
      [ENOSPC]: 'the region does not have so much memory left',
      [EBUSY]: BOUND,
      [ENOENT]: UNKNOWN,
    })
  }

  addMapping(id: number, { offset, length }: ByteRange): void {
    const name = this.#name(id)
    this.#requireDynamic()
    const range = `${offset.toString(16)}-${(offset + length - 1).toString(16)}`
    store(this.#deviceAttribute(id, 'mapping'), range, `map ${range} to ${name}`, {
      [ENXIO]: 'the range is off the alignment',
      [ENOMEM]: 'the range is not free, or outside the region',
      [ENOENT]: UNKNOWN,
    })
  }

  setAlign(id: number, align: number): void {
    const name = this.#name(id)
    this.#requireWritable(name)
    store(this.#deviceAttribute(id, 'align'), `${align}`, `align ${name}`, {
      [EINVAL]: 'the processor has no such alignment, or a range of the device does not fit it',
      [EBUSY]: BOUND,
      [ENOENT]: UNKNOWN,
    })
  }

  enable(id: number): void {
    const name = this.#name(id)
    const tell = (attribute: string) =>
      store(join(this.#drivers(), DRIVER, attribute), name, `enable ${name}`, {
        [ENXIO]: 'it has no memory: give it some with holdfast region resize',
        [EBUSY]: 'it is enabled already',
        [ENODEV]: UNKNOWN,
        [ENOENT]: `the driver ${DRIVER} is not there: modprobe ${DRIVER}`,
      })
    const named = join(this.#drivers(), DRIVER, 'new_id')
    try {
      tell('bind')
    } catch (error) {
      if (!(error instanceof DaxError) || error.code !== 'ENODEV' || !existsSync(named)) throw error
      // Memory set aside is meant for kmem since Linux 6.3: this driver must be told of it by name.
      tell('new_id')
      // Now it matches. That call binds, or not, and does not say why.
      if (driverOf(join(this.#parent, name)) === null) tell('bind')
    }
  }

  disable(id: number): void {
    const name = this.#name(id)
    const driver = driverOf(join(this.#parent, name))
    if (driver === null) throw new DaxError(ENODEV, `${name} is not enabled`)
    // The kernel would take the memory away under a mount.
    const holder = whoHoldsNode(name)
    if (holder !== undefined) throw new DaxError(EBUSY, `${name} is in use: ${holder}`)
    store(join(this.#drivers(), driver, 'unbind'), name, `disable ${name}`, { [ENODEV]: UNKNOWN })
  }

  deleteDevice(id: number): void {
    const name = this.#name(id)
    this.#requireDynamic()
    store(this.#attribute('delete'), name, `delete ${name}`, {
      [ENXIO]: UNKNOWN,
      [EBUSY]: 'it is enabled, still has memory, or is instance 0, which always stays',
    })
  }

  close(): void {}

  #attribute(name: string): string {
    return join(this.#parent, 'dax_region', name)
  }

  #deviceAttribute(id: number, name: string): string {
    return join(this.#parent, this.#name(id), name)
  }

  #drivers(): string {
    return join(this.#sysfs, 'bus/dax/drivers')
  }

  #name(id: number): string {
    return instanceName({ region: this.#id, id })
  }

  /** The kernel shows the attributes of a dynamic region only where they mean something. */
  #static(): boolean {
    return !existsSync(this.#attribute('create'))
  }

  #requireDynamic(): void {
    if (!this.#static()) return
    throw new DaxError(EINVAL, `region ${this.#id} is static: it has one instance, all of it`)
  }

  /** The attributes of a device in a static region are read-only. */
  #requireWritable(name: string): void {
    if (!this.#static()) return
    throw new DaxError(EACCES, `${name} is static: it is the whole of region ${this.#id}`)
  }

  #devices(): DeviceInfo[] {
    return readdirSync(this.#parent)
      .map((name) => ({ name, id: parseInstance(name)?.id }))
      .filter((found): found is { name: string; id: number } => found.id !== undefined)
      .sort((a, b) => a.id - b.id)
      .map(({ name }) => deviceInfo(name, join(this.#parent, name)))
  }
}

const BOUND = 'it is enabled: disable it first, holdfast region disable'
const UNKNOWN = 'there is no such device'

function deviceInfo(name: string, path: string): DeviceInfo {
  const driver = driverOf(path)
  return {
    name,
    size: numberIn(join(path, 'size')),
    align: numberIn(join(path, 'align')),
    enabled: driver !== null,
    driver,
    mappings: readdirSync(path)
      .filter((entry) => /^mapping\d+$/.test(entry))
      .map((entry) => mappingInfo(join(path, entry)))
      .sort((a, b) => a.page_offset - b.page_offset),
  }
}

function mappingInfo(path: string): MappingInfo {
  const start = numberIn(join(path, 'start'))
  const length = numberIn(join(path, 'end')) - start + 1
  return { page_offset: numberIn(join(path, 'page_offset')), start, length }
}

function driverOf(device: string): string | null {
  try {
    return basename(readlinkSync(join(device, 'driver')))
  } catch {
    return null
  }
}

function whoHoldsNode(name: string): string | undefined {
  const record = whoHolds(`/dev/${name}`)
  return record === undefined ? undefined : describeRecord(record)
}

/** One write, without creating: an attribute that is not there is ENOENT. */
function store(
  path: string,
  value: string,
  what: string,
  sentences: Readonly<Record<number, string>>,
): void {
  try {
    const fd = openSync(path, fsConstants.O_WRONLY)
    try {
      writeSync(fd, value)
    } finally {
      closeSync(fd)
    }
  } catch (error) {
    const { errno, code, message } = error as NodeJS.ErrnoException
    if (errno === undefined) throw error
    const number = Math.abs(errno)
    const why = sentences[number] ?? (code === 'EACCES' ? 'you are not root' : message)
    const told = number === ENOENT && sentences[ENOENT] === UNKNOWN ? ENXIO : number
    throw new DaxError(told, `cannot ${what}: ${why}`, { cause: error })
  }
}

function textIn(path: string): string {
  return readFileSync(path, 'utf8').trim()
}

function numberIn(path: string): number {
  const value = Number(textIn(path))
  if (Number.isSafeInteger(value)) return value
  throw new DaxError(EINVAL, `${path} does not hold a number`)
}
