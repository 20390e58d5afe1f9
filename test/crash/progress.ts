/** How far a campaign of a seed has come, so that the next run goes on there. */
import { mkdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { CampaignOptions, Totals } from './campaign.ts'

const DIRECTORY = join(tmpdir(), `holdfast-crash-${process.getuid?.() ?? 0}`)

type Which = Pick<CampaignOptions, 'seed' | 'modes' | 'flavour'>

function fileOf({ seed, modes, flavour }: Which): string {
  return join(DIRECTORY, `${[seed, ...modes, flavour ?? 'all'].join('-')}.json`)
}

export function recall(which: Which): Totals {
  try {
    const { sequences, images } = JSON.parse(readFileSync(fileOf(which), 'utf8')) as Totals
    return { sequences, images }
  } catch {
    return { sequences: 0, images: 0 }
  }
}

export function remember(which: Which, totals: Totals): void {
  mkdirSync(DIRECTORY, { recursive: true, mode: 0o700 })
  writeFileSync(fileOf(which), JSON.stringify(totals))
}

export function forget(which: Which): void {
  rmSync(fileOf(which), { force: true })
}
