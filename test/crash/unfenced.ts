/** Which stores a mutant leaves without a fence: HOLDFAST_UNFENCED names their kind. */
import { BLOCK_SIZE, geometryFor, UNIT_SIZE } from '../../src/media/geometry.ts'
import type { UnfencedStores } from './mounting.ts'
import type { Unfenced } from './mutants.ts'

/** The checkpoint slots that mkfs makes are the first two units of data space. */
const SLOT_UNITS = 2

export function unfencedStores(size: number): UnfencedStores | undefined {
  const wanted = process.env.HOLDFAST_UNFENCED as Unfenced | undefined
  if (wanted === undefined) return undefined
  const { journal, primary, backup, dataStartBlock } = geometryFor(size)
  const data = dataStartBlock * BLOCK_SIZE
  return (offset, zeros) => {
    if (offset === primary || offset === backup) return wanted === 'superblock'
    if (journal.some((half) => half.offset <= offset && offset < half.offset + half.length)) {
      return wanted === 'record'
    }
    if (offset < data + SLOT_UNITS * UNIT_SIZE) return wanted === 'image'
    return wanted === (zeros ? 'zeros' : 'data')
  }
}
