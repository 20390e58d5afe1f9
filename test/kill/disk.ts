/**
 * A disk that can lose power: ext4 in a file, and the shutdown of ext4 for the failure (strike.py
 * does it). What was not written back by then is not there when the disk is mounted again.
 */
import { mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { lacks, notRoot, runClient, sleep } from '../support/mounts.ts'

const TRIES = 100

export class Disk {
  readonly path: string
  readonly #image: string

  private constructor(directory: string) {
    this.path = join(directory, 'disk')
    this.#image = join(directory, 'disk.image')
  }

  /** Throws with the reason when this machine cannot have one. */
  static async make(directory: string, megabytes: number): Promise<Disk> {
    const missing = notRoot() || lacks('mkfs.ext4')
    if (missing) throw new Error(missing)
    const disk = new Disk(directory)
    mkdirSync(disk.path)
    writeFileSync(disk.#image, '')
    await must(`truncate -s ${megabytes}M "$0"`, disk.#image)
    await must('mkfs.ext4 -q -F -E lazy_itable_init=0,lazy_journal_init=0 "$0"', disk.#image)
    await disk.#mount()
    return disk
  }

  /**
   * A file of zeros that has all its blocks: with holes, its blocks would become durable with the
   * next commit of ext4 only, all at once.
   */
  async makeFile(name: string, megabytes: number): Promise<string> {
    const path = join(this.path, name)
    const command = `head -c ${megabytes}M /dev/zero > "$0" && chmod 600 "$0" && sync "$0"`
    await must(command, path)
    return path
  }

  /** What is in the page cache and was not written back before the failure is gone. */
  async restart(): Promise<void> {
    await this.unmount()
    await this.#mount()
  }

  async unmount(): Promise<void> {
    for (let tries = TRIES; ; tries--) {
      const { status, stderr } = await runClient(['umount', this.path])
      if (status === 0) return
      // A process that was killed a moment ago may still have the region open.
      if (tries === 0) throw new Error(`umount ${this.path}: ${stderr}`)
      await sleep(50)
    }
  }

  #mount(): Promise<void> {
    return must(`mount -t ext4 -o loop,noauto_da_alloc "$0" "$1"`, this.#image, this.path)
  }
}

async function must(command: string, ...args: string[]): Promise<void> {
  const { status, stderr } = await runClient(['bash', '-c', command, ...args])
  if (status !== 0) throw new Error(`${command}: ${stderr.trim()}`)
}
