/** What is measured of a daemon at rest, and what must not grow. */
import Table from 'cli-table3'

/** At a quiescent point: every file is deleted, every handle closed, a checkpoint taken. */
export interface Sample {
  /** Since the mount. */
  readonly seconds: number
  readonly operations: number
  /** RssAnon, bytes, after garbage was collected. */
  readonly memory: number
  /** What JavaScript has then, bytes. */
  readonly heap: number
  readonly descriptors: number
  readonly threads: number
  /** Rows of the reverse map. */
  readonly rmapRows: number
  /** Of the serialised index, bytes. */
  readonly image: number
  readonly freeBlocks: number
  /** In quarantine, before that is ended for the sample. */
  readonly poisoned: number
  readonly inodes: number
}

/**
 * Not looked at for memory, whichever is longer: V8 compiles what is used often, and the status
 * keeps the last thousand failures.
 */
const WARM_UP_PART = 0.25
const WARM_UP_SECONDS = 120
/** Fewer samples behind the warm-up say nothing about memory. */
const ENOUGH = 16
/** Times the noise. */
const TOLERANCE = 3
/**
 * Allowed when there is no noise at all. What V8 compiles later takes some hundred KiB; the image
 * keeps the pages that it once had.
 */
const STEADY = { memory: 2 ** 20, heap: 2 ** 20, image: 2 ** 16 } as const
const MEASURED = Object.keys(STEADY) as (keyof typeof STEADY)[]

/** These are the same at every quiescent point, to the unit. */
const EXACT = {
  descriptors: 'open descriptors',
  threads: 'threads',
  rmapRows: 'rows of the reverse map',
  freeBlocks: 'free blocks',
  inodes: 'inodes',
} as const satisfies Partial<Record<keyof Sample, string>>

export interface Growth {
  readonly first: number
  readonly last: number
  readonly allowed: number
}

/** What grew; nothing when all is well. */
export function judge(samples: readonly Sample[]): string[] {
  const problems: string[] = []
  for (const [key, name] of Object.entries(EXACT) as [keyof typeof EXACT, string][]) {
    const before = samples[0]?.[key]
    const other = samples.find((sample) => sample[key] !== before)
    if (other === undefined) continue
    problems.push(`${name}: ${before} at first, ${other[key]} after ${Math.round(other.seconds)} s`)
  }
  for (const key of MEASURED) {
    const growth = growthOf(samples, key)
    if (growth === undefined || growth.last - growth.first <= growth.allowed) continue
    const { first, last, allowed } = growth
    problems.push(`${key}: from ${mib(first)} to ${mib(last)} MiB, ${mib(allowed)} more allowed`)
  }
  return problems
}

/**
 * The median of the first quarter after the warm-up, and that of the last. What is allowed follows
 * from the noise: three times the median step, up or down, from one sample to the next.
 */
export function growthOf(samples: readonly Sample[], key: keyof typeof STEADY): Growth | undefined {
  const begin = Math.max(WARM_UP_SECONDS, (samples.at(-1)?.seconds ?? 0) * WARM_UP_PART)
  const values = samples.filter(({ seconds }) => seconds >= begin).map((sample) => sample[key])
  if (values.length < ENOUGH) return undefined
  const quarter = Math.ceil(values.length / 4)
  const steps = values.slice(1).map((value, index) => Math.abs(value - values[index]!))
  return {
    first: median(values.slice(0, quarter)),
    last: median(values.slice(-quarter)),
    allowed: Math.max(TOLERANCE * median(steps), STEADY[key]),
  }
}

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b)
  return sorted[Math.floor(sorted.length / 2)] ?? 0
}

export function mib(bytes: number): string {
  return (bytes / 2 ** 20).toFixed(1)
}

const ROWS = 24

/** At most a screen of them, evenly spread; the first and the last are among them. */
export function table(samples: readonly Sample[]): string {
  const step = Math.max(1, (samples.length - 1) / (ROWS - 1))
  const shown = new Set<Sample>()
  for (let at = 0; at < samples.length; at += step) shown.add(samples[Math.round(at)]!)
  const head = [
    's',
    'operations',
    'RssAnon MiB',
    'heap MiB',
    'fds',
    'threads',
    'rmap rows',
    'image KiB',
  ]
  const result = new Table({
    head: [...head, 'free blocks', 'poisoned'],
    style: { head: [], border: [] },
    colAligns: Array.from({ length: head.length + 2 }, () => 'right'),
  })
  for (const sample of shown) {
    result.push([
      Math.round(sample.seconds),
      sample.operations.toLocaleString('en'),
      mib(sample.memory),
      mib(sample.heap),
      sample.descriptors,
      sample.threads,
      sample.rmapRows,
      Math.round(sample.image / 1024),
      sample.freeBlocks,
      sample.poisoned,
    ])
  }
  return result.toString()
}
