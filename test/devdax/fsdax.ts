/** A plain file on ext4 with DAX: its memory fails, and the list of the disk says where. */
import assert from 'node:assert/strict'
import {
  closeSync,
  existsSync,
  openSync,
  readdirSync,
  readFileSync,
  realpathSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { diskBelow, rangesOnDisk } from '../../src/dax/file-extents.ts'
import { run, runProgram, sleep } from '../../tools/quickstart/programs.ts'
import { type MountedRegion, mountRegion, scratch } from '../support/mounts.ts'
import type { Checks } from './checks.ts'
import { machineCheckAt } from './device.ts'
import { dismount } from './mounted.ts'
import { holding, isAlive, isDead, isIntact, MIB, makeFile, told } from './victims.ts'

const BUS = '/sys/bus/nd'
const PAGE = 4096

export async function fsdax(checks: Checks): Promise<void> {
  const directory = scratch()
  const region = join(directory, 'region')
  let start: number
  let mounted: MountedRegion
  let place: number
  await checks.check('a region file on ext4 with dax is mapped without a page cache', async () => {
    const disk = await pmemDisk()
    start = disk.start
    await must('mkfs.ext4', '-q', '-b', '4096', disk.node)
    await must('mount', '-t', 'ext4', '-o', 'dax=always', disk.node, directory)
    const made = await runProgram('mkfs.holdfast', ['--size', '96M', region])
    assert.equal(made.status, 0, made.stderr)
    mounted = await mountRegion({ region })
    const smaps = readFileSync(`/proc/${mounted.pid}/smaps`, 'utf8')
    const [, flags] = new RegExp(`${region}\\n[\\s\\S]*?VmFlags: (.*)`).exec(smaps) ?? []
    assert.match(flags ?? '', /\bsf\b/, 'it is not mapped with MAP_SYNC')
  })
  await checks.check('a machine check below it: the page alone, its handles die', async () => {
    place = await makeFile(mounted, 'hit', MIB)
    await makeFile(mounted, 'other')
    const hit = await holding(mounted, 'hit')
    const other = await holding(mounted, 'other')
    await machineCheckAt('ao', start + placeOnDisk(region, place))
    const [report] = await told(mounted, 1)
    assert.deepEqual(
      [report?.offset, report?.length, report?.kind, report?.handlesKilled],
      [place, PAGE, 'data', 1],
    )
    await isDead(hit)
    await isAlive(other)
    await isIntact(mounted, 'other')
  })
  await checks.check('bad sectors of the disk are known at mount', async () => {
    await dismount(mounted)
    await machineCheckAt('ao', start + placeOnDisk(region, place + 9 * PAGE))
    await sleep(500)
    mounted = await mounted.mountAgain()
    const { failures, blocks } = await mounted.status()
    assert.deepEqual(
      failures.map(({ offset, length }) => ({ offset, length })),
      [{ offset: place + 9 * PAGE, length: PAGE }],
    )
    assert.equal(blocks.poisoned, 2)
    await isIntact(mounted, 'other')
    await dismount(mounted)
    await must('umount', directory)
  })
}

/** Byte of the disk that a byte of the file is. */
function placeOnDisk(path: string, offset: number): number {
  const fd = openSync(path, 'r')
  try {
    const ranges = rangesOnDisk(fd, diskBelow(fd, '/sys')!)
    const range = ranges.find((r) => offset >= r.offset && offset < r.offset + r.length)
    assert.ok(range, `byte ${offset} has no place on the disk`)
    return range.physical + offset - range.offset
  } finally {
    closeSync(fd)
  }
}

/** The second NVDIMM in fsdax mode, through sysfs alone, and the physical address of its byte 0. */
async function pmemDisk(): Promise<{ node: string; start: number }> {
  const regions = readdirSync(`${BUS}/devices`).filter((name) => /^region\d+$/.test(name))
  const number = Math.max(...regions.map((name) => Number(name.slice('region'.length))))
  const namespace = `namespace${number}.0`
  const attribute = (...names: string[]) => join(BUS, 'devices', ...names)
  if (existsSync(attribute(namespace, 'driver'))) {
    writeFileSync(attribute(namespace, 'driver/unbind'), namespace)
  }
  const seed = readFileSync(attribute(`region${number}`, 'pfn_seed'), 'utf8').trim()
  writeFileSync(attribute(seed, 'uuid'), readFileSync('/proc/sys/kernel/random/uuid'))
  writeFileSync(attribute(seed, 'mode'), 'ram')
  writeFileSync(attribute(seed, 'namespace'), namespace)
  writeFileSync(`${BUS}/drivers/nd_pmem/bind`, seed)
  const node = `/dev/pmem${number}`
  for (let tries = 0; !existsSync(node) && tries < 50; tries++) await sleep(100)
  assert.ok(realpathSync(`/sys/class/block/pmem${number}`).includes(`/${seed}/`))
  return { node, start: Number(readFileSync(attribute(seed, 'resource'), 'utf8')) }
}

async function must(...command: string[]): Promise<void> {
  const { status, stderr } = await run(command)
  assert.equal(status, 0, `${command.join(' ')}: ${stderr}`)
}
