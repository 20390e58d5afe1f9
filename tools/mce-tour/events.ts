/** What the guest tells the tour: one JSON object a line. */

export interface Row {
  /** What failed, and how. */
  readonly failure: string
  /** Of the device. */
  readonly offset: number
  readonly length: number
  /** What holdfast took it for: data, metadata, free. */
  readonly kind: string
  readonly action: string
  readonly handlesKilled: number
  /** What the program saw that had the file open. */
  readonly victim: string
  /** What a program saw that works on another file. */
  readonly bystander: string
  /** From the kernel's first word of it to holdfast's report; null when the kernel said nothing. */
  readonly milliseconds: number | null
}

export type TourEvent =
  | { readonly type: 'step' | 'note'; readonly text: string }
  | {
      readonly type: 'check'
      readonly text: string
      readonly holds: boolean
      readonly found: string
    }
  | { readonly type: 'row'; readonly row: Row }
  | { readonly type: 'end' }

export function parseEvent(line: string): TourEvent | undefined {
  if (!line.startsWith('{"type":')) return undefined
  return JSON.parse(line) as TourEvent
}
