/** A Debian kernel for the guest: downloaded once, and kept as the few files that booting needs. */
import { existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { Apt } from './apt.ts'
import { emptied } from './cache.ts'
import { output } from './commands.ts'
import { decompressData } from './decompress.ts'
import { NoGuestError } from './errors.ts'
import { modulesArchive } from './modules.ts'

export interface Kernel {
  /** The Debian suite that it comes from. */
  readonly suite: string
  /** As uname -r says. */
  readonly release: string
  readonly image: string
  /** A cpio archive of the modules that the guest loads. */
  readonly modules: string
}

/** Raised when what is kept of a kernel changes. */
const FORMAT = 4

export function prepareKernel(suite: string, cache: string, say: (line: string) => void): Kernel {
  const directory = join(cache, `kernel-${suite}.v${FORMAT}`)
  const release = join(directory, 'release')
  if (!existsSync(release)) {
    say(`downloading a kernel from ${suite}`)
    const work = emptied(join(cache, `work-${suite}`))
    try {
      keep(unpack(download(suite, cache, work), work), emptied(directory))
    } finally {
      rmSync(work, { recursive: true, force: true })
    }
  }
  return {
    suite,
    release: readFileSync(release, 'utf8').trim(),
    image: join(directory, 'image'),
    modules: join(directory, 'modules.cpio'),
  }
}

/** linux-image-amd64 depends on the real package, and newer ones on what they are split into. */
function download(suite: string, cache: string, work: string): string[] {
  const apt = new Apt(suite, join(cache, `apt-${suite}`))
  apt.update()
  const [image] = apt.dependencies('linux-image-amd64', /^linux-image-\d/)
  if (image === undefined) throw new NoGuestError(`${suite} has no linux-image-amd64`)
  return apt.download([image, ...apt.dependencies(image, /^linux-(?:modules|binary)-\d/)], work)
}

interface Unpacked {
  readonly root: string
  readonly release: string
  /** Holds the modules of the release. */
  readonly modules: string
}

/** Only unpacked, never installed. */
function unpack(packages: readonly string[], work: string): Unpacked {
  const root = join(work, 'root')
  mkdirSync(root)
  for (const file of packages) output(['dpkg', '-x', file, root])
  for (const parent of ['lib/modules', 'usr/lib/modules']) {
    const place = join(root, parent)
    const release = existsSync(place) ? readdirSync(place)[0] : undefined
    if (release !== undefined) return { root, release, modules: join(place, release) }
  }
  throw new NoGuestError(`no modules in ${packages.join(', ')}`)
}

function keep({ root, release, modules }: Unpacked, directory: string): void {
  const places = [join(root, `boot/vmlinuz-${release}`), join(modules, 'vmlinuz')]
  const path = [...places, join(modules, 'vmlinuz.unsigned')].find((place) => existsSync(place))
  if (path === undefined) throw new NoGuestError(`no kernel image for ${release}`)
  writeFileSync(join(directory, 'image'), unpackedImage(readFileSync(path)))
  writeFileSync(join(directory, 'modules.cpio'), modulesArchive(modules, release))
  // Last, for it says that the rest is whole.
  writeFileSync(join(directory, 'release'), `${release}\n`)
}

/**
 * The kernel unpacks itself slowly under emulation, so that is done here: x86 boot protocol, the
 * payload's offset and length at 0x248. In any doubt the image stays as packaged.
 */
function unpackedImage(image: Buffer): Buffer {
  const setupSectors = image.readUInt8(497)
  const start = (setupSectors + 1) * 512 + image.readUInt32LE(0x248)
  // The last four bytes are the unpacked size, not part of the stream.
  const payload = image.subarray(start, start + image.readUInt32LE(0x24c) - 4)
  const elf = decompressData(payload)
  return elf?.subarray(1, 4).toString() === 'ELF' ? elf : image
}
