/** The programs as a person meets them: options, misuse, mounting, unmounting, and what is left. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import {
  closeSync,
  cpSync,
  existsSync,
  mkdirSync,
  openSync,
  readFileSync,
  statSync,
  symlinkSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import fc from 'fast-check'
import t from 'tap'
import { nameUsers } from '../src/cli/busy.ts'
import { CliError, sentenceOf } from '../src/cli/errors.ts'
import { buildProgram, impliesMount } from '../src/cli/main.ts'
import { defaultOptions, formatOptions, parseOptions, splitList } from '../src/cli/options.ts'
import { alignText } from '../src/cli/output.ts'
import { parseReadiness } from '../src/cli/ready.ts'
import { formatSize, parseSize } from '../src/cli/sizes.ts'
import { isHoldfast, mountAt, readMounts } from '../src/control/mountinfo.ts'
import { whoHolds } from '../src/dax/claim.ts'
import type { FileMap, InjectResult, RmapRow, Status } from '../src/fs/administration.ts'
import { commandOf } from '../tools/quickstart/programs.ts'
import {
  cannotMount,
  lacks,
  mountRegion,
  notRoot,
  type Outcome,
  runClient,
  runJson,
  runProgram,
  scratch,
  sleep,
} from './support/mounts.ts'

const skipMounts = cannotMount()

/** Waits for what must become true soon. */
async function eventually(what: () => boolean, milliseconds = 10_000): Promise<boolean> {
  for (const end = performance.now() + milliseconds; performance.now() < end; await sleep(20)) {
    if (what()) return true
  }
  return what()
}

t.test('sizes', async (t) => {
  const good = {
    '0': 0,
    '4096': 4096,
    '4k': 4096,
    '1.5G': 1.5 * 2 ** 30,
    '2MiB': 2 ** 21,
    '1T': 2 ** 40,
  }
  for (const [text, bytes] of Object.entries(good)) t.equal(parseSize(text), bytes, text)
  for (const text of ['', 'x', '-1', '1X', '1.2.3', '0x10', '1e3', '0.3', '9999P', '4096 bytes']) {
    t.throws(() => parseSize(text, '--size'), { exitCode: 2, message: /--size .* is not a size/ })
  }
  t.same([0, 1023, 1024, 3 * 2 ** 30].map(formatSize), ['0 B', '1023 B', '1.0 KiB', '3.0 GiB'])
  fc.assert(
    fc.property(fc.nat(), (n) => parseSize(`${n}`) === n && parseSize(`${n}K`) === n * 1024),
  )
})

t.test('mount options', async (t) => {
  t.same(parseOptions(''), defaultOptions())
  const options = parseOptions(
    'ro,allow_other,transport=fuse-native,cache=none,writeback,commit=0.5,index_dir=/tmp/a\\,b,' +
      'on_failure=sigbus,log=rel,nodev,nosuid,suid,noatime,debug',
  )
  t.match(options, {
    readOnly: true,
    allowOther: true,
    transport: 'fuse-native',
    cache: 'none',
    writeback: true,
    commitSeconds: 0.5,
    indexDir: '/tmp/a,b',
    onFailure: 'sigbus',
    log: join(process.cwd(), 'rel'),
    debug: true,
  })
  t.same([...options.flags], ['nodev', 'noatime'], 'the last of two opposites wins')
  t.equal(parseOptions('ro,rw').readOnly, false)
  t.same(parseOptions(formatOptions(options)), options, 'told to a daemon and understood again')
  const kept =
    'defaults,noauto,user,users,nofail,_netdev,x-systemd.automount,comment=a,user=me,dev,relatime'
  t.same(parseOptions(kept), defaultOptions(), 'what mount(8) keeps for itself')
  t.same(splitList('a,,b\\\\,c\\'), ['a', 'b\\', 'c\\'])
})

t.test('mount options that are wrong', async (t) => {
  const wrong: Record<string, RegExp> = {
    bogus: /unknown mount option 'bogus'/,
    'bogus=1': /unknown mount option 'bogus'/,
    __proto__: /unknown mount option/,
    'transport=nfs': /transport is one of kernel, fuse-native, not 'nfs'/,
    transport: /transport needs a value/,
    'writeback=1': /writeback takes no value/,
    'commit=': /commit takes seconds/,
    'commit=-1': /commit takes seconds/,
    'log=': /log needs a path/,
    remount: /cannot be remounted/,
    allow_root: /use allow_other/,
  }
  for (const [list, message] of Object.entries(wrong)) {
    t.throws(() => parseOptions(list), { exitCode: 1, message }, list)
  }
  t.same(parseOptions('bogus', defaultOptions(), true), defaultOptions(), 'mount(8) -s')
})

t.test('small parts', async (t) => {
  const rows = [
    ['a', '10'],
    ['bbb', '9'],
  ]
  const columns = [{ head: 'NAME' }, { head: 'N', right: true }]
  t.equal(alignText(columns, rows), 'NAME   N\na     10\nbbb    9')
  const many = Array.from({ length: 300_000 }, (_, at) => [`${at}`, ''])
  t.equal(alignText(columns, many).split('\n').length, 300_001)
  t.equal(sentenceOf(new CliError('two\n  lines')), 'two lines')
  t.equal(parseReadiness(''), undefined)
  t.same(parseReadiness('{"ready":true,"pid":7}\n'), { ready: true, pid: 7 })
  t.same(parseReadiness('{"error":"no"}'), { ready: false, error: 'no', code: 32 })
  const mount = { ...readMounts()[0]!, device: '999:999', mountpoint: process.cwd() }
  const child = spawn('sleep', ['60'])
  t.teardown(() => child.kill('SIGKILL'))
  t.match(await nameUsers(mount, 1000), new RegExp(`\\(pid ${child.pid}, working directory `))
  t.equal(await nameUsers({ ...mount, mountpoint: '/nowhere' }), undefined)
})

t.test('when a command is left out', async (t) => {
  const mounts = [
    ['a', 'b'],
    ['/dev/dax0.0', '/mnt', '-o', 'ro'],
    ['-o', 'status', 'a', 'b'],
    ['-f', './status', 'b'],
    ['/only/one'],
  ]
  for (const args of mounts) t.ok(impliesMount(args), args.join(' '))
  const others = [
    [],
    ['status'],
    ['status', '/mnt'],
    ['help', 'mount'],
    ['-h'],
    ['statsu'],
    ['-o', 'x'],
  ]
  for (const args of others) t.notOk(impliesMount(args), args.join(' '))
})

t.test('every command explains itself and knows --json where it reads', async (t) => {
  for (const command of buildProgram().commands) {
    t.ok(command.summary() && command.description(), command.name())
    const reads = ['status', 'getmap', 'rmap', 'inject', 'watch', 'dump', 'checkpoint']
    if (!reads.includes(command.name())) continue
    t.ok(
      command.options.some((option) => option.long === '--json'),
      `${command.name()} --json`,
    )
  }
})

t.test('misuse: one line that says what to do, and the exit code', async (t) => {
  const region = join(scratch(), 'region')
  const directory = scratch()
  const link = join(directory, 'mount.link')
  symlinkSync(commandOf('mount.holdfast', [])[1]!, link)
  const cases: [readonly string[], number, RegExp][] = [
    [['frobnicate'], 2, /unknown command 'frobnicate' \(see holdfast --help\)/],
    [['statsu'], 2, /Did you mean status/],
    [['status', '--bogus'], 2, /unknown option '--bogus' \(see holdfast status --help\)/],
    [['status', '/nonexistent'], 1, /\/nonexistent does not exist/],
    [['status', '/proc'], 1, /neither a holdfast mount nor a region/],
    [['mount'], 1, /missing required argument 'region'/],
    [['mount', '-o', 'bogus', region, directory], 1, /unknown mount option 'bogus'/],
    [['mount', region, directory], 32, /no region .*mkfs.holdfast --size 1G/],
    [['mount', link, join(directory, 'no')], 32, /mountpoint .* does not exist: mkdir -p/],
    [['mount', link, link], 32, /is not a directory/],
    [['mount', '-o', `log=${directory}/log`, link, directory], 1, /would lie on the mount itself/],
    [[region, directory], 32, /no region/],
    [['umount', directory], 1, /neither a holdfast mount/],
    [['getmap', '/etc/passwd'], 1, /\/etc\/passwd is not on a holdfast mount/],
    [['getmap', region], 1, /no such file or directory/],
    [['inject', directory], 2, /say what to hit/],
    [['inject', directory, '--free', '--offset', '0'], 2, /say what to hit/],
    [['inject', directory, '--free', '--length', 'x'], 2, /Give bytes/],
    [['inject', directory, '--metadata', 'root'], 2, /Allowed choices are superblock/],
    [['clear-poison', directory], 2, /say what to clear/],
    [['clear-poison', directory, '--all', '--offset', '1'], 2, /say what to clear/],
    [['freeze', region], 1, /does not exist/],
  ]
  const results = await Promise.all(cases.map(([args]) => runProgram('holdfast', args)))
  cases.forEach(([args, status, message], i) => {
    const outcome = results[i] as Outcome
    const name = args.join(' ')
    t.equal(outcome.status, status, `exit code of ${name}`)
    t.match(outcome.stderr, message, name)
    t.match(outcome.stderr, /^holdfast: [^\n]*\n$/, `one line: ${name}`)
    t.equal(outcome.stdout, '', `nothing on stdout: ${name}`)
  })
  const helper = await runClient([process.execPath, link, '-o', 'bogus', region, directory])
  t.match(helper, { status: 1, stderr: /^mount.holdfast: unknown mount option/ }, 'through a link')
  const sloppy = await runProgram('mount.holdfast', ['-sf', '-o', 'bogus', link, directory])
  t.match(sloppy, { status: 0, stderr: '' }, '-s ignores it, -f does not mount')
  t.match(await runProgram('mount.holdfast', []), { status: 1 })
})

t.test('help and version', async (t) => {
  const [help, version, mount, none] = await Promise.all([
    runProgram('holdfast', ['--help']),
    runProgram('holdfast', ['--version']),
    runProgram('holdfast', ['help', 'mount']),
    runProgram('holdfast', []),
  ])
  t.match(help, { status: 0, stdout: /Examples:[\s\S]*Exit codes:/, stderr: '' })
  const { version: expected } = JSON.parse(readFileSync('package.json', 'utf8'))
  t.match(version, { status: 0, stdout: `${expected}\n` })
  t.match(mount, { status: 0, stdout: /transport=fuse-native[\s\S]*32 {2}the mount failed/ })
  t.match(none, { status: 2 })
})

t.test('a checkout that is not set up says so', async (t) => {
  const root = scratch()
  cpSync('src/cli/bin', join(root, 'src/cli/bin'), { recursive: true })
  const launcher = join(root, 'src/cli/bin/holdfast.mjs')
  const start = () => runClient([process.execPath, launcher])
  t.match(await start(), {
    status: 1,
    stderr: /^holdfast: npm packages are missing: run [^\n]*\n$/,
  })
  for (const name of ['commander', 'better-sqlite3', 'tsx']) {
    mkdirSync(join(root, 'node_modules', name), { recursive: true })
  }
  t.match(await start(), { status: 1, stderr: /^holdfast: the native addon is not built: run / })
})

t.test('programs are compiled once for every state of their sources', async (t) => {
  const { compiled } = (await import('../src/cli/bin/compile.mjs' as string)) as {
    compiled(root: string, entry: string): Promise<string>
  }
  const root = scratch()
  writeFileSync(join(root, 'part.ts'), 'export const part: number = 1\n')
  const text = `export * from ${'"./part.ts"'}\nexport const here: string = import.meta.url\n`
  writeFileSync(join(root, 'entry.ts'), text)
  // What was written this instant may be written again in the same one.
  await sleep(20)
  const first = await compiled(root, 'entry.ts')
  const module = (await import(first)) as { part: number; here: string }
  t.equal(module.part, 1)
  t.equal(module.here, pathToFileURL(join(root, 'entry.ts')).href, 'it stands where its source is')
  const before = statSync(first).mtimeMs
  t.equal(await compiled(root, 'entry.ts'), first)
  t.equal(statSync(first).mtimeMs, before)
  writeFileSync(join(root, 'part.ts'), 'export const part: number = 2\n')
  const second = await compiled(root, 'entry.ts')
  t.not(second, first)
  t.equal(((await import(second)) as { part: number }).part, 2)
  writeFileSync(join(root, 'part.ts'), 'export const part: = 2\n')
  await t.rejects(compiled(root, 'entry.ts'), /cannot compile part.ts:1: /)
})

t.test('a region that cannot be mounted', { skip: skipMounts }, async (t) => {
  const directory = scratch()
  const region = join(directory, 'region')
  const mountpoint = join(directory, 'mnt')
  mkdirSync(mountpoint)
  writeFileSync(region, Buffer.alloc(32 << 20, 7))
  for (const args of [[], ['-f']]) {
    const outcome = await runProgram('holdfast', ['mount', ...args, region, mountpoint])
    t.match(outcome, { status: 32, stderr: /^holdfast: [^\n]*superblock[^\n]*\n$/, stdout: '' })
  }
  t.equal(mountAt(mountpoint), undefined, 'nothing is left behind')
  t.equal(whoHolds(region), undefined)
})

t.test('a damaged region that is not mounted: what, where, and what helps', async (t) => {
  const directory = scratch()
  const [empty, damaged] = [join(directory, 'empty'), join(directory, 'damaged')]
  writeFileSync(empty, Buffer.alloc(32 << 20))
  t.match(await runProgram('mkfs.holdfast', ['--size', '32M', damaged]), { status: 0 })
  const images = [6 << 20, 8 << 20]
  const fd = openSync(damaged, 'r+')
  for (const image of images) writeSync(fd, Buffer.alloc(4096, 7), 0, 4096, image)
  closeSync(fd)
  const cases: [string, string][] = [
    [empty, 'superblock at region offset 8: no .*; mkfs.holdfast makes a filesystem'],
    [
      damaged,
      `checkpoint slot 0 at region offset ${images[0]}: .*; run fsck.holdfast --repair ${damaged}`,
    ],
  ]
  for (const [region, sentence] of cases) {
    const looks = [['status'], ['rmap'], ['dump', '--index', join(directory, 'index')]]
    const outcomes = await Promise.all(
      looks.map((words) => runProgram('holdfast', [...words, region])),
    )
    for (const { status, stderr } of outcomes) {
      t.equal(status, 1)
      t.match(stderr, new RegExp(`^holdfast: (there is no index to be had: )?${sentence}\\n$`))
    }
  }
})

t.test('mount, look, unmount', { skip: skipMounts }, async (t) => {
  const mounted = await mountRegion({ size: '64M', mkfs: ['-L', 'tour'] })
  const { region, mountpoint } = mounted
  await mounted.client('echo hello > a; head -c 1M /dev/urandom > b; mkdir d')
  const status = await mounted.status()
  t.match(status, {
    label: 'tour',
    region,
    regionSize: 64 << 20,
    blockSize: 4096,
    state: 'mounted',
    mountpoint,
    transport: 'kernel',
    readOnly: false,
    frozen: false,
    holder: { pid: mounted.pid },
    inodes: 4,
    failures: [],
  })
  const keys = ['uuid', 'label', 'region', 'regionSize', 'blockSize', 'state', 'mountpoint']
  t.same(Object.keys(status).slice(0, 7), keys)
  for (const target of [region, join(mountpoint, 'd')]) {
    t.match(await runJson<Status>('holdfast', ['status', target]), {
      uuid: status.uuid,
      mountpoint,
    })
  }
  const all = await runJson<Status[]>('holdfast', ['status'])
  t.ok(
    all.some((one) => one.uuid === status.uuid),
    'in the list of all mounts',
  )
  t.match(await runProgram('holdfast', ['status', mountpoint]), { status: 0, stdout: /'tour'/ })

  const map = await runJson<FileMap>('holdfast', ['getmap', join(mountpoint, 'b')])
  t.equal(map.size, 1 << 20)
  const { regionOffset, length } = map.extents[0]!
  const range = ['--offset', `${regionOffset}`, '--length', `${length}`]
  const rows = await runJson<RmapRow[]>('holdfast', ['rmap', mountpoint, ...range])
  t.match(rows, [{ owner: map.inode, path: '/b', fileOffset: 0 }])

  const reason = (outcome: Outcome) => outcome.stdout + outcome.stderr
  for (const [args, said] of [
    [['freeze', mountpoint], /is frozen/],
    [['thaw', mountpoint], /is thawed/],
    [['checkpoint', mountpoint], /checkpoint \d+/],
    [['dump', region], /primary superblock/],
  ] as const) {
    const outcome = await runProgram('holdfast', args)
    t.match(reason(outcome), said)
    t.equal(outcome.status, 0, args.join(' '))
  }
  await mounted.unmount()
  t.equal(mountAt(mountpoint), undefined)
  t.equal(whoHolds(region), undefined)
  const offline = await runJson<Status>('holdfast', ['status', region])
  t.match(offline, { state: 'unmounted', mountpoint: null, holder: null, uuid: status.uuid })
  t.same(await runJson<RmapRow[]>('holdfast', ['rmap', region, ...range]), rows, 'rmap offline')
  const gone = await runProgram('holdfast', ['freeze', region])
  t.match(gone, { status: 1, stderr: /is not mounted: holdfast mount / })
})

t.test('failures from the command line', { skip: skipMounts }, async (t) => {
  const mounted = await mountRegion()
  const { mountpoint } = mounted
  await mounted.client('head -c 1M /dev/urandom > a')
  const watch = spawn(commandOf('holdfast', [])[0]!, [
    ...commandOf('holdfast', ['watch', mountpoint, '--json']).slice(1),
  ])
  t.teardown(() => watch.kill('SIGKILL'))
  let events = ''
  watch.stdout.on('data', (text) => {
    events += text
  })
  // It says nothing by itself, so that is how to know that it listens.
  for (let tries = 0; events === '' && tries < 20; tries++) {
    await runProgram('holdfast', ['checkpoint', mountpoint])
    await sleep(200)
  }
  const file = join(mountpoint, 'a')
  const hit = await runJson<InjectResult>('holdfast', ['inject', mountpoint, '--file', file])
  t.match(hit, { kind: 'data', length: 4096, handlesKilled: 0, shutdown: false })
  t.match(await runProgram('holdfast', ['inject', mountpoint, '--free']), { stdout: /quarantined/ })
  const status = await mounted.status()
  t.equal(status.blocks.poisoned, 2)
  t.match(status.failures, [{ kind: 'data', inodes: hit.inodes }, { kind: 'free' }])
  const failures = () => events.split('\n').filter((line) => line.includes('"failure"'))
  t.ok(await eventually(() => failures().length >= 2), 'watch says so')
  t.match(JSON.parse(failures()[0] ?? '{}'), {
    event: 'failure',
    offset: hit.offset,
  })
  const cleared = await runProgram('holdfast', ['clear-poison', mountpoint, '--all'])
  t.match(cleared, { status: 0, stdout: /cleared/ })
  const other = await runProgram('holdfast', ['inject', mountpoint, '--file', '/etc/passwd'])
  t.match(other, { status: 1, stderr: /not on a holdfast mount/ })
  await runProgram('holdfast', ['shutdown', mountpoint, '--reason', 'drill'])
  t.match(await mounted.status(), { state: 'shutdown', shutdown: { reason: /drill/ } })
  const ended = once(watch, 'exit')
  const unmounted = await runProgram('holdfast', ['umount', mountpoint])
  t.match(unmounted, { status: 0, stdout: /fsck.holdfast --repair/ })
  t.same(await ended, [0, null], 'watch ends with the mount')
  const again = await runProgram('holdfast', ['mount', mounted.region, mountpoint])
  t.match(again, { status: 32, stderr: /fsck.holdfast/ })
})

/** Programs that use a file and nothing else of the mount they are started in. */
const USERS = {
  'open file': `
import os, time
fd = os.open('used', os.O_RDWR | os.O_CREAT)
os.chdir('/')
print('there', flush=True)
time.sleep(60)`,
  'mapped file': `
import mmap, os, time
fd = os.open('used', os.O_RDWR | os.O_CREAT)
os.ftruncate(fd, 4096)
used = mmap.mmap(fd, 4096)
os.closerange(3, 20)
os.chdir('/')
print('there', flush=True)
time.sleep(60)`,
}

t.test('a region and a mountpoint that are in use', { skip: skipMounts }, async (t) => {
  const mounted = await mountRegion()
  const { region, mountpoint } = mounted
  const elsewhere = scratch()
  const second = await runProgram('holdfast', ['mount', region, elsewhere])
  t.equal(second.status, 32)
  t.match(second.stderr, new RegExp(`mounted on ${mountpoint} by pid ${mounted.pid} `))
  const onTop = await runProgram('holdfast', ['mount', join(elsewhere, '..'), mountpoint])
  t.match(onTop, { status: 32, stderr: /is mounted there; unmount it first/ })
  t.match(await runProgram('mkfs.holdfast', ['--force', region]), { status: 1, stderr: /in use/ })

  const user = spawn('sleep', ['60'], { cwd: mountpoint })
  t.teardown(() => user.kill('SIGKILL'))
  const busy = await runProgram('holdfast', ['umount', mountpoint])
  t.equal(busy.status, 1)
  t.match(busy.stderr, new RegExp(`busy: used by sleep \\(pid ${user.pid}, working directory`))
  for (const [use, program] of Object.entries(USERS)) {
    const other = spawn('python3', ['-c', program], { cwd: mountpoint })
    t.teardown(() => other.kill('SIGKILL'))
    await once(other.stdout, 'data')
    const named = new RegExp(`python3 \\(pid ${other.pid}, ${use} ${mountpoint}/used\\)`)
    t.match(await nameUsers(mountAt(mountpoint)!, 1000), named)
    other.kill('SIGKILL')
    await once(other, 'exit')
  }
  const lazy = await runProgram('holdfast', ['umount', '-l', mountpoint])
  t.match(lazy, { status: 0, stdout: /its daemon goes on until the last user has let go/ })
  t.equal(mountAt(mountpoint), undefined)
  // The holder is leaving: a mount waits for it.
  const waiting = mounted.mountAgain()
  await sleep(500)
  user.kill('SIGKILL')
  const again = await waiting
  t.not(again.pid, mounted.pid)
  const byRegion = await runProgram('holdfast', ['umount', region])
  t.match(byRegion, { status: 0, stdout: '', stderr: '' }, 'umount takes the region as well')
})

t.test('the daemon dies', { skip: skipMounts }, async (t) => {
  const mounted = await mountRegion()
  await mounted.client('echo kept > a; sync a')
  await mounted.kill()
  t.ok(mountAt(mounted.mountpoint), 'its mount is still there')
  t.equal(whoHolds(mounted.region), undefined, 'its claim is not')
  const status = await runProgram('holdfast', ['status', mounted.mountpoint])
  t.match(status, { status: 0, stderr: /is gone/ })
  const freeze = await runProgram('holdfast', ['freeze', mounted.mountpoint])
  t.match(freeze, { status: 1, stderr: /is gone: mount it again/ })
  const args = ['mount', '-v', mounted.region, mounted.mountpoint]
  const again = await runProgram('holdfast', args)
  t.match(again, { status: 0, stderr: /took away the stale mount/, stdout: /^mounted / })
  t.equal(readMounts().filter((m) => m.mountpoint === mounted.mountpoint).length, 1)
  t.match(await mounted.client('cat a'), { stdout: 'kept\n' })
  process.kill((await mounted.status()).holder!.pid, 'SIGKILL')
  t.ok(await eventually(() => whoHolds(mounted.region) === undefined))
  const other = await mountRegion({ region: mounted.region })
  t.equal(mountAt(mounted.mountpoint), undefined, 'a mount elsewhere takes the dead one away, too')
  await other.kill()
  t.match(await runProgram('holdfast', ['umount', other.mountpoint]), { status: 0, stderr: '' })
  t.equal(mountAt(other.mountpoint), undefined)
})

t.test('in the foreground', { skip: skipMounts }, async (t) => {
  const made = await mountRegion()
  await made.unmount()
  const { region, mountpoint } = made
  const [node, ...args] = commandOf('holdfast', ['mount', '-f', region, mountpoint]) as [string]
  const daemon = spawn(node, args, { stdio: ['ignore', 'ignore', 'pipe'] })
  t.teardown(() => daemon.kill('SIGKILL'))
  let said = ''
  daemon.stderr.on('data', (text) => {
    said += text
  })
  t.ok(await eventually(() => said.includes('Ctrl-C unmounts')), 'says that it is there')
  const user = spawn('sleep', ['60'], { cwd: mountpoint })
  t.teardown(() => user.kill('SIGKILL'))
  await once(user, 'spawn')
  daemon.kill('SIGINT')
  t.ok(await eventually(() => said.includes(`busy: used by sleep (pid ${user.pid}`)), said)
  t.ok(mountAt(mountpoint), 'still mounted')
  const ended = once(daemon, 'exit')
  daemon.kill('SIGINT')
  t.ok(await eventually(() => mountAt(mountpoint) === undefined), 'a second one detaches')
  user.kill('SIGKILL')
  t.same(await ended, [0, null])
  t.match(await runJson<Status>('holdfast', ['status', region]), { state: 'unmounted' })
})

t.test('plain umount and kill', { skip: skipMounts }, async (t) => {
  const mounted = await mountRegion()
  const free = () => whoHolds(mounted.region) === undefined
  const command = process.getuid?.() === 0 ? 'umount' : 'fusermount3 -u'
  t.match(await runClient(`${command} ${mounted.mountpoint}`), { status: 0 })
  t.ok(await eventually(free), 'released')
  const again = await mounted.mountAgain()
  process.kill(again.pid, 'SIGTERM')
  t.ok(await eventually(free), 'SIGTERM unmounts')
  t.equal(mountAt(mounted.mountpoint), undefined)
  t.match(await runJson<Status>('holdfast', ['status', mounted.region]), { state: 'unmounted' })
})

t.test('read-only, and what does not fit on the way', { skip: skipMounts }, async (t) => {
  const mounted = await mountRegion()
  await mounted.client('echo a > a')
  await mounted.unmount()
  const readOnly = await mounted.mountAgain({ options: ['ro', 'nodev', 'nosuid', 'noexec'] })
  t.match(await readOnly.status(), { readOnly: true })
  const { options } = mountAt(mounted.mountpoint)!
  for (const option of ['ro', 'nodev', 'nosuid', 'noexec']) t.ok(options.includes(option), option)
  t.match(await readOnly.client('cat a; echo b > b'), { stdout: 'a\n', stderr: /Read-only/ })
  await readOnly.unmount()
})

t.test('helpers of mount(8)', { skip: skipMounts || notRoot() || lacks('mount') }, async (t) => {
  const made = await mountRegion()
  await made.unmount()
  const { region, mountpoint } = made
  const options = `defaults,nofail,x-systemd.automount,log=${made.log}`
  const helped = await runProgram('mount.holdfast', [region, mountpoint, '-v', '-o', options])
  t.match(helped, { status: 0, stdout: /^mounted / })
  t.match(await made.client('stat -c %i .'), { stdout: '1\n' })
  t.ok(isHoldfast(mountAt(mountpoint)!))
  await made.unmount()
  // As mount(8) starts its helpers: without a PATH.
  const bare = await runClient(['env', '-i', commandOf('mount.holdfast', [])[1]!, '--help'])
  t.match(bare, { status: 0, stdout: /mount\(8\)/ })
  if (!existsSync('/sbin/mount.fuse3')) return
  const bin = scratch()
  symlinkSync(commandOf('holdfast', [])[1]!, join(bin, 'holdfast'))
  const env = { PATH: `${bin}:${process.env.PATH}` }
  const args = [region, mountpoint, '-t', 'fuse.holdfast', '-o', `nofail,dev,log=${made.log}`]
  t.match(await runClient(['/sbin/mount.fuse3', ...args], { env }), { status: 0, stderr: '' })
  await made.unmount()
})

t.test('install', { skip: notRoot() }, async (t) => {
  const usual = await runProgram('holdfast', ['install'], { uid: 65534, gid: 65534 })
  t.match(usual, { status: 1, stderr: /only root/ })
})
