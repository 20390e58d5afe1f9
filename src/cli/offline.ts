/** Looks at a region that nobody has mounted. Nothing is written. */
import type { Inspection } from '../fs/inspection.ts'
import { CliError } from './errors.ts'

export async function offline<T>(
  region: string,
  look: (inspection: Inspection, size: number) => T,
): Promise<T> {
  const { isHeld, whoHolds } = await import('../dax/claim.ts')
  const { openByName } = await import('../bus/open.ts')
  const { inspect } = await import('../fs/inspection.ts')
  const device = openByName(region, { readOnly: true })
  try {
    // What a mount is changing cannot be read from outside; who it is, only root may know.
    if (whoHolds(region) === undefined && isHeld(region)) {
      throw new CliError(`${region} is in use by another user: try as root`)
    }
    const inspection = inspect(device)
    try {
      return look(inspection, device.size)
    } finally {
      inspection.close()
    }
  } finally {
    device.close()
  }
}
