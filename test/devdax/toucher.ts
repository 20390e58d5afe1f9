/**
 * Loads one page of the device, as reads of a daemon do, and has a machine check raised at that
 * very load: at any other moment it might be the kernel that runs, and that would be its end.
 * Prints the failures that the device was told of, as JSON.
 */
import { touchFailed, watchBusErrors } from '../../src/dax/bus-errors.ts'
import { openDevice } from '../../src/dax/device.ts'
import { fsDaxGet } from '../../src/dax/holder.ts'
import { MemoryFailure } from '../../src/dax/memory.ts'
import { sleep } from '../../tools/quickstart/programs.ts'
import { DEVICE, machineCheckAtTouch } from './device.ts'

const LENGTH = 4096

const offset = Number(process.argv[2])
const device = openDevice(DEVICE)
const failures: { offset: number; length: number }[] = []
fsDaxGet(
  device,
  { purpose: 'fsck' },
  {
    notifyFailure(_device, offset, length) {
      failures.push({ offset, length })
      return 0
    },
  },
)
const unwatch = watchBusErrors(device)
await machineCheckAtTouch(process.pid, offset)
try {
  device.memory.crc32c(offset, LENGTH, 0)
} catch (error) {
  if (!(error instanceof MemoryFailure)) throw error
  touchFailed(device, error.offset, error.length)
}
// A second telling of the same failure would come now.
await sleep(300)
process.stdout.write(JSON.stringify(failures))
unwatch()
device.close()
