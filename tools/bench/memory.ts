/** `--memory`: what the daemon keeps for itself, and what it does when nobody asks anything. */

import { sleep } from '../quickstart/programs.ts'
import { Daemon } from './daemon.ts'
import { type Machine, machine, machineLine, processorTime, table } from './report.ts'
import { dropCaches, workDirectory } from './targets.ts'

const IDLE_SECONDS = 10
/** Until the last commit is over, and V8 has given back what it does not need. */
const REST_SECONDS = 20

export interface Memory {
  machine: Machine
  files: number
  /** RssAnon, bytes. */
  empty: number
  afterCreate: number
  duringCheckpoint: number
  afterCheckpoint: number
  /** After the kernel has forgotten every inode. */
  afterForget: number
  /** Processor seconds used in IDLE_SECONDS. */
  idle: number
}

export async function memory(files: number, progress: (line: string) => void): Promise<Memory> {
  const facts = await machine()
  const daemon = await Daemon.make(workDirectory(), files * 6144 + 256 * 2 ** 20)
  const empty = daemon.memory()
  progress(`creating ${files} files`)
  await daemon.makeFiles(0, files)
  const afterCreate = daemon.memory()
  progress('checkpoint')
  const { peak } = await daemon.checkpoint()
  const afterCheckpoint = daemon.memory()
  await dropCaches()
  await sleep(REST_SECONDS * 1000)
  const afterForget = daemon.memory()
  progress(`idle for ${IDLE_SECONDS} s`)
  const before = processorTime(daemon.pid)
  await sleep(IDLE_SECONDS * 1000)
  const idle = processorTime(daemon.pid) - before
  await daemon.unmount()
  return {
    machine: facts,
    files,
    empty,
    afterCreate,
    duringCheckpoint: peak,
    afterCheckpoint,
    afterForget,
    idle,
  }
}

export function printMemory(result: Memory): string {
  const { files, empty, afterCreate, duringCheckpoint, afterCheckpoint, afterForget } = result
  const mb = (bytes: number) => (bytes / 1e6).toFixed(1)
  const rows = [
    ['empty', mb(empty)],
    [`after ${files.toLocaleString('en')} files were made`, mb(afterCreate)],
    ['  growth for a file, bytes', ((afterCreate - empty) / files).toFixed(0)],
    ['at most during a checkpoint', mb(duringCheckpoint)],
    ['after it', mb(afterCheckpoint)],
    ['after the kernel forgot every inode', mb(afterForget)],
    [`processor time in ${IDLE_SECONDS} s without work, s`, result.idle.toFixed(2)],
  ]
  return [machineLine(result.machine), '', table(['daemon memory (RssAnon)', 'MB'], rows)].join(
    '\n',
  )
}
