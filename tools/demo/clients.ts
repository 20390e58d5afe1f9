/** The programs the demo breaks memory under. */
import { type Answer, PythonClient } from './python-client.ts'

const HOLD = `
path, offset = sys.argv[2], int(sys.argv[3])
fd = os.open(path, os.O_RDWR)
mapping = mmap.mmap(fd, os.fstat(fd).st_size)
`

/** Holds a file open and mapped; looks at the 16 bytes at `offset`. */
export class FileHolder extends PythonClient {
  constructor(path: string, offset: number) {
    super(HOLD, [path, String(offset)])
  }

  read(): Promise<Answer | undefined> {
    return this.evaluate('os.pread(fd, 16, offset)')
  }

  readStart(): Promise<Answer | undefined> {
    return this.evaluate('os.pread(fd, 16, 0)')
  }

  write(): Promise<Answer | undefined> {
    return this.evaluate('os.pwrite(fd, b"x", offset)')
  }

  /** Touches the mapping: the process may die of it. */
  peek(): Promise<Answer | undefined> {
    return this.evaluate('mapping[offset:offset + 16]')
  }
}

/** Writes, reads back and peeks through a mapping, page after page, in a thread. */
const WORK = `
fd = os.open(sys.argv[2], os.O_RDWR)
size = os.fstat(fd).st_size
mapping = mmap.mmap(fd, size)
report = {"rounds": 0, "errors": 0, "wrong": 0}
def work():
    while True:
        page = report["rounds"] * 4096 % size
        stamp = report["rounds"].to_bytes(8, "little")
        try:
            os.pwrite(fd, stamp, page)
            if os.pread(fd, 8, page) != stamp or mapping[page:page + 8] != stamp:
                report["wrong"] += 1
        except OSError:
            report["errors"] += 1
        report["rounds"] += 1
        time.sleep(0.0005)
threading.Thread(target=work, daemon=True).start()
`

export interface Report {
  rounds: number
  errors: number
  wrong: number
}

/** Works on a file of its own all the time, and counts what went wrong. */
export class Bystander extends PythonClient {
  constructor(path: string) {
    super(WORK, [path])
  }

  async report(): Promise<Report> {
    const report = await this.evaluate<Report>('dict(report)')
    if (report?.value === undefined) throw new Error('the bystander died')
    return report.value
  }
}
