/** The machine: software emulation, NVDIMMs, memory set aside, the host's root over 9p. */
import type { Kernel } from './kernel.ts'
import type { Ports } from './machine-checks.ts'

/** The device-dax, info block included; a multiple of 128 MiB. */
export const NVDIMM_MIB = 512
/** A second one, for a filesystem with DAX. */
export const DISK_MIB = 256

export interface Machine {
  readonly kernel: Kernel
  readonly initramfs: string
  /** Contents of the NVDIMMs. */
  readonly memory: string
  readonly disk: string
  /** Alignment of the device, bytes. */
  readonly align: number
  readonly cpus: number
  /** Shared read-write with the guest. */
  readonly exchange: string
  readonly ports: Ports
  readonly console: string
}

/** The vendor decides how the guest grades machine checks. */
const CPU = 'max,la57=off,vendor=GenuineIntel'

const KERNEL_ARGUMENTS =
  'console=ttyS0 panic=-1 mitigations=off nokaslr tsc=reliable no_timer_check random.trust_cpu=on'
/** Memory that is set aside for the dax bus, as firmware does with memory of a special purpose. */
const SET_ASIDE = 'memmap=256M%1G-1+0xefffffff'

export function qemuCommand(machine: Machine): string[] {
  const { kernel, align, cpus, exchange } = machine
  return [
    'qemu-system-x86_64',
    ...['-nodefaults', '-no-user-config', '-no-reboot', '-display', 'none'],
    ...['-machine', 'q35,nvdimm=on', '-accel', 'tcg,thread=multi', '-cpu', CPU],
    ...['-smp', String(cpus), '-m', '2304M,slots=2,maxmem=16G'],
    ...nvdimm(0, machine.memory, NVDIMM_MIB),
    ...nvdimm(1, machine.disk, DISK_MIB),
    ...['-kernel', kernel.image, '-initrd', machine.initramfs],
    ...['-append', `${KERNEL_ARGUMENTS} ${SET_ASIDE} holdfast.align=${align} `],
    ...['-serial', `file:${machine.console}`],
    ...['-monitor', `unix:${machine.ports.monitor},server=on,wait=off`],
    ...['-gdb', `unix:${machine.ports.debugger},server=on,wait=off`],
    ...share('root', '/', true),
    ...share('io', exchange, false),
  ]
}

function nvdimm(number: number, file: string, mib: number): string[] {
  const memory = `memory-backend-file,id=nv${number},share=on,mem-path=${file},size=${mib}M`
  return ['-object', memory, '-device', `nvdimm,memdev=nv${number},id=nvdimm${number}`]
}

function share(tag: string, path: string, readOnly: boolean): string[] {
  const mode = readOnly ? ',readonly=on' : ''
  return [
    ...['-fsdev', `local,id=${tag},path=${path},security_model=none,multidevs=remap${mode}`],
    ...['-device', `virtio-9p-pci,fsdev=${tag},mount_tag=${tag}`],
  ]
}
