/**
 * `npm run bench -- --failure`: from a memory failure to its last consequence. The daemon's clock
 * runs from the injection until the last handle is dead and the last mapping is revoked; what the
 * caller waited, with the way over the socket there and back, stands beside it.
 */
import { PythonClient } from '../demo/python-client.ts'
import { percentile } from '../inject-random/storm.ts'
import { sleep } from '../quickstart/programs.ts'
import { Daemon } from './daemon.ts'
import { anonymousMemory, type Machine, machine, machineLine, table } from './report.ts'
import { workDirectory } from './targets.ts'

/** A failure is dealt with in this time, milliseconds. */
export const TARGET_MS = 5
const BLOCK = 4096
/** Failures under the one file that every handle is of: as many as a p99 needs to mean something. */
const SHARED_ROUNDS = 200

export interface FailureScale {
  files: number
  /** Of each file, one block long, with holes between. */
  extents: number
}

/** Milliseconds. */
interface Latency {
  consequences: number
  /** From the caller's request to the answer. */
  asked: number
}

export interface FailureLatency {
  machine: Machine
  scale: FailureScale
  rows: { what: string; times: Latency[] }[]
  /** Pages of killed files that the mapper can still see; must be none. */
  pagesLeft: number
  handlesKilled: number
  memory: number
}

/** Makes the files, has every one open and mapped, and can say what it still sees. */
const USER = `
root, files, extents, rounds = sys.argv[2], *map(int, sys.argv[3:6])
import struct, ctypes
inodes, fds, maps = [], [], []
os.mkdir(root)
for i in range(files):
    fd = os.open(root + "/%d" % i, os.O_CREAT | os.O_RDWR, 0o644)
    for j in range(rounds + 1 if i == 0 else extents):
        os.pwrite(fd, b"x" * 4096, 2 * j * 4096)
    fds.append(fd)
    inodes.append(os.fstat(fd).st_ino)
    m = mmap.mmap(fd, 4096)
    m[0]
    maps.append(m)
pagemap = open("/proc/self/pagemap", "rb", 0)
def visible():
    count = 0
    for m in maps:
        address = ctypes.addressof(ctypes.c_char.from_buffer(m))
        pagemap.seek(address // 4096 * 8)
        count += struct.unpack("<Q", pagemap.read(8))[0] >> 63
    return count
shared = root + "/0"
def reopen(count):
    for fd in fds: os.close(fd)
    fds[:] = [os.open(shared, os.O_RDONLY) for i in range(count)]
    m = mmap.mmap(fds[0], 0, prot=mmap.PROT_READ)
    maps[:] = [m]
    return os.fstat(fds[0]).st_ino
`

export async function failureLatency(
  scale: FailureScale,
  progress: (line: string) => void,
): Promise<FailureLatency> {
  const facts = await machine()
  const directory = workDirectory()
  const bytes = scale.files * scale.extents * BLOCK * 2 + 2 ** 30
  const daemon = await Daemon.make(directory, bytes)
  progress(`${scale.files} files of ${scale.extents} extents`)
  const counts = [scale.files, scale.extents, SHARED_ROUNDS].map(String)
  const args = [`${daemon.mountpoint}/files`, ...counts]
  const user = new PythonClient(USER, args, 600_000)
  const ready = await user.ready
  if (!ready?.ok) throw new Error(`the files cannot be made: ${ready?.error ?? 'it died'}`)
  const inodes = (await ask<number[]>(user, 'inodes')) ?? []
  const control = await daemon.control()
  const rows: FailureLatency['rows'] = []
  const strike = async (target: Target): Promise<Latency> => {
    const started = performance.now()
    const request = { target, length: BLOCK, method: 'soft' } as const
    const { milliseconds } = await control.call('inject', request)
    return { consequences: milliseconds, asked: performance.now() - started }
  }
  progress('failures under open, mapped files')
  const each: Latency[] = []
  for (const inode of inodes) each.push(await strike({ kind: 'file', inode, fileOffset: 0 }))
  rows.push({ what: `an open, mapped file (${scale.files} open)`, times: each })
  const pagesLeft = (await ask<number>(user, 'visible()')) ?? Number.NaN
  progress('failures under one file with as many handles')
  const many: Latency[] = []
  for (let round = 1; round <= SHARED_ROUNDS; round++) {
    const inode = (await ask<number>(user, `reopen(${scale.files})`)) ?? 0
    // The kernel tells of what was closed when it pleases.
    await sleep(100)
    many.push(await strike({ kind: 'file', inode, fileOffset: 2 * round * BLOCK }))
  }
  rows.push({ what: `one file with ${scale.files} handles`, times: many })
  progress('failures in free space')
  const free: Latency[] = []
  for (let i = 0; i < scale.files; i++) free.push(await strike({ kind: 'free' }))
  rows.push({ what: 'free space', times: free })
  const { handles } = await control.call('status', {})
  const memory = anonymousMemory(daemon.pid)
  user.stop()
  await user.ended
  await daemon.unmount()
  return { machine: facts, scale, rows, pagesLeft, handlesKilled: handles.killed, memory }
}

type Target = { kind: 'file'; inode: number; fileOffset: number } | { kind: 'free' }

async function ask<T>(user: PythonClient, python: string): Promise<T | undefined> {
  const answer = await user.evaluate<T>(python)
  if (!answer?.ok) throw new Error(`${python}: ${answer?.error ?? 'the user of the files died'}`)
  return answer.value
}

export function printFailureLatency(result: FailureLatency): string {
  const { scale, rows, pagesLeft, handlesKilled } = result
  const cells = rows.map(({ what, times }) => [
    what,
    String(times.length),
    ...[0.5, 0.99, 1].map((part) => of(times, 'consequences', part).toFixed(2)),
    ...[0.5, 0.99].map((part) => of(times, 'asked', part).toFixed(2)),
  ])
  const p99 = Math.max(...rows.map(({ times }) => of(times, 'consequences', 0.99)))
  return [
    machineLine(result.machine),
    `${scale.files * scale.extents} extents; ${handlesKilled} handles killed`,
    table(['failure under', 'times', 'p50 ms', 'p99 ms', 'worst ms', 'asked p50', 'p99'], cells),
    `${pagesLeft} pages of killed files still mapped`,
    `p99 ${p99.toFixed(2)} ms, target ${TARGET_MS} ms: ${p99 < TARGET_MS ? 'met' : 'missed'}`,
  ].join('\n')
}

function of(times: readonly Latency[], which: keyof Latency, part: number): number {
  return percentile(
    times.map((latency) => latency[which]),
    part,
  )
}
