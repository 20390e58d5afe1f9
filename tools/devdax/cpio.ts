/** Archives in the format that the kernel unpacks as its first root ("newc" cpio). */

const TYPE_DIRECTORY = 0o040000
const TYPE_FILE = 0o100000

export class CpioArchive {
  readonly #parts: Buffer[] = []
  readonly #directories = new Set<string>()
  #inode = 1

  /** Adds a file, and the directories above it. */
  file(path: string, data: Buffer, mode = 0o644): void {
    const names = path.split('/')
    for (let depth = 1; depth < names.length; depth++) {
      this.directory(names.slice(0, depth).join('/'))
    }
    this.#entry(path, TYPE_FILE | mode, data)
  }

  directory(path: string): void {
    if (this.#directories.has(path)) return
    this.#directories.add(path)
    this.#entry(path, TYPE_DIRECTORY | 0o755, Buffer.alloc(0))
  }

  toBuffer(): Buffer {
    return Buffer.concat([...this.#parts, encode('TRAILER!!!', 0, 0, Buffer.alloc(0))])
  }

  #entry(path: string, mode: number, data: Buffer): void {
    this.#parts.push(encode(path, this.#inode++, mode, data))
  }
}

/** Header, name and data, the latter two each padded to four bytes. */
function encode(path: string, inode: number, mode: number, data: Buffer): Buffer {
  const name = Buffer.from(`${path}\0`)
  // inode mode uid gid nlink mtime size devmajor devminor rdevmajor rdevminor namesize check
  const fields = [inode, mode, 0, 0, 1, 0, data.length, 0, 0, 0, 0, name.length, 0]
  const header = `070701${fields.map((field) => field.toString(16).padStart(8, '0')).join('')}`
  return Buffer.concat([padded(Buffer.concat([Buffer.from(header), name])), padded(data)])
}

function padded(bytes: Buffer): Buffer {
  return Buffer.concat([bytes, Buffer.alloc((4 - (bytes.length % 4)) % 4)])
}
