/**
 * -o sync and -o dirsync: what they name is durable before it is answered. This process is the
 * daemon, so clients are children with a hard time limit.
 */
import { closeSync, ftruncateSync, mkdirSync, openSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { format } from '../mkfs/format.ts'
import { openDevice } from '../src/dax/device.ts'
import type { Filesystem } from '../src/fs/filesystem.ts'
import { mountFuseNative } from '../src/fuse/fuse-native.ts'
import { mountKernel } from '../src/fuse/kernel.ts'
import type { MountFlag } from '../src/fuse/mount.ts'
import { mountDevice } from './support/core.ts'
import { cannotMount, lacks, PythonClient, scratch, sleep } from './support/mounts.ts'

const MIB = 1024 * 1024
type TransportName = 'kernel' | 'fuse-native'

// A failed test may leave a client, and with it a mount, that keep this process from ending.
t.teardown(() => setTimeout(() => process.exit(), 3000).unref())

/** An fsync that counts, and waits at a gate. */
class CountedFilesystem {
  fsyncs = 0
  gate = Promise.resolve()

  constructor(fs: Filesystem) {
    const fsync = fs.fsync.bind(fs)
    fs.fsync = async (ino, dataOnly) => {
      this.fsyncs++
      await this.gate
      await fsync(ino, dataOnly)
    }
  }

  /** The number since the last call. */
  take(): number {
    const taken = this.fsyncs
    this.fsyncs = 0
    return taken
  }
}

async function mount(t: Test, name: TransportName, flags: readonly MountFlag[]) {
  const directory = scratch('memory')
  const region = join(directory, 'region')
  const mountpoint = join(directory, 'mnt')
  mkdirSync(mountpoint)
  const fd = openSync(region, 'w+')
  ftruncateSync(fd, 64 * MIB)
  closeSync(fd)
  const device = openDevice(region)
  format(device.memory, { label: 'sync', uid: 0, gid: 0, now: 1_700_000_000 })
  const fs = mountDevice(device)
  const counted = new CountedFilesystem(fs)
  const options = { fsname: region, flags }
  const transport =
    name === 'kernel'
      ? await mountKernel(fs, device.memory, mountpoint, options)
      : await mountFuseNative(fs, mountpoint, options)
  const client = new PythonClient(`
os.chdir(${JSON.stringify(mountpoint)})
log = []
def opened(path, flags):
    os.close(os.open(path, flags | os.O_RDWR))
def written(path, flags=0):
    fd = os.open(path, os.O_RDWR | flags)
    os.write(fd, b"x" * 5000)
    os.close(fd)
`)
  let ended = false
  t.teardown(async () => {
    await client.stop()
    if (!ended) await transport.unmount(true)
  })
  t.match(await client.ready, { ok: true })
  const end = async () => {
    await client.stop()
    await transport.unmount()
    ended = true
    await fs.unmount()
    device.close()
  }
  return { counted, client, end }
}

/** In this order; each is one change, of names or of what is behind them. */
const NAMES = [
  'opened("f", os.O_CREAT)',
  'os.mkdir("dir")',
  'os.symlink("to", "s")',
  'os.mkfifo("fifo")',
  'os.link("f", "g")',
  'os.rename("g", "h")',
  'os.unlink("h")',
  'os.rmdir("dir")',
] as const
const CONTENTS = [
  'os.chmod("f", 0o640)',
  'os.utime("f", (1, 2))',
  'os.setxattr("f", "user.k", b"v")',
  'os.removexattr("f", "user.k")',
  'written("f")',
  'os.truncate("f", 10)',
  'opened("f", os.O_TRUNC)',
] as const
const KERNEL_ONLY = 'os.posix_fallocate(os.open("f", os.O_RDWR), 0, 65536)'
const READS = ['os.stat("f").st_size', 'os.listdir(".")', 'os.readlink("s")', 'opened("f", 0)']

for (const name of ['kernel', 'fuse-native'] as const) {
  const skip = cannotMount(name) || lacks('python3')
  for (const flags of [[], ['dirsync'], ['sync'], ['sync', 'dirsync']] as MountFlag[][]) {
    t.test(`${name}: ${flags.join(',') || 'without them'}`, { skip }, async (t) => {
      const { counted, client, end } = await mount(t, name, flags)
      const check = async (step: string, durable: boolean) => {
        counted.take()
        t.match(await client.evaluate(step), { ok: true }, step)
        const fsyncs = counted.take()
        t.equal(fsyncs > 0, durable, `${step}: ${fsyncs} fsyncs`)
      }
      for (const step of NAMES) await check(step, flags.length > 0)
      for (const step of CONTENTS) await check(step, flags.includes('sync'))
      if (name === 'kernel') await check(KERNEL_ONLY, flags.includes('sync'))
      for (const step of READS) await check(step, false)
      await end()
    })
  }

  t.test(`${name}: the answer comes after the fsync`, { skip }, async (t) => {
    const { counted, client, end } = await mount(t, name, ['sync'])
    for (const step of ['os.mkdir("dir")', 'opened("f", os.O_CREAT)', 'os.chmod("f", 0o600)']) {
      let open = () => {}
      counted.gate = new Promise((resolve) => {
        open = resolve
      })
      let answered = false
      const answer = client.evaluate(step).finally(() => {
        answered = true
      })
      await sleep(300)
      t.notOk(answered, `${step} waits`)
      open()
      t.match(await answer, { ok: true })
    }
    await end()
  })
}
