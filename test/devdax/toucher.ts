/**
 * Loads one page of the device over and over, as reads of a daemon do, and has a machine check
 * raised meanwhile. Prints the failures that the device was told of, as JSON.
 */
import { touchFailed, watchBusErrors } from '../../src/dax/bus-errors.ts'
import { openDevice } from '../../src/dax/device.ts'
import { fsDaxGet } from '../../src/dax/holder.ts'
import { MemoryFailure } from '../../src/dax/memory.ts'
import { sleep } from '../../tools/quickstart/programs.ts'
import { DEVICE, machineCheck } from './device.ts'

const LENGTH = 4096
const LIMIT_MS = 20_000

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
const raised = machineCheck('ar', offset)
const deadline = performance.now() + LIMIT_MS
while (failures.length === 0 && performance.now() < deadline) {
  try {
    // Busy in user mode, in the addon and in the guard, but for a look at the events.
    for (let round = 0; round < 2000; round++) device.memory.crc32c(offset, LENGTH, 0)
  } catch (error) {
    if (!(error instanceof MemoryFailure)) throw error
    touchFailed(device, error.offset, error.length)
  }
  await sleep(0)
}
await raised
// A second telling of the same failure would come now.
await sleep(300)
process.stdout.write(JSON.stringify(failures))
unwatch()
device.close()
