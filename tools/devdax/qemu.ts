/** The machine: software emulation, one NVDIMM, the host's root over 9p. */
import type { Kernel } from './kernel.ts'

/** Bytes that one namespace label or info block may use lie inside; a multiple of 128 MiB. */
export const NVDIMM_MIB = 512

export interface Machine {
  readonly kernel: Kernel
  readonly initramfs: string
  /** Contents of the NVDIMM. */
  readonly memory: string
  /** Alignment of the device, bytes. */
  readonly align: number
  readonly cpus: number
  /** Shared read-write with the guest. */
  readonly exchange: string
  /** Unix socket of QEMU's monitor. */
  readonly monitor: string
  readonly console: string
}

/** The vendor decides how the guest grades machine checks. */
const CPU = 'max,la57=off,vendor=GenuineIntel'

const KERNEL_ARGUMENTS =
  'console=ttyS0 panic=-1 mitigations=off nokaslr tsc=reliable no_timer_check random.trust_cpu=on'

export function qemuCommand(machine: Machine): string[] {
  const { kernel, align, cpus, exchange } = machine
  const backend = `memory-backend-file,id=nv,share=on,mem-path=${machine.memory},size=${NVDIMM_MIB}M`
  return [
    'qemu-system-x86_64',
    ...['-nodefaults', '-no-user-config', '-no-reboot', '-display', 'none'],
    ...['-machine', 'q35,nvdimm=on', '-accel', 'tcg,thread=multi', '-cpu', CPU],
    ...['-smp', String(cpus), '-m', '2G,slots=2,maxmem=16G'],
    ...['-object', backend, '-device', 'nvdimm,memdev=nv,id=nvdimm0'],
    ...['-kernel', kernel.image, '-initrd', machine.initramfs],
    ...['-append', `${KERNEL_ARGUMENTS} holdfast.align=${align} `],
    ...['-serial', `file:${machine.console}`],
    ...['-monitor', `unix:${machine.monitor},server=on,wait=off`],
    ...share('root', '/', true),
    ...share('io', exchange, false),
  ]
}

function share(tag: string, path: string, readOnly: boolean): string[] {
  const mode = readOnly ? ',readonly=on' : ''
  return [
    ...['-fsdev', `local,id=${tag},path=${path},security_model=none,multidevs=remap${mode}`],
    ...['-device', `virtio-9p-pci,fsdev=${tag},mount_tag=${tag}`],
  ]
}
