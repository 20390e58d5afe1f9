/** A dax region as its commands see it, wherever its state is kept. */
import type { ByteRange } from '../dax/bad-ranges.ts'

/** The attributes of a region and of its devices, by their names in sysfs. */
export interface RegionInfo {
  /** How its commands name it: the path of the file, or dax0. */
  readonly region: string
  readonly id: number
  readonly kind: 'file' | 'sysfs'
  readonly static: boolean
  readonly size: number
  readonly align: number
  readonly available_size: number
  /** Null when there is none. */
  readonly seed: string | null
  readonly youngest: string | null
  readonly devices: readonly DeviceInfo[]
}

export interface DeviceInfo {
  readonly name: string
  readonly size: number
  readonly align: number
  readonly enabled: boolean
  /** Null when it is not enabled. */
  readonly driver: string | null
  readonly mappings: readonly MappingInfo[]
}

/** mappingN: where a part of the device lies. */
export interface MappingInfo {
  readonly page_offset: number
  readonly start: number
  readonly length: number
}

/** All but info() throw DaxError with the errno of the kernel's attribute, and change nothing. */
export interface DaxRegion {
  info(): RegionInfo
  /** The name of the new device. */
  createDevice(): string
  resize(id: number, size: number): void
  addMapping(id: number, range: ByteRange): void
  setAlign(id: number, align: number): void
  enable(id: number): void
  disable(id: number): void
  deleteDevice(id: number): void
  close(): void
}
