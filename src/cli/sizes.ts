/** Sizes as people write and read them: powers of 1024, K, M, G and T. */
import { CliError, EXIT_USAGE } from './errors.ts'

const UNITS = ['', 'K', 'M', 'G', 'T', 'P'] as const

/** Bytes of '4096', '64K', '1.5G', '2MiB'. Throws a usage error that names `what`. */
export function parseSize(text: string, what = 'size'): number {
  const match = /^(\d+(?:\.\d+)?)\s*([KMGTP])?(?:i?B)?$/i.exec(text.trim())
  if (match === null) throw badSize(text, what)
  const exponent = UNITS.indexOf((match[2] ?? '').toUpperCase() as (typeof UNITS)[number])
  const bytes = Number(match[1]) * 1024 ** exponent
  if (!Number.isSafeInteger(bytes)) throw badSize(text, what)
  return bytes
}

function badSize(text: string, what: string): CliError {
  return new CliError(
    `${what} '${text}' is not a size: give bytes, or a number with K, M, G or T (for example 64M)`,
    EXIT_USAGE,
  )
}

/** '64.0 MiB'; bytes below 1 KiB are exact. */
export function formatSize(bytes: number): string {
  let value = bytes
  let unit = 0
  while (value >= 1024 && unit < UNITS.length - 1) {
    value /= 1024
    unit++
  }
  if (unit === 0) return `${bytes} B`
  return `${value.toFixed(1)} ${UNITS[unit]}iB`
}
