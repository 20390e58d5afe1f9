/** The daemon's log: one line an event, with its level. */
import { openSync, writeSync } from 'node:fs'
import type { Logger } from '../fs/volume.ts'

export type LogStyle = 'terminal' | 'dated' | 'journal'

/** Tells a daemon how the lines on its stderr are to look; set by the one who made that stderr. */
export const LOG_STYLE_VARIABLE = 'HOLDFAST_LOG_STYLE'

/** Syslog priorities, as the journal wants them at the start of a line. */
const PRIORITIES = { error: 3, warn: 4, info: 6, debug: 7 } as const

export type Level = keyof typeof PRIORITIES

export class LineLogger implements Logger {
  readonly #fd: number
  readonly #style: LogStyle
  readonly #debug: boolean

  constructor(fd: number, style: LogStyle, debug = false) {
    this.#fd = fd
    this.#style = style
    this.#debug = debug
  }

  error(sentence: string): void {
    this.#line('error', sentence)
  }

  warn(sentence: string): void {
    this.#line('warn', sentence)
  }

  info(sentence: string): void {
    this.#line('info', sentence)
  }

  debug(sentence: string): void {
    if (this.#debug) this.#line('debug', sentence)
  }

  #line(level: Level, sentence: string): void {
    const text = sentence.replace(/\s*\n\s*/g, ' | ')
    try {
      writeSync(this.#fd, `${this.#head(level)}${text}\n`)
    } catch {
      // A full disk or a reader that left must not stop the filesystem.
    }
  }

  #head(level: Level): string {
    switch (this.#style) {
      case 'terminal':
        return 'holdfast: '
      case 'journal':
        return `<${PRIORITIES[level]}>`
      case 'dated':
        return `${new Date().toISOString()} ${process.pid} ${level}: `
    }
  }
}

/** The log of this process: `file`, or stderr in the style of whoever reads it. */
export function openLogger(file: string | undefined, debug: boolean): LineLogger {
  if (file !== undefined) return new LineLogger(openLogFile(file), 'dated', debug)
  return new LineLogger(2, styleOfStderr(), debug)
}

export function openLogFile(path: string): number {
  return openSync(path, 'a', 0o640)
}

function styleOfStderr(): LogStyle {
  const told = process.env[LOG_STYLE_VARIABLE]
  if (told === 'dated' || told === 'journal') return told
  // systemd connects a unit's stderr to the journal, and says so.
  return process.env.JOURNAL_STREAM === undefined ? 'terminal' : 'journal'
}
