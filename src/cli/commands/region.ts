/** holdfast region: splits memory into instances, as the kernel's dax bus does. */
import type { Command } from 'commander'
import type { DaxRegion, DeviceInfo, RegionInfo } from '../../bus/dax-region.ts'
import type { InstanceName } from '../../dax/name.ts'
import { CliError, EXIT_USAGE } from '../errors.ts'
import { type Column, print, printFields, printJson, printTable } from '../output.ts'
import { formatSize, parseSize } from '../sizes.ts'
import { jsonOption } from './context.ts'

const DEVICE = "a device: 'FILE#dax0.1', or dax0.1 of the kernel's dax bus"
const REGION = "a file made by region create, or dax0 of the kernel's dax bus"

const EXAMPLES = `
Examples:
  holdfast region create pool.region --size 4G
  holdfast region create-device pool.region        prints dax0.1
  holdfast region resize 'pool.region#dax0.1' 1G
  holdfast region enable 'pool.region#dax0.1'
  mkfs.holdfast 'pool.region#dax0.1'

Errors are those of the kernel's dax bus; the errno stands at the end of the sentence.`

interface Json {
  json?: boolean
}

export function addRegion(program: Command): void {
  const region = program
    .command('region')
    .summary('split memory into instances')
    .description("Split a file, or a region of the kernel's dax bus, into devices of their own.")
    .addHelpText('after', EXAMPLES)
  addCreate(region)
  addList(region)
  addShow(region)
  addCreateDevice(region)
  addDeviceVerbs(region)
}

function addCreate(region: Command): void {
  region
    .command('create')
    .argument('<file>', 'a file, made when it does not exist')
    .option('--size <size>', 'size of the file, with K, M, G or T')
    .option('--align <size>', 'alignment of its devices: 4K, 2M (default) or 1G', '2M')
    .option('--static', 'one device that is the whole region, for good')
    .option('--force', 'destroy what is there')
    .summary('make a region in a file')
    .description(
      'Make a region in a file. It has the device daxN.0, without memory unless --static.',
    )
    .action(
      (
        file: string,
        options: { size?: string; align: string; static?: boolean; force?: boolean },
      ) =>
        told(async () => {
          const { createRegion } = await import('../../../mkfs/region.ts')
          createRegion(file, {
            size: options.size === undefined ? undefined : parseSize(options.size, '--size'),
            align: parseSize(options.align, '--align'),
            isStatic: options.static ?? false,
            force: options.force ?? false,
          })
          print(`made a ${options.static ? 'static ' : ''}region in ${file}`)
        }),
    )
}

function addList(region: Command): void {
  jsonOption(region.command('list'))
    .argument('[file...]', 'regions in files, besides those of the kernel')
    .summary('list regions')
    .description("List the regions of the kernel's dax bus, and those in the files named.")
    .action((files: string[], options: Json) =>
      told(async () => {
        const { listRegions } = await import('../../bus/find-region.ts')
        const found = listRegions(files)
        if (options.json) printJson(found)
        else await printRegions(found)
      }),
    )
}

function addShow(region: Command): void {
  jsonOption(region.command('show'))
    .argument('<region>', REGION)
    .summary('show a region and its devices')
    .description('Show the attributes of a region and of its devices.')
    .action((name: string, options: Json) =>
      told(async () => {
        const info = await withRegion(name, true, (found) => found.info())
        if (options.json) printJson(info)
        else await printRegion(info)
      }),
    )
}

function addCreateDevice(region: Command): void {
  jsonOption(region.command('create-device'))
    .argument('<region>', REGION)
    .summary('make a new device, a seed')
    .description('Make a device without memory (a seed), and print its name.')
    .action((name: string, options: Json) =>
      told(async () => {
        const device = await withRegion(name, false, (found) => found.createDevice())
        if (options.json) printJson({ device })
        else print(device)
      }),
    )
}

function addDeviceVerbs(region: Command): void {
  const verb = (name: string, summary: string, description: string) =>
    region.command(name).argument('<device>', DEVICE).summary(summary).description(description)
  verb(
    'resize',
    'give a device more or less memory',
    'Change the size of a device that is not enabled.',
  )
    .argument('<size>', 'its new size, a multiple of its alignment and of 2M; 0 takes all away')
    .action((device: string, size: string) =>
      change(device, (found, id) => found.resize(id, parseSize(size))),
    )
  verb(
    'align',
    'set the alignment of a device',
    'Set the alignment of a device that is not enabled.',
  )
    .argument('<size>', '4K, 2M or 1G')
    .action((device: string, size: string) =>
      change(device, (found, id) => found.setAlign(id, parseSize(size))),
    )
  verb(
    'map',
    'give a device a certain range',
    'Give a device these bytes of its region, behind what it has.',
  )
    .argument(
      '<start-end>',
      'first and last byte in hexadecimal, as the mapping attribute takes it',
    )
    .action((device: string, range: string) =>
      change(device, (found, id) => found.addMapping(id, parseRange(range))),
    )
  verb(
    'enable',
    'let a filesystem use a device',
    'Bind the driver to a device that has memory.',
  ).action((device: string) => change(device, (found, id) => found.enable(id)))
  verb(
    'disable',
    'no filesystem may use a device',
    'Unbind the driver; refused while it is in use.',
  ).action((device: string) => change(device, (found, id) => found.disable(id)))
  verb(
    'delete-device',
    'delete a device',
    'Delete a device that is not enabled and has no memory.',
  ).action((device: string) => change(device, (found, id) => found.deleteDevice(id)))
}

function change(text: string, verb: (region: DaxRegion, id: number) => void): Promise<void> {
  return told(async () => {
    const { splitDevice } = await import('../../bus/find-region.ts')
    const device: { region: string; name: InstanceName } | undefined = splitDevice(text)
    if (device === undefined) {
      throw new CliError(`${text} is no device of a region: say FILE#dax0.1 or dax0.1`, EXIT_USAGE)
    }
    await withRegion(device.region, false, (found) => {
      requireRegion(found, device.name)
      verb(found, device.name.id)
    })
  })
}

function requireRegion(found: DaxRegion, { region }: InstanceName): void {
  const { id } = found.info()
  if (id !== region) throw new CliError(`this is region ${id}: its devices are dax${id}.0 ...`)
}

async function withRegion<T>(
  name: string,
  readOnly: boolean,
  work: (region: DaxRegion) => T,
): Promise<T> {
  const { openDaxRegion } = await import('../../bus/find-region.ts')
  const found = openDaxRegion(name, readOnly)
  try {
    return work(found)
  } finally {
    found.close()
  }
}

/** The kernel's errno is the answer of these commands: it is said as well. */
async function told(work: () => Promise<void>): Promise<void> {
  const { DaxError } = await import('../../dax/errors.ts')
  try {
    await work()
  } catch (error) {
    if (!(error instanceof DaxError)) throw error
    throw new CliError(`${error.message} (${error.code})`, undefined, { cause: error })
  }
}

function parseRange(text: string): { offset: number; length: number } {
  const match = /^(?:0x)?([0-9a-f]+)-(?:0x)?([0-9a-f]+)$/i.exec(text)
  const [start, end] = [
    Number.parseInt(match?.[1] ?? '', 16),
    Number.parseInt(match?.[2] ?? '', 16),
  ]
  if (!Number.isSafeInteger(start) || !Number.isSafeInteger(end) || end < start) {
    throw new CliError(`${text} is no range: say START-END, two bytes in hexadecimal`, EXIT_USAGE)
  }
  return { offset: start, length: end - start + 1 }
}

async function printRegions(found: readonly RegionInfo[]): Promise<void> {
  const columns: Column[] = [
    { head: 'REGION' },
    { head: 'TYPE' },
    { head: 'SIZE', right: true },
    { head: 'ALIGN', right: true },
    { head: 'AVAILABLE', right: true },
    { head: 'SEED' },
    { head: 'DEVICES' },
  ]
  const rows = found.map((info) => [
    info.region,
    info.static ? 'static' : 'dynamic',
    formatSize(info.size),
    formatSize(info.align),
    formatSize(info.available_size),
    info.seed ?? '-',
    info.devices.map(({ name }) => name).join(' '),
  ])
  await printTable(columns, rows, 'no region here; holdfast region create makes one in a file')
}

async function printRegion(info: RegionInfo): Promise<void> {
  print(info.region)
  printFields([
    ['id', `${info.id}`],
    ['type', info.static ? 'static' : 'dynamic'],
    ['size', `${info.size} (${formatSize(info.size)})`],
    ['align', `${info.align}`],
    ['available_size', `${info.available_size}`],
    ['seed', info.seed ?? '(none)'],
    ['youngest', info.youngest ?? '(none)'],
  ])
  const columns: Column[] = [
    { head: 'DEVICE' },
    { head: 'SIZE', right: true },
    { head: 'ALIGN', right: true },
    { head: 'DRIVER' },
    { head: 'MAPPINGS' },
  ]
  await printTable(columns, info.devices.map(deviceRow), 'no devices')
}

function deviceRow({ name, size, align, driver, mappings }: DeviceInfo): string[] {
  const places = mappings.map(({ start, length }) => `${hex(start)}-${hex(start + length - 1)}`)
  return [name, `${size}`, `${align}`, driver ?? '(not enabled)', places.join(' ')]
}

function hex(value: number): string {
  return `0x${value.toString(16)}`
}
