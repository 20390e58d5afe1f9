/** Files whose memory fails, processes that have them open, and what the daemon tells of it. */
import assert from 'node:assert/strict'
import type { FileMap, InjectResult, Status } from '../../src/fs/administration.ts'
import { runJson, sleep } from '../../tools/quickstart/programs.ts'
import { type MountedRegion, PythonClient } from '../support/mounts.ts'

export const MIB = 2 ** 20
const FILE_SIZE = 4 * MIB
const TELLING_TRIES = 10

const holders = new Set<PythonClient>()

/** Writes a file of 4 MiB; returns where its byte `at` lies in the region. */
export async function makeFile(mounted: MountedRegion, name: string, at = 0): Promise<number> {
  const code = `head -c ${FILE_SIZE} /dev/urandom > ${name} && md5sum ${name} > /tmp/${name}.md5`
  const { status, stderr } = await mounted.client(code)
  assert.equal(status, 0, stderr)
  return placeOf(mounted, name, at)
}

export async function placeOf(mounted: MountedRegion, name: string, at: number): Promise<number> {
  const map = await runJson<FileMap>('holdfast', ['getmap', mounted.path(name)])
  const extent = map.extents.find((e) => at >= e.fileOffset && at < e.fileOffset + e.length)
  assert.ok(extent, `${name} has no memory at ${at}`)
  return extent.regionOffset + at - extent.fileOffset
}

/** The file still has the contents that makeFile gave it. */
export async function isIntact(mounted: MountedRegion, name: string): Promise<void> {
  const { status, stdout, stderr } = await mounted.client(`md5sum -c /tmp/${name}.md5`)
  assert.equal(status, 0, `${name}: ${stdout}${stderr}`)
}

/** A process that has the file open and mapped, and has read the first page of the mapping. */
export async function holding(mounted: MountedRegion, file: string): Promise<PythonClient> {
  const client = new PythonClient(`
fd = os.open(${JSON.stringify(mounted.path(file))}, os.O_RDWR)
m = mmap.mmap(fd, 4096)
m[0]
`)
  holders.add(client)
  client.ended.then(() => holders.delete(client))
  assert.equal((await client.ready)?.ok, true)
  return client
}

/** Ends the processes that a failed check left behind, for they keep the mount busy. */
export async function stopHolders(): Promise<void> {
  for (const client of [...holders]) {
    client.stop()
    await client.ended
  }
}

/** Its handle is dead, and it dies of touching its mapping. */
export async function isDead(client: PythonClient): Promise<void> {
  assert.equal((await client.evaluate('len(os.pread(fd, 100, 0))'))?.error, 'EIO')
  assert.equal(await client.evaluate('m[0]'), undefined, 'the mapping can still be read')
  assert.equal(await client.ended, 'SIGBUS')
}

/** Handle and mapping work. */
export async function isAlive(client: PythonClient): Promise<void> {
  assert.equal((await client.evaluate('len(os.pread(fd, 100, 0))'))?.value, 100)
  assert.equal((await client.evaluate('m[0] >= 0'))?.ok, true)
  client.stop()
}

/** Waits until `count` failures were told; nobody touches the memory meanwhile. */
export async function told(mounted: MountedRegion, count: number): Promise<Status['failures']> {
  for (let tries = 0; ; tries++) {
    const { failures } = await mounted.status()
    if (failures.length >= count) {
      assert.equal(failures.length, count, 'one failure was told more than once')
      return failures
    }
    assert.ok(tries < TELLING_TRIES, `${failures.length} failures were told, not ${count}`)
    await sleep(200)
  }
}

export function inject(
  mounted: MountedRegion,
  method: 'hwpoison' | 'sigbus',
  ...args: string[]
): Promise<InjectResult> {
  const words = ['inject', mounted.mountpoint, '--method', method, ...args]
  return runJson<InjectResult>('holdfast', words)
}
