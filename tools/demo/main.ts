/**
 * The whole tour, unattended: format, mount, fill, lose memory under a file, heal it, lose
 * metadata, repair, and find every byte again. Each claim it prints has been checked; the first
 * that does not hold ends it with exit code 1.
 */
import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { InjectResult, Status } from '../../src/fs/administration.ts'
import { abortConnection, detach, mountsBelow, ROOT, runJson } from '../quickstart/programs.ts'
import { Bystander, FileHolder } from './clients.ts'
import { DemoFailure, Transcript } from './transcript.ts'

const MIB = 1024 * 1024
/** Where the memory of the victim fails. */
const HIT = MIB

interface Demo {
  directory: string
  region: string
  mountpoint: string
  out: Transcript
  stop: (() => void)[]
}

export async function main(args: readonly string[]): Promise<number> {
  const source = args[0] ?? join(ROOT, 'node_modules')
  const directory = mkdtempSync(join(tmpdir(), 'holdfast-demo-'))
  const demo: Demo = {
    directory,
    region: join(directory, 'region.holdfast'),
    mountpoint: join(directory, 'mnt'),
    out: new Transcript(directory),
    stop: [],
  }
  process.on('exit', () => clean(demo))
  for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
    process.on(signal, () => process.exit(1))
  }
  mkdirSync(demo.mountpoint)
  try {
    await tour(demo, source)
    return 0
  } catch (error) {
    const text = error instanceof DemoFailure ? error.message : String((error as Error).stack)
    process.stderr.write(`   FAILED  ${text}\n`)
    return 1
  }
}

async function tour(demo: Demo, source: string): Promise<void> {
  process.stdout.write(`holdfast: the tour, in ${demo.directory}\n`)
  await formatAndMount(demo)
  await copyTree(demo, source)
  const { holder, mapper, bystander } = await openFiles(demo)
  await loseFileMemory(demo, holder, mapper, bystander)
  await heal(demo, bystander)
  for (const client of [holder, bystander]) await client.end()
  await loseMetadata(demo)
  await repair(demo)
  await unmount(demo)
  demo.out.end()
}

/** Whatever state we are in: no process, no mount and no file stays behind. */
function clean({ directory, stop }: Demo): void {
  for (const end of stop) end()
  for (const mount of mountsBelow(directory)) {
    abortConnection(mount)
    detach(mount.mountpoint)
  }
  rmSync(directory, { recursive: true, force: true })
}

async function mount({ out, region, mountpoint, stop }: Demo): Promise<void> {
  const outcome = await out.program('holdfast', ['mount', region, mountpoint])
  out.check('it mounts', outcome.status === 0, outcome.stderr)
  const { holder, state } = await runJson<Status>('holdfast', ['status', mountpoint])
  out.check('the daemon answers: mounted', state === 'mounted' && holder !== null)
  const { pid } = holder!
  stop.push(() => {
    try {
      process.kill(pid, 'SIGKILL')
    } catch {}
  })
}

async function formatAndMount(demo: Demo): Promise<void> {
  const { out, region } = demo
  out.step('A region of memory (a file stands in for it) becomes a filesystem')
  const made = await out.program('mkfs.holdfast', ['--size', '1G', '-L', 'tour', region])
  out.check('it is formatted', made.status === 0)
  await mount(demo)
}

async function copyTree(demo: Demo, source: string): Promise<void> {
  const { out } = demo
  out.step('Copy a real tree in')
  const sums = join(demo.directory, 'sums')
  const summed = await out.shell(
    `cd ${source} && find . -type f -print0 | xargs -0 sha256sum > ${sums}`,
  )
  out.check('its checksums are taken from the original', summed.status === 0)
  const copied = await out.shell(`cp -a ${source}/. mnt/tree && sync mnt/tree && du -sh mnt/tree`)
  out.check('it is copied', copied.status === 0, copied.stderr)
  await verify(demo)
}

/** Every file of the tree, read through the mount, has the checksum of the original. */
async function verify({ out }: Demo): Promise<void> {
  const checked = await out.shell('cd mnt/tree && sha256sum --check --quiet ../../sums')
  const count = (await out.behindTheScenes('wc -l < sums')).stdout.trim()
  out.check(`all ${count} files have the checksum of the original`, checked.status === 0)
}

async function openFiles(demo: Demo): Promise<{
  holder: FileHolder
  mapper: FileHolder
  bystander: Bystander
}> {
  const { out, mountpoint, stop } = demo
  out.step('Programs use files: one holds `victim` open, one has it mmapped, one works on `other`')
  const made = await out.shell(
    'head -c 4M /dev/urandom | tee mnt/victim > kept && head -c 4M /dev/urandom > mnt/other',
  )
  out.check('the files are there', made.status === 0, made.stderr)
  const victim = join(mountpoint, 'victim')
  const holder = new FileHolder(victim, HIT)
  const mapper = new FileHolder(victim, HIT)
  const bystander = new Bystander(join(mountpoint, 'other'))
  for (const client of [holder, mapper, bystander]) {
    stop.push(() => client.stop())
    const ready = await client.ready
    if (!ready?.ok) throw new DemoFailure(`a program could not open its file: ${ready?.error}`)
  }
  const read = await holder.read()
  out.check('read() through the open handle works', read?.ok === true, read)
  const peek = await mapper.peek()
  out.check('the mapping shows the same bytes', peek?.value === read?.value, peek)
  out.check('the bystander is at work', (await bystander.report()).errors === 0)
  return { holder, mapper, bystander }
}

async function loseFileMemory(
  demo: Demo,
  holder: FileHolder,
  mapper: FileHolder,
  bystander: Bystander,
): Promise<void> {
  const { out, mountpoint } = demo
  const victim = join(mountpoint, 'victim')
  const before = await bystander.report()
  out.step('A page of memory under `victim` fails')
  const args = ['inject', mountpoint, '--file', victim, '--offset', String(HIT)]
  const outcome = await out.program('holdfast', [...args, '--json'])
  out.check('the failure is reported', outcome.status === 0)
  const result = JSON.parse(outcome.stdout) as InjectResult
  out.check('it hit file data, not metadata', result.kind === 'data' && !result.shutdown, result)
  const read = await holder.read()
  out.check('read() on the handle that was open: EIO', read?.error === 'EIO', read)
  const start = await holder.readStart()
  out.check('also where the memory is healthy: the handle is dead', start?.error === 'EIO', start)
  const write = await holder.write()
  out.check('write() on it: EIO', write?.error === 'EIO', write)
  const peek = await mapper.peek()
  const end = peek === undefined ? await mapper.ended : peek
  out.check('the process that touches its mapping gets SIGBUS', end === 'SIGBUS', end)
  const healthy = await out.shell('cmp -n 1M mnt/victim kept')
  out.check('who opens it now reads the healthy part', healthy.status === 0, healthy.stderr)
  const lost = await out.shell('dd if=mnt/victim of=/dev/null bs=4K skip=256 count=1')
  out.check('and gets EIO for the lost page', /Input\/output error/.test(lost.stderr), lost.stderr)
  const after = await bystander.report()
  const { rounds, errors, wrong } = after
  out.check('the bystander never noticed', rounds > before.rounds && errors + wrong === 0, after)
  await verify(demo)
}

async function heal(demo: Demo, bystander: Bystander): Promise<void> {
  const { out, mountpoint } = demo
  out.step('Heal the file: overwrite what was lost')
  const healed = await out.shell(
    'dd if=kept of=mnt/victim bs=4K skip=256 seek=256 count=1 conv=notrunc status=none',
  )
  out.check('the write lands on healthy blocks', healed.status === 0, healed.stderr)
  const same = await out.shell('cmp mnt/victim kept')
  out.check('the whole file is as it was', same.status === 0, same.stderr)
  const poisoned = (await runJson<Status>('holdfast', ['status', mountpoint])).blocks.poisoned
  out.check('the bad block stays in quarantine', poisoned === 1, poisoned)
  const cleared = await out.program('holdfast', ['clear-poison', mountpoint, '--all'])
  out.check('until the memory is replaced', cleared.status === 0)
  const left = (await runJson<Status>('holdfast', ['status', mountpoint])).blocks.poisoned
  out.check('nothing is poisoned now', left === 0, left)
  const { rounds, errors, wrong } = await bystander.report()
  out.check('the bystander still works without one error', rounds > 0 && errors + wrong === 0)
}

async function loseMetadata(demo: Demo): Promise<void> {
  const { out, mountpoint, region } = demo
  out.step('A page of the journal fails: metadata, so the filesystem shuts down')
  const injected = await out.program('holdfast', ['inject', mountpoint, '--metadata', 'journal'])
  out.check('the failure is reported', injected.status === 0)
  const listed = await out.shell('ls mnt/tree')
  out.check('every operation is EIO', /Input\/output error/.test(listed.stderr), listed.stderr)
  const status = await runJson<Status>('holdfast', ['status', mountpoint])
  out.check('status says so, and why', status.state === 'shutdown' && !!status.shutdown, status)
  out.note(`shutdown: ${status.shutdown?.reason} (region offset ${status.shutdown?.offset})`)
  const unmounted = await out.program('holdfast', ['umount', mountpoint])
  out.check('it unmounts', unmounted.status === 0)
  const again = await out.program('holdfast', ['mount', region, mountpoint])
  out.check('and refuses to mount as it is', again.status !== 0)
}

async function repair(demo: Demo): Promise<void> {
  const { out, region } = demo
  out.step('Repair, mount again, and find everything')
  const repaired = await out.program('fsck.holdfast', ['--repair', region])
  out.check('fsck has repaired it (exit code 1)', repaired.status === 1, repaired.status)
  const checked = await out.program('fsck.holdfast', ['-n', region])
  out.check('and finds nothing more (exit code 0)', checked.status === 0, checked.status)
  await mount(demo)
  await verify(demo)
  const same = await out.shell('cmp mnt/victim kept')
  out.check('`victim` is what it was, too', same.status === 0, same.stderr)
}

async function unmount({ out, region, mountpoint }: Demo): Promise<void> {
  out.step('Done')
  const outcome = await out.program('holdfast', ['umount', mountpoint])
  out.check('it unmounts', outcome.status === 0, outcome.stderr)
  const { state } = await runJson<Status>('holdfast', ['status', region])
  out.check('the region is clean and free', state === 'unmounted', state)
}
