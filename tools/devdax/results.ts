/** Counts what the guests report: lines 'ok NAME (N ms)', 'FAILED NAME', 'skipped NAME: why'. */

export interface Check {
  readonly name: string
  readonly outcome: 'ok' | 'FAILED' | 'skipped'
}

export interface Boot {
  readonly suite: string
  readonly release: string
  readonly align: number
  readonly checks: Check[]
  seconds: number
}

const LINE = /^(ok|FAILED|skipped) {1,4}(.*)$/

/** Undefined for a line that is none. */
export function parseCheck(line: string): Check | undefined {
  const match = LINE.exec(line)
  if (match === null) return undefined
  return { outcome: match[1] as Check['outcome'], name: match[2]!.replace(/ \(\d+ ms\)$/, '') }
}

export function count(boots: readonly Boot[], outcome: Check['outcome']): number {
  return boots.flatMap(({ checks }) => checks).filter((check) => check.outcome === outcome).length
}

/** 'N passed, N failed[, N skipped]', as all test programs here end. */
export function summary(boots: readonly Boot[]): string {
  const skipped = count(boots, 'skipped')
  const tail = skipped > 0 ? `, ${skipped} skipped` : ''
  return `${count(boots, 'ok')} passed, ${count(boots, 'FAILED')} failed${tail}`
}
