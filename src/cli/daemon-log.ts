/**
 * Where a background daemon's stderr goes. Everything it may say ends there, down to the last
 * words of V8: `-o log=FILE`, else the journal, else a file in the runtime directory.
 */
import { renameSync, statSync } from 'node:fs'
import { createConnection, type Socket } from 'node:net'
import { join } from 'node:path'
import { CliError, MOUNT_USAGE, sentenceOf } from './errors.ts'
import { type LogStyle, openLogFile } from './logger.ts'

/** What systemd-cat(1) connects to; there is one wherever journald runs. */
const JOURNAL_SOCKET = '/run/systemd/journal/stdout'

/** A log in the runtime directory lies in memory: the old one is kept, and no more. */
const ROTATE_BYTES = 1024 * 1024

export interface DaemonLog {
  readonly fd: number
  readonly style: LogStyle
  /** For people: how to read it. */
  readonly place: string
  /** A file whose end tells why a daemon died. */
  readonly file: string | undefined
  close(): void
}

export async function openDaemonLog(
  file: string | undefined,
  fallbackName: string,
): Promise<DaemonLog> {
  if (file !== undefined) return fileLog(file)
  const journal = await connectJournal()
  if (journal !== undefined) return journal
  const { runtimeDirectory } = await import('../dax/runtime-directory.ts')
  const path = join(runtimeDirectory(), `${fallbackName}.log`)
  const size = statSync(path, { throwIfNoEntry: false })?.size ?? 0
  if (size > ROTATE_BYTES) renameSync(path, `${path}.1`)
  return fileLog(path)
}

function fileLog(path: string): DaemonLog {
  try {
    const fd = openLogFile(path)
    return { fd, style: 'dated', place: path, file: path, close() {} }
  } catch (error) {
    throw new CliError(`cannot write the log: ${sentenceOf(error)}`, MOUNT_USAGE)
  }
}

async function connectJournal(): Promise<DaemonLog | undefined> {
  const socket = await new Promise<Socket | undefined>((resolve) => {
    const attempt = createConnection(JOURNAL_SOCKET)
    attempt.once('connect', () => resolve(attempt))
    attempt.once('error', () => resolve(undefined))
  })
  if (socket === undefined) return undefined
  const { _handle: handle } = socket as unknown as { _handle?: { fd?: number } }
  if (handle?.fd === undefined || handle.fd < 0) return undefined
  // Identifier, unit, priority, "lines start with <priority>", and three places not to forward to.
  socket.write('holdfast\n\n6\n1\n0\n0\n0\n')
  const place = 'journalctl -t holdfast'
  return { fd: handle.fd, style: 'journal', place, file: undefined, close: () => socket.destroy() }
}
