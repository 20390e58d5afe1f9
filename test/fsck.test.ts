import { spawnSync } from 'node:child_process'
import { closeSync, openSync, readFileSync, statSync, writeFileSync, writeSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import Database from 'better-sqlite3'
import { type Test, t } from 'tap'
import { format } from '../mkfs/format.ts'
import type { ByteRange } from '../src/dax/bad-ranges.ts'
import { openDevice, openSimulated } from '../src/dax/device.ts'
import { fsDaxGet } from '../src/dax/holder.ts'
import type { SimulatedMemory } from '../src/dax/simulated-memory.ts'
import { Filesystem } from '../src/fs/filesystem.ts'
import { UNIT_SIZE } from '../src/media/geometry.ts'
import { check } from '../tools/fsck.ts'
import { scratchFilesystem, silent } from './support/core.ts'
import { cannotMount, lacks, mountRegion, runProgram } from './support/mounts.ts'

const PROGRAM = fileURLToPath(new URL('../tools/fsck.holdfast.mjs', import.meta.url))
const SIZE = 32 * 1024 * 1024
const PAGE = 4096
/** Both checkpoint slots: the superblock's unit and the two of the journal come before. */
const SLOTS = 6 * 1024 * 1024

function fsck(...args: string[]): { status: number | null; out: string; err: string } {
  const { status, stdout, stderr } = spawnSync(PROGRAM, args, { encoding: 'utf8', timeout: 60_000 })
  return { status, out: stdout, err: stderr }
}

function makeRegion(path: string): void {
  writeFileSync(path, '')
  const fd = openSync(path, 'r+')
  writeSync(fd, Buffer.alloc(1), 0, 1, SIZE - 1)
  closeSync(fd)
  const device = openDevice(path)
  format(device.memory, { label: 'label', uid: 0, gid: 0, now: 1 })
  device.close()
}

function scribble(path: string, offset: number): void {
  const fd = openSync(path, 'r+')
  writeSync(fd, Buffer.alloc(8192, 0x5a), 0, 8192, offset)
  closeSync(fd)
}

t.test('exit codes are those of fsck(8)', (t) => {
  const dir = t.testdir({ other: 'x'.repeat(100_000) })
  const region = join(dir, 'region')
  makeRegion(region)
  const contents = () => Buffer.compare(readFileSync(region), before) === 0
  let before = readFileSync(region)
  t.match(fsck(region), { status: 0, out: /clean, 1 inode, 1024\/6144 blocks/, err: '' })
  t.match(fsck('-p', region), { status: 0, out: /clean\n/ })
  for (const flag of ['-n', '-a', '-y', '--repair', '-f', '-v'])
    t.equal(fsck(flag, region).status, 0)
  t.ok(contents(), 'a clean filesystem is not written to')
  t.match(fsck(), { status: 16, err: /missing required argument/ })
  t.match(fsck('-n', '-y', region), { status: 16, err: /only one of/ })
  t.match(fsck('--what', region), { status: 16, err: /unknown option/ })
  t.match(fsck(join(dir, 'none')), { status: 8, err: /does not exist/ })
  t.match(fsck(join(dir, 'other')), { status: 8, err: /not a holdfast filesystem/ })
  scribble(region, 0)
  before = readFileSync(region)
  t.match(fsck('-n', region), {
    status: 4,
    out: /primary.*\n(?:would correct: .*\n)+.*1 problem left: run fsck.holdfast --repair/,
  })
  t.match(fsck(region), { status: 4 })
  t.ok(contents(), 'not written without being told to')
  t.match(fsck('-p', region), { status: 1, out: /corrected: wrote the primary superblock anew/ })
  before = readFileSync(region)
  t.match(fsck('--repair', region), { status: 0 })
  t.ok(contents(), 'repairing twice changes nothing')
  scribble(region, SLOTS)
  scribble(region, SLOTS + 2 * 1024 * 1024)
  const hopeless = fsck('--repair', '--json', region)
  t.equal(hopeless.status, 4)
  t.match(JSON.parse(hopeless.out), {
    region,
    label: 'label',
    problems: [{ structure: 'checkpoint', code: 'checkpoint-damaged', fixable: false }],
    actions: [],
    exitCode: 4,
  })
  t.end()
})

t.test('a region in use is refused, but for a look', (t) => {
  const region = join(t.testdir(), 'region')
  makeRegion(region)
  const device = openDevice(region)
  fsDaxGet(device, { purpose: 'mount', mountpoint: '/mnt/somewhere' })
  for (const flag of ['--repair', '-p', '-y', '-v']) {
    const { status, err } = fsck(flag, region)
    t.equal(status, 8, flag)
    t.match(err, /in use.*\/mnt\/somewhere.*-n/)
  }
  t.match(fsck('-n', region), { status: 0, out: /is mounted/ })
  device.close()
  t.end()
})

t.test('dump shows the superblocks, the journal and the index', (t) => {
  const dir = t.testdir()
  const region = join(dir, 'region')
  makeRegion(region)
  const script = `
    import { dump } from '${new URL('../tools/dump.ts', import.meta.url)}'
    dump(${JSON.stringify(region)}, JSON.parse(process.argv[1]))`
  const run = (options: object) => {
    const args = ['--import=tsx', '--input-type=module', '-e', script, JSON.stringify(options)]
    return spawnSync(process.execPath, args, { encoding: 'utf8' })
  }
  const { stdout } = run({})
  t.match(stdout, /^primary superblock at 0\n/)
  t.match(stdout, /\nbackup superblock at 33550336\n/)
  t.match(stdout, /label +label +name given by mkfs\n/)
  t.match(stdout, /slot1 +2048\+512 /)
  const json = JSON.parse(run({ json: true, journal: true }).stdout)
  t.match(json, { superblocks: [{ copy: 'primary' }, { copy: 'backup' }], journal: [] })
  const out = join(dir, 'index.db')
  t.equal(run({ index: out }).status, 0)
  t.equal(statSync(out).mode & 0o777, 0o600)
  const database = new Database(out, { readonly: true })
  t.same(database.prepare('SELECT ino, mode FROM inode').all(), [{ ino: 1, mode: 0o040755 }])
  database.close()
  t.not(run({ index: out }).status, 0, 'nothing is overwritten')
  scribble(region, 0)
  t.match(run({}).stdout, /primary superblock at 0\n {2}not usable: .*\nbackup superblock/)
  t.end()
})

/** A file with one page of bad memory, on a region that was unmounted. */
async function makeFile(region: string): Promise<void> {
  const device = openDevice(region)
  fsDaxGet(device, { purpose: 'mount' })
  const options = { readOnly: false, commitSeconds: 60, onFailure: 'handles' } as const
  const fs = Filesystem.mount(device, { ...options, logger: silent })
  const handle = fs.create(1, Buffer.from('file'), 0o644, 2, { uid: 0, gid: 0, pid: 1, umask: 0 })
  const how = { cached: false, killPrivileges: false, append: false }
  fs.write(handle, 0, Buffer.alloc(20_000, 1), 0, 20_000, how)
  const target = { kind: 'file', inode: handle.ino, fileOffset: 8192 } as const
  fs.administration.inject({ target, length: 4096, method: 'soft' })
  await fs.unmount()
  device.close()
}

t.test('files on bad memory are listed; -n prints the plan of --repair', async (t) => {
  const region = join(t.testdir(), 'region')
  makeRegion(region)
  await makeFile(region)
  const found = fsck(region)
  t.equal(found.status, 0, 'bad memory is no damage of the filesystem')
  t.match(found.out, /bad memory: \/file: bytes 8192 to 12287 \(region offset \d+\)/)
  scribble(region, SIZE - 4096)
  const before = readFileSync(region)
  const planned = fsck('-n', region)
  t.equal(planned.status, 4)
  t.match(planned.out, /would correct: wrote the backup superblock anew/)
  const plan = JSON.parse(fsck('-n', '--json', region).out) as { plan: object[] }
  t.ok(before.equals(readFileSync(region)), 'nothing is written')
  const done = JSON.parse(fsck('--repair', '--json', region).out) as { actions: object[] }
  t.same(done.actions, plan.plan)
  t.match(done, { badFiles: [{ path: '/file', fileOffset: 8192, length: 4096 }] })
  t.match(fsck('--overlap', 'what', region), { status: 16, err: /quarantine, zero/ })
})

/** What fsck.holdfast says of files on memory of which `bad` is listed. */
async function listedFiles(t: Test, memory: SimulatedMemory, bad: readonly ByteRange[]) {
  const device = openSimulated(memory)
  for (const { offset, length } of bad) device.badRanges.add(offset, length)
  const options = { region: 'simulated', permission: 'nothing', overlap: 'zero' } as const
  const flags = { readOnly: true, full: true, json: false, verbose: false }
  const { examination, exitCode } = await check(device, { ...options, ...flags }, false)
  examination?.salvaged?.index.close()
  t.equal(exitCode, 0, 'bad memory is no damage of the filesystem')
  return examination?.badFiles.map(({ path, fileOffset, length, regionOffset }) => {
    return [path, fileOffset, length, regionOffset]
  })
}

t.test('so are files on memory that was listed as bad since the last mount', async (t) => {
  const { fs, memory } = scratchFilesystem(SIZE, 'cacheline')
  const place = (name: string) => {
    const handle = fs.create(1, Buffer.from(name), 0o644, 2, { uid: 0, gid: 0, pid: 1, umask: 0 })
    const how = { cached: false, killPrivileges: false, append: false }
    fs.write(handle, 0, Buffer.alloc(20_000, 1), 0, 20_000, how)
    const target = { kind: 'file', inode: handle.ino, fileOffset: 0 } as const
    return { target, offset: fs.volume.index.rmap.ofOwner(handle.ino)[0]!.block * PAGE }
  }
  const [a, b] = [place('a'), place('b')]
  const target = { ...a.target, fileOffset: PAGE }
  fs.administration.inject({ target, length: PAGE, method: 'soft' })
  await fs.unmount()
  const recorded = ['/a', PAGE, PAGE, a.offset + PAGE]
  t.same(await listedFiles(t, memory, []), [recorded])
  const free = { offset: SIZE - 3 * UNIT_SIZE, length: PAGE }
  const apart = [
    { offset: a.offset + 3 * PAGE, length: PAGE },
    { offset: b.offset, length: 2 * PAGE },
    free,
  ]
  t.same(await listedFiles(t, memory, apart), [
    recorded,
    ['/a', 3 * PAGE, PAGE, a.offset + 3 * PAGE],
    ['/b', 0, 2 * PAGE, b.offset],
  ])
  t.same(
    await listedFiles(t, memory, [{ offset: a.offset, length: 4 * PAGE }]),
    [['/a', 0, 4 * PAGE, a.offset]],
    'what is on record as well is listed once',
  )
})

t.test('a shutdown says where, and what helps', { skip: cannotMount() }, async (t) => {
  const mounted = await mountRegion({ size: '64M' })
  const { region, mountpoint } = mounted
  const status = async (target: string) => {
    const { stdout } = await runProgram('holdfast', ['status', target])
    return /^ *remedy +(.*)$/m.exec(stdout)?.[1]
  }
  t.equal(await status(mountpoint), undefined)
  await mounted.client('echo there is a record > file')
  await runProgram('holdfast', ['inject', mountpoint, '--metadata', 'journal'])
  const repair = `fsck.holdfast --repair ${region}`
  t.equal(await status(mountpoint), `run holdfast umount ${mountpoint}, then ${repair}`)
  const offset = (await mounted.status()).shutdown?.offset
  await mounted.unmount()
  t.equal(await status(region), `run ${repair}`)
  const { stderr } = await runProgram('holdfast', ['mount', region, mountpoint])
  const told = `journal at region offset ${offset}: the filesystem was shut down (metadata-failure)`
  t.equal(stderr, `holdfast: ${told}: run ${repair}\n`)
})

t.test('a terminal gets a progress bar, a pipe none', { skip: lacks('script') }, (t) => {
  const region = join(t.testdir(), 'region')
  makeRegion(region)
  const command = `${PROGRAM} ${region}`
  const { stdout } = spawnSync('script', ['-qec', command, '/dev/null'], { encoding: 'utf8' })
  t.match(stdout, /\[[^\]]*\] (?:inodes|names|links|extents|space)/)
  t.match(stdout, /clean/)
  t.notMatch(fsck(region).err, /\[/)
  t.end()
})
