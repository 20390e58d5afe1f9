/**
 * The processes of a cell, in Python: an actor that does the operation in a loop while the failure
 * comes, and an observer that looks at the consequences. This process never touches the mount.
 */
import { PythonClient } from '../demo/python-client.ts'

/** Of every file that is made for a cell, bytes. */
export const FILE_SIZE = 65536
/** Where an unwritten extent of the same length begins. */
export const HEALTHY = 0

const COMMON = `
def outcome(run):
    try:
        run()
        return "ok"
    except OSError as error:
        return errno.errorcode.get(error.errno, str(error.errno))
`

const OBSERVER = `${COMMON}
root = sys.argv[2]
def make(name, unwritten):
    fd = os.open(os.path.join(root, name), os.O_CREAT | os.O_RDWR, 0o644)
    os.write(fd, bytes(range(256)) * (${FILE_SIZE} // 256))
    if unwritten:
        os.posix_fallocate(fd, ${FILE_SIZE}, ${FILE_SIZE})
    os.fsync(fd)
    inode = os.fstat(fd).st_ino
    os.close(fd)
    return inode
def look(name, offset):
    def run():
        fd = os.open(os.path.join(root, name), os.O_RDONLY)
        try:
            os.pread(fd, 4096, offset)
        finally:
            os.close(fd)
    return outcome(run)
other = os.open(os.path.join(root, "bystander"), os.O_CREAT | os.O_RDWR, 0o644)
os.write(other, b"untouched" * 1000)
os.fsync(other)
def bystander():
    def run():
        os.pwrite(other, b"tick", 9000)
        os.pread(other, 9000, 0) == b"untouched" * 1000 or os.read(-1, 1)
    return outcome(run)
`

const ACTOR = `${COMMON}
path, operation, offset = sys.argv[2], sys.argv[3], int(sys.argv[4])
fd = os.open(path, os.O_RDWR)
m = mmap.mmap(fd, os.fstat(fd).st_size)
m[offset]
os.pread(fd, 4096, offset)
size = os.fstat(fd).st_size
def there_and_back():
    os.rename(path, path + ".moved")
    os.rename(path + ".moved", path)
def grow_and_cut():
    os.ftruncate(fd, size + 4096)
    os.ftruncate(fd, size)
def write_and_sync():
    os.pwrite(fd, b"x", 1)
    os.fsync(fd)
steps = {
    "read": lambda: os.pread(fd, 4096, offset),
    "write": lambda: os.pwrite(fd, b"w" * 4096, offset),
    "mmap load": lambda: m[offset],
    "mmap store": lambda: m.__setitem__(offset, 1),
    "truncate": grow_and_cut,
    "unlink": lambda: os.unlink(path),
    "fsync": write_and_sync,
    "rename": there_and_back,
}
step = steps.get(operation)
# A name can be unlinked once; everything else goes on until it fails or is told to stop.
once = operation == "unlink"
state = {"steps": 0, "result": "ok", "stop": False}
def loop():
    while state["result"] == "ok" and not state["stop"] and not (once and state["steps"]):
        state["result"] = outcome(step)
        state["steps"] += 1
worker = threading.Thread(target=loop, daemon=True)
def start():
    if step:
        worker.start()
    while step and not once and state["steps"] < 2:
        time.sleep(0.001)
def finish():
    seen = state["steps"]
    deadline = time.time() + 5
    # One whole step after the failure.
    while step and worker.is_alive() and state["steps"] < seen + 2 and time.time() < deadline:
        time.sleep(0.001)
    state["stop"] = True
    if step:
        worker.join(5)
    return "hangs" if step and worker.is_alive() else state["result"]
def handle():
    return outcome(lambda: os.pread(fd, 4096, ${HEALTHY}))
`

export function observer(mountpoint: string): PythonClient {
  return new PythonClient(OBSERVER, [mountpoint])
}

export class Actor {
  readonly #client: PythonClient

  private constructor(client: PythonClient) {
    this.#client = client
  }

  static async start(path: string, operation: string, offset: number): Promise<Actor> {
    const client = new PythonClient(ACTOR, [path, operation, String(offset)])
    const ready = await client.ready
    if (!ready?.ok) throw new Error(`cannot open ${path}: ${ready?.error ?? 'it died'}`)
    const actor = new Actor(client)
    await actor.#ask('start()')
    return actor
  }

  /** `ok`, an errno name, or the signal it died of. */
  finish(): Promise<string> {
    return this.#ask('finish()')
  }

  async handle(): Promise<string> {
    const answer = await this.#client.evaluate<string>('handle()')
    return answer === undefined ? 'dead process' : String(answer.value ?? answer.error)
  }

  async end(): Promise<void> {
    this.#client.stop()
    await this.#client.ended
  }

  async #ask(expression: string): Promise<string> {
    const answer = await this.#client.evaluate<string>(expression)
    if (answer === undefined) return String(await this.#client.ended)
    return String(answer.value ?? answer.error ?? 'ok')
  }
}
