/** The modules the guest loads, in the order in which they can be loaded. */
import { existsSync, readFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import { output } from './commands.ts'
import { CpioArchive } from './cpio.ts'
import { decompressFile } from './decompress.ts'

/** One that a kernel has built in, or does not have at all, is left out. */
const WANTED = [
  ...['virtio_pci', '9pnet_virtio', '9p', 'overlay', 'fuse'],
  ...['nfit', 'nd_pmem', 'dax_pmem', 'device_dax', 'fsdev_dax', 'kmem', 'hwpoison_inject'],
  ...['dax_hmem', 'crc32c_generic', 'ext4'],
]
/** The region that it makes starts without an instance that has all the memory. */
const PARAMETERS = new Map([['dax_hmem.ko', 'region_idle=1']])
/** Loaded by the test that needs it: it takes devices that no other driver has. */
const LATER = new Set(['kmem.ko'])

/** A cpio archive of modules/*.ko and of modules/list: their names and parameters, in order. */
export function modulesArchive(directory: string, release: string): Buffer {
  const paths = readDependencies(directory, release)
  const byName = new Map([...paths.keys()].map((path) => [moduleName(path), path]))
  const archive = new CpioArchive()
  const loaded = new Set<string>()
  const add = (path: string): void => {
    const file = `${moduleName(path)}.ko`
    if (loaded.has(file)) return
    // modules.dep names direct and indirect dependencies, the deepest last.
    for (const dependency of [...(paths.get(path) ?? [])].reverse()) add(dependency)
    loaded.add(file)
    const bytes = decompressFile(path, readFileSync(join(directory, path)))
    archive.file(`modules/${file}`, bytes)
  }
  for (const name of WANTED) {
    const path = byName.get(name)
    if (path !== undefined) add(path)
  }
  const lines = [...loaded]
    .filter((file) => !LATER.has(file))
    .map((file) => `${file} ${PARAMETERS.get(file) ?? ''}\n`)
  archive.file('modules/list', Buffer.from(lines.join('')))
  return archive.toBuffer()
}

/** Path of each module → paths of what it depends on. */
function readDependencies(directory: string, release: string): Map<string, string[]> {
  const file = join(directory, 'modules.dep')
  if (!existsSync(file)) {
    output(['depmod', '-b', directory.replace(/\/lib\/modules\/[^/]*$/, ''), release])
  }
  const lines = readFileSync(file, 'utf8').trim().split('\n')
  return new Map(
    lines.map((line) => {
      const [path, dependencies] = line.split(':') as [string, string]
      return [path, dependencies.trim().split(/\s+/).filter(Boolean)]
    }),
  )
}

/** 'kernel/drivers/mm/hwpoison-inject.ko.xz' is hwpoison_inject. */
function moduleName(path: string): string {
  return basename(path)
    .replace(/\.ko(?:\.\w+)?$/, '')
    .replaceAll('-', '_')
}
