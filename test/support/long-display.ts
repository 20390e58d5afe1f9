/** Shows how far a long run is: a bar on a terminal, otherwise a line now and then. */
import { SingleBar } from 'cli-progress'

const LINE_SECONDS = 30
const FORMAT = '[{bar}] {percentage} %, {left} to go: {text}'

export interface Display {
  /** A line that stays. */
  say(line: string): void
  /** Now: how many seconds have gone, and what has been done. */
  show(seconds: number, text: string): void
  close(): void
}

export function openDisplay(name: string, total: number): Display {
  return process.stderr.isTTY ? openBar(total) : openLines(name, total)
}

function openBar(total: number): Display {
  const stream = process.stderr
  const bar = new SingleBar({ format: FORMAT, barsize: 20, stream, hideCursor: true })
  bar.start(total, 0, { text: '', left: clock(total) })
  return {
    say(line) {
      stream.write('\r\x1b[K')
      process.stdout.write(`${line}\n`)
      bar.render()
    },
    show(seconds, text) {
      bar.update(Math.min(seconds, total), { text, left: clock(total - seconds) })
    },
    close: () => bar.stop(),
  }
}

function openLines(name: string, total: number): Display {
  let told = 0
  return {
    say: (line) => void process.stdout.write(`${line}\n`),
    show(seconds, text) {
      if (seconds - told < LINE_SECONDS) return
      told = seconds
      process.stderr.write(`${name}: ${text}, ${clock(total - seconds)} to go\n`)
    },
    close: () => undefined,
  }
}

function clock(seconds: number): string {
  const whole = Math.max(0, Math.round(seconds))
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, '0')}`
}
