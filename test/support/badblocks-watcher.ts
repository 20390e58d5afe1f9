/**
 * Opens a stripe set over two files as over two NVDIMMs, claims it, and has their lists of bad
 * blocks change. The lists are the names of the host and of its domain: files of the kernel that
 * anything can be written to, and that wake whoever polls them as attributes in sysfs do. In a UTS
 * namespace of its own (unshare --uts) nobody else sees them. Prints what the holder is told.
 */
import { writeFileSync } from 'node:fs'
import { openSet } from '../../src/bus/open-set.ts'
import { watchBusErrors } from '../../src/dax/bus-errors.ts'
import { fsDaxGet, fsPutDax, type Holder } from '../../src/dax/holder.ts'
import { openRegion } from '../../src/dax/region.ts'
import { makeNvdimm } from './nvdimm.ts'

const LISTS = ['/proc/sys/kernel/hostname', '/proc/sys/kernel/domainname']
const M = 1 << 20
const PAGE = 4096
const PATIENCE_MS = 5000

const [sysfs = '', ...paths] = process.argv.slice(2)
const nvdimms = paths.map((_, at) => makeNvdimm(sysfs, at, 64 * M, LISTS[at]))
const device = openSet(paths, (path) => nvdimms[paths.indexOf(path)]!.as(openRegion(path, false)))
const told: [number, number][] = []
const holder: Holder = { purpose: 'mount', mountpoint: '/mnt/set' }
const notifyFailure = (_device: unknown, offset: number, length: number) => {
  told.push([offset, length])
  return 0
}
fsDaxGet(device, holder, { notifyFailure })
const unwatch = watchBusErrors(device)

async function list(target: number, offset: number, expected: number): Promise<void> {
  writeFileSync(LISTS[target]!, nvdimms[target]!.line(offset))
  const deadline = performance.now() + PATIENCE_MS
  while (told.length < expected && performance.now() < deadline) {
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
}

// Unlike an attribute in sysfs, such a file tells only what changes once somebody waits for it.
await new Promise((resolve) => setTimeout(resolve, 50))
await list(1, 2 * M + PAGE, 1)
await list(0, 4 * M + PAGE, 2)
// A label: the kernel wakes us, and nobody above is told.
await list(0, 0, 2)
await list(0, 6 * M, 3)
unwatch()
fsPutDax(device, holder)
await list(1, 6 * M, 3)
await new Promise((resolve) => setTimeout(resolve, 50))
device.close()
process.stdout.write(JSON.stringify(told))
