/**
 * What goes on while a storm hits a scratch mount: victims that may be hit, and spared files that
 * somebody writes, moves and checks all the time (or fio does, see fio.ts). Afterwards every byte
 * of every file is accounted for: the same as before, or EIO exactly where memory failed.
 */
import type { ControlClient } from '../../src/control/client.ts'
import type { FileMap } from '../../src/fs/administration.ts'
import { PythonClient } from '../demo/python-client.ts'
import type { Draw } from './draws.ts'
import { FioWork } from './fio.ts'

const BLOCK = 4096
const VICTIMS = 128
const SPARED = 8
/** Time the files take to make and to check on a busy machine. */
const LIMIT_MS = 300_000

const PROGRAM = `
import hashlib, random
root, victims, spared, size = sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5])
def block(name, number, version):
    head = b"%s %d %d " % (name.encode(), number, version)
    body = (head * (4064 // len(head) + 1))[:4064]
    return body + hashlib.md5(body).digest() * 2
def whole(data):
    return hashlib.md5(data[:4064]).digest() * 2 == data[4064:]
held, inodes, sparedInodes = [], [], []
for i in range(victims):
    fd = os.open(root + "/v%d" % i, os.O_CREAT | os.O_RDWR, 0o644)
    os.write(fd, b"".join(block("v%d" % i, j, 0) for j in range(size // 4096)))
    inodes.append(os.fstat(fd).st_ino)
    # Every other one stays open.
    held.append(fd) if i % 2 else os.close(fd)
files = [os.open(root + "/s%d" % i, os.O_CREAT | os.O_RDWR, 0o644) for i in range(spared)]
for i, fd in enumerate(files):
    os.write(fd, b"".join(block("s%d" % i, j, 0) for j in range(64)))
    sparedInodes.append(os.fstat(fd).st_ino)
os.sync()
problems, state = [], {"rounds": 0, "stop": False}
def work():
    while not state["stop"]:
        i, j = random.randrange(spared), random.randrange(64)
        try:
            os.pwrite(files[i], block("s%d" % i, j, state["rounds"]), j * 4096)
            if not whole(os.pread(files[i], 4096, random.randrange(64) * 4096)):
                problems.append("s%d has wrong bytes" % i)
            if state["rounds"] % 50 == 0:
                os.fsync(files[i])
                os.rename(root + "/s%d" % i, root + "/moved")
                os.rename(root + "/moved", root + "/s%d" % i)
        except OSError as error:
            problems.append("s%d: %s" % (i, error))
            return
        state["rounds"] += 1
        time.sleep(0.0002)
worker = threading.Thread(target=work, daemon=True)
if spared: worker.start()
def finish(bad):
    state["stop"] = True
    if spared: worker.join(20)
    if worker.is_alive(): problems.append("the worker hangs")
    for i in range(victims): check("v%d" % i, set(bad.get(str(i), [])))
    for i in range(spared):
        fd = os.open(root + "/s%d" % i, os.O_RDONLY)
        for j in range(64):
            if not whole(os.pread(fd, 4096, j * 4096)): problems.append("s%d block %d" % (i, j))
        os.close(fd)
    return {"rounds": state["rounds"], "problems": problems[:20]}
def check(name, bad):
    fd = os.open(root + "/" + name, os.O_RDONLY)
    for j in range(size // 4096):
        try:
            data = os.pread(fd, 4096, j * 4096)
            if j in bad: problems.append("%s block %d can be read" % (name, j))
            elif data != block(name, j, 0): problems.append("%s block %d has changed" % (name, j))
        except OSError as error:
            if j not in bad: problems.append("%s block %d: %s" % (name, j, error))
    os.close(fd)
`

export interface Verdict {
  /** Writes and checks of spared files during the storm. */
  rounds: number
  /** Anything outside the failed memory that is not as it was. */
  problems: string[]
}

export const WORKLOADS = ['own', 'fio'] as const
export type WorkloadKind = (typeof WORKLOADS)[number]

export class Workload {
  readonly #client: PythonClient
  readonly #maps: readonly FileMap[]
  readonly #fio: FioWork | undefined
  readonly spared: ReadonlySet<number>

  private constructor(
    client: PythonClient,
    maps: readonly FileMap[],
    spared: readonly number[],
    fio: FioWork | undefined,
  ) {
    this.#client = client
    this.#maps = maps
    this.#fio = fio
    this.spared = fio?.spared ?? new Set(spared)
  }

  /** Victims take a sixteenth of the region. */
  static async start(
    mountpoint: string,
    control: ControlClient,
    kind: WorkloadKind,
  ): Promise<Workload> {
    const { regionSize } = await control.call('status', {})
    const size = Math.max(BLOCK, Math.floor(regionSize / 16 / VICTIMS / BLOCK) * BLOCK)
    const args = [mountpoint, VICTIMS, kind === 'own' ? SPARED : 0, size].map(String)
    const client = new PythonClient(PROGRAM, args, LIMIT_MS)
    const ready = await client.ready
    if (!ready?.ok) throw new Error(`the workload cannot start: ${ready?.error ?? 'it died'}`)
    const ask = async (list: string) => (await client.evaluate<number[]>(list))?.value ?? []
    const maps: FileMap[] = []
    for (const inode of await ask('inodes')) maps.push(await control.call('getmap', { inode }))
    const fio = kind === 'fio' ? await FioWork.start(mountpoint) : undefined
    return new Workload(client, maps, await ask('sparedInodes'), fio)
  }

  async finish(failures: readonly Draw[]): Promise<Verdict> {
    const live = await this.#fio?.finish()
    const bad = Object.fromEntries(this.#maps.map((map, i) => [i, failedBlocks(map, failures)]))
    const answer = await this.#client.evaluate<Verdict>(`finish(${JSON.stringify(bad)})`, LIMIT_MS)
    this.#client.stop()
    await this.#client.ended
    const died = `the workload died: ${answer?.error ?? 'no answer'}`
    const { rounds, problems } = answer?.value ?? { rounds: 0, problems: [died] }
    return {
      rounds: rounds + (live?.rounds ?? 0),
      problems: [...problems, ...(live?.problems ?? [])],
    }
  }
}

/** Blocks of a file whose memory has failed. */
function failedBlocks({ extents }: FileMap, failures: readonly Draw[]): number[] {
  const blocks = new Set<number>()
  for (const extent of extents) {
    for (const { offset, length } of failures) {
      const start = Math.max(offset, extent.regionOffset)
      const end = Math.min(offset + length, extent.regionOffset + extent.length)
      for (let at = start; at < end; at += BLOCK) {
        blocks.add((extent.fileOffset + at - extent.regionOffset) / BLOCK)
      }
    }
  }
  return [...blocks]
}
