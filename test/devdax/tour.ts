/** The guest's part of `node tools/mce-tour.mjs`: says what it does, and what came of it. */
import { writeFileSync } from 'node:fs'
import { release } from 'node:os'
import type { FailureReport, Status } from '../../src/fs/administration.ts'
import type { Row, TourEvent } from '../../tools/mce-tour/events.ts'
import { run, runProgram } from '../../tools/quickstart/programs.ts'
import type { MountedRegion, PythonClient } from '../support/mounts.ts'
import {
  align,
  corruptPage,
  DEVICE,
  machineCheck,
  machineCheckAtTouch,
  physical,
  size,
} from './device.ts'
import { dismount, freshMount } from './mounted.ts'
import { holding, MIB, makeFile, told } from './victims.ts'

const PAGE = 4096
/** In each file, of the page that fails. */
const HIT = MIB
const NAMES = ['scrubbed', 'injected', 'consumed', 'bystander'] as const

type Name = (typeof NAMES)[number]

interface Tour {
  mounted: MountedRegion
  readonly places: Map<Name, number>
  readonly clients: Map<Name, PythonClient>
  /** Failures told so far. */
  failures: number
}

function tell(event: TourEvent): void {
  process.stdout.write(`${JSON.stringify(event)}\n`)
}

const step = (text: string) => tell({ type: 'step', text })
const note = (text: string) => tell({ type: 'note', text })

function check(text: string, holds: boolean, found: unknown): void {
  tell({
    type: 'check',
    text,
    holds,
    found: typeof found === 'string' ? found : JSON.stringify(found),
  })
}

/** What a program sees through the handle that it had open, and through its mapping. */
async function handleOf(client: PythonClient): Promise<string> {
  const read = await client.evaluate('len(os.pread(fd, 100, 0))')
  return read === undefined ? 'it died' : (read.error ?? 'reads on')
}

async function mappingOf(client: PythonClient): Promise<string> {
  const seen = await client.evaluate('m[0] >= 0')
  return seen === undefined ? String(await client.ended) : (seen.error ?? 'is there')
}

interface Mark {
  readonly text: string
  /** Milliseconds of the epoch. */
  readonly time: number
}

/** A line in the kernel's log, which ties its clock to ours. */
function mark(): Mark {
  const text = `holdfast tour ${process.hrtime.bigint()}`
  const time = Date.now()
  writeFileSync('/dev/kmsg', text)
  return { text, time }
}

/** Milliseconds from the kernel's first word after the mark to the report; null without a word. */
async function delay({ text, time }: Mark, report: FailureReport): Promise<number | null> {
  const { stdout } = await run(['dmesg', '--raw'])
  const lines = stdout
    .slice(Math.max(0, stdout.lastIndexOf('\n', stdout.indexOf(text))))
    .split('\n')
  const stampOf = (line = '') => Number(/^<\d+>\[ *(\d+\.\d+)\]/.exec(line)?.[1]) * 1000
  const marked = stampOf(lines.find((line) => line.includes(text)))
  const first = stampOf(lines.find((line) => /Hardware Error|Memory failure/.test(line)))
  const elapsed = Date.parse(report.time) - time - (first - marked)
  return Number.isNaN(elapsed) ? null : Math.max(0, elapsed)
}

/** The failure is raised, told, and looked at from all sides. */
async function fail(
  tour: Tour,
  name: Name,
  failure: string,
  raise: (place: number, client: PythonClient) => Promise<void>,
): Promise<void> {
  const place = tour.places.get(name)!
  const client = tour.clients.get(name)!
  const since = mark()
  await raise(place, client)
  const report = (await told(tour.mounted, ++tour.failures)).at(-1)!
  const handle = await handleOf(client)
  check(`read() through the handle on ${name}: EIO`, handle === 'EIO', handle)
  const mapping = await mappingOf(client)
  check('the program that touches its mapping gets SIGBUS', mapping === 'SIGBUS', mapping)
  const bystander = tour.clients.get('bystander')!
  const others = `${await handleOf(bystander)}, ${await mappingOf(bystander)}`
  check('the bystander never noticed', others === 'reads on, is there', others)
  const { kind, action, handlesKilled, offset, length } = report
  check('exactly one handle was killed', handlesKilled === 1 && kind === 'data', report)
  note(`${length / 1024} KiB are given up, at ${offset} of the device`)
  const milliseconds = await delay(since, report)
  const victim = `${handle}, ${mapping}`
  row({
    failure,
    offset,
    length,
    kind,
    action,
    handlesKilled,
    victim,
    bystander: others,
    milliseconds,
  })
}

function row(found: Row): void {
  tell({ type: 'row', row: found })
}

async function begin(): Promise<Tour> {
  step(`A filesystem on ${DEVICE}`)
  note(`Linux ${release()}; ${size() / MIB} MiB, aligned to ${align() / 1024} KiB`)
  const mounted = await freshMount()
  const status: Status = await mounted.status()
  check(
    'it is made and mounted',
    status.state === 'mounted' && status.region === DEVICE,
    status.state,
  )
  step('Programs hold files open, and have them mapped')
  const tour: Tour = { mounted, places: new Map(), clients: new Map(), failures: 0 }
  for (const name of NAMES) {
    const place = await makeFile(mounted, name, HIT)
    tour.places.set(name, place)
    tour.clients.set(name, await holding(mounted, name))
    const address = `0x${physical(place).toString(16)}`
    note(`${name}: its byte ${HIT} is byte ${place} of the device, physical address ${address}`)
  }
  return tour
}

async function data(tour: Tour): Promise<void> {
  step('The scrubber of the memory finds a bad page under `scrubbed`; nobody has touched it')
  note('machine check, action optional: SIGBUS to holdfast, and an entry in the list of bad blocks')
  await fail(tour, 'scrubbed', 'machine check (AO)', (place) => machineCheck('ao', place))
  step("A page of `injected` is poisoned through the kernel's own injection")
  note('no list names it, so all that one entry of the page table maps is given up')
  await fail(tour, 'injected', 'hwpoison by page frame', async (place) => corruptPage(place))
  step('holdfast itself touches a bad page of `consumed`, while it serves a read')
  note('machine check, action required, at the very load: the read is EIO, and the daemon lives')
  await fail(tour, 'consumed', 'machine check (AR)', async (place, client) => {
    await client.evaluate('os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)')
    const raised = await machineCheckAtTouch(tour.mounted.pid, place)
    const read = await client.evaluate(`len(os.pread(fd, ${PAGE}, ${HIT}))`)
    check('the read that met it: EIO', read?.error === 'EIO', read)
    check('the machine check was raised at that load', raised(), 'it was not')
  })
  step('Heal `scrubbed`: overwrite what was lost')
  const healed = await tour.mounted.client(
    `dd if=/dev/zero of=scrubbed bs=4K seek=${HIT / PAGE} count=1 conv=notrunc status=none &&
     cat scrubbed > /dev/null`,
  )
  check('it can be read from end to end again, on other blocks', healed.status === 0, healed.stderr)
}

async function metadata(tour: Tour): Promise<void> {
  step('A page of the journal goes bad: metadata, so the filesystem shuts down')
  // The first unit is the superblock's, the journal begins with the next one.
  const since = mark()
  const bystander = tour.clients.get('bystander')!
  await machineCheck('ao', 2 * MIB)
  const report = (await told(tour.mounted, ++tour.failures)).at(-1)!
  const { state } = await tour.mounted.status()
  check('it is shut down', state === 'shutdown' && report.action === 'shutdown', { state, report })
  const handle = await handleOf(bystander)
  check('every handle is dead', handle === 'EIO', handle)
  const { kind, action, handlesKilled, offset, length } = report
  const milliseconds = await delay(since, report)
  const seen = { victim: handle, bystander: handle, milliseconds }
  row({ failure: 'machine check (AO)', offset, length, kind, action, handlesKilled, ...seen })
  await dismount(tour.mounted)
  const refused = await runProgram('holdfast', ['mount', DEVICE, tour.mounted.mountpoint])
  check('it unmounts, and is not mounted as it is', refused.status !== 0, refused.stdout)
  note(refused.stderr.trim().split('\n').at(-1) ?? '')
  step('Repair, mount, and find everything')
  const repair = await runProgram('fsck.holdfast', ['--repair', DEVICE])
  check(
    'fsck.holdfast --repair has repaired it',
    repair.status === 1,
    repair.stdout + repair.stderr,
  )
  tour.mounted = await tour.mounted.mountAgain()
  const whole = await tour.mounted.client('md5sum -c /tmp/bystander.md5')
  check('`bystander` has every byte that it had', whole.status === 0, whole.stderr)
  const { blocks } = await tour.mounted.status()
  note(`${blocks.poisoned} blocks stay in quarantine`)
  await dismount(tour.mounted)
}

const tour = await begin()
await data(tour)
await metadata(tour)
tell({ type: 'end' })
process.exit(0)
