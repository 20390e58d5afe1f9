/** The promises of the README over real mounts: claims, crashes, failures, everyday programs. */
import { readdirSync, readFileSync, statSync, truncateSync } from 'node:fs'
import t from 'tap'
import type { InjectResult, Status } from '../src/fs/administration.ts'
import {
  cannotMount,
  type MountedRegion,
  mountRegion,
  PythonClient,
  runJson,
  runProgram,
  sleep,
} from './support/mounts.ts'

const skip = cannotMount()

async function ok(mount: MountedRegion, script: string, timeoutMs = 60_000): Promise<string> {
  const outcome = await mount.client(script, { timeoutMs })
  if (outcome.status !== 0) throw new Error(`${script}: ${outcome.stderr}${outcome.stdout}`)
  return outcome.stdout
}

t.test('a mounted region is refused to everybody else', { skip }, async (t) => {
  const mount = await mountRegion()
  const second = await runProgram('holdfast', ['mount', mount.region, `${mount.mountpoint}2`])
  t.not(second.status, 0)
  const again = await runProgram('mkfs.holdfast', ['--force', mount.region])
  t.equal(again.status, 1)
  t.match(again.stderr, new RegExp(`pid ${mount.pid}`), 'mkfs names the holder')
  const fsck = await runProgram('fsck.holdfast', ['--repair', mount.region])
  t.equal(fsck.status, 8)
  t.match(fsck.stderr, new RegExp(`pid ${mount.pid}`), 'so does fsck')
  await mount.unmount()
})

t.test('kill -9: the claim is free, fsynced files are whole', { skip }, async (t) => {
  const mount = await mountRegion({ size: '128M' })
  await ok(mount, 'head -c 20M /dev/urandom > /tmp/.hf-$$ && cp /tmp/.hf-$$ kept && rm /tmp/.hf-$$')
  await ok(mount, 'sync kept; mkdir d; echo two > d/two; sync d/two d')
  const before = await ok(mount, 'sha256sum kept d/two')
  await mount.kill()
  const next = await mount.mountAgain()
  t.equal(await ok(next, 'sha256sum kept d/two'), before)
  await next.unmount()
  const check = await runProgram('fsck.holdfast', ['-n', '-f', mount.region])
  t.equal(check.status, 0, check.stdout)
})

t.test('failure in one file: its handles die, the rest goes on', { skip }, async (t) => {
  const mount = await mountRegion({ on: 'memory' })
  await ok(mount, 'head -c 1M /dev/urandom > hit; head -c 1M /dev/urandom > other')
  const hit = mount.path('hit')
  const victim = new PythonClient(`
fd = os.open(${JSON.stringify(hit)}, os.O_RDWR)
m = mmap.mmap(fd, 1 << 20)
m[4096]
`)
  await victim.ready
  const bystander = new PythonClient(
    `fd = os.open(${JSON.stringify(mount.path('other'))}, os.O_RDWR)`,
  )
  await bystander.ready
  const inject = ['inject', mount.mountpoint, '--file', hit, '--offset', '8192']
  const result = await runJson<InjectResult>('holdfast', inject)
  t.equal(result.kind, 'data')
  t.ok(result.handlesKilled >= 1)
  t.same(await victim.evaluate('os.pread(fd, 10, 0).hex()'), { ok: false, error: 'EIO' })
  const opened = await mount.client('head -c 8192 hit | wc -c; cat hit > /dev/null')
  t.match(opened.stdout, /^8192/, 'a new open reads the healthy part')
  t.not(opened.status, 0, 'and gets EIO for the rest')
  t.same(
    await victim.evaluate('os.pread(fd, 10, 0).hex()'),
    { ok: false, error: 'EIO' },
    'still dead',
  )
  t.equal((await bystander.evaluate('os.pread(fd, 10, 0).hex()'))?.ok, true)
  t.equal((await bystander.evaluate('os.pwrite(fd, b"x", 5)'))?.ok, true)
  victim.process.stdin?.write('m[4096]\n')
  t.equal(await victim.ended, 'SIGBUS', 'the mapping is gone')
  bystander.process.kill('SIGKILL')
  await mount.unmount()
})

t.test('a fault that only the next access discovers', { skip }, async (t) => {
  for (const on of ['memory', 'disk'] as const) {
    const mount = await mountRegion({ on })
    await ok(mount, 'head -c 64K /dev/urandom > hit')
    const args = ['inject', mount.mountpoint, '--file', mount.path('hit'), '--method', 'sigbus']
    await runJson<InjectResult>('holdfast', args)
    await sleep(100)
    const read = await mount.client('cat hit > /dev/null')
    t.not(read.status, 0, `${on}: the read fails`)
    const status = await runJson<Status>('holdfast', ['status', mount.mountpoint])
    t.equal(status.failures[0]?.kind, 'data', 'and was reported as a failure')
    await mount.unmount()
  }
})

t.test('on_failure=sigbus signals who maps what failed, and nobody else', { skip }, async (t) => {
  const mount = await mountRegion({ options: ['on_failure=sigbus'] })
  await ok(mount, 'head -c 64K /dev/urandom > hit; head -c 64K /dev/urandom > other')
  const map = (file: string, offset = 0) =>
    new PythonClient(`
fd = os.open(${JSON.stringify(mount.path(file))}, os.O_RDWR)
m = mmap.mmap(fd, 32768, offset=${offset})
m[0]
`)
  const mapper = map('hit')
  const elsewhere = map('hit', 32768)
  const bystander = map('other')
  const opener = new PythonClient(`fd = os.open(${JSON.stringify(mount.path('hit'))}, os.O_RDONLY)`)
  const others = [elsewhere, bystander, opener]
  await Promise.all([mapper, ...others].map((client) => client.ready))
  await runJson('holdfast', ['inject', mount.mountpoint, '--file', mount.path('hit')])
  t.equal(await mapper.ended, 'SIGBUS', 'without touching its mapping')
  await sleep(300)
  for (const client of others) t.equal((await client.evaluate('1'))?.ok, true, 'lives')
  t.equal((await bystander.evaluate('m[5]'))?.ok, true)
  t.same(await opener.evaluate('os.pread(fd, 1, 0)'), { ok: false, error: 'EIO' })

  // Its handle is dead, but it maps the part that fails now.
  const second = ['inject', mount.mountpoint, '--file', mount.path('hit'), '--offset', '36864']
  await runJson('holdfast', second)
  t.equal(await elsewhere.ended, 'SIGBUS')
  t.equal((await bystander.evaluate('m[5]'))?.ok, true)
  t.equal((await mount.status()).state, 'mounted', 'the daemon is not signalled')
  const signalled = mount.logText().match(/sent SIGBUS to pid \d+/g)
  t.same(
    signalled,
    [mapper, elsewhere].map(({ process: { pid } }) => `sent SIGBUS to pid ${pid}`),
  )
  await Promise.all([bystander, opener].map((client) => client.stop()))
  await mount.unmount()
})

t.test('metadata failure: shutdown, fsck --repair, all there', { skip }, async (t) => {
  for (const structure of ['superblock', 'journal', 'checkpoint']) {
    const mount = await mountRegion()
    await ok(mount, 'echo precious > file')
    const args = ['inject', mount.mountpoint, '--metadata', structure]
    const result = await runJson<InjectResult>('holdfast', args)
    t.equal(result.shutdown, true, structure)
    const read = await mount.client('cat file')
    t.match(read.stderr, /Input\/output error/)
    await runProgram('holdfast', ['umount', mount.mountpoint])
    const refused = await runProgram('holdfast', ['mount', mount.region, mount.mountpoint])
    t.match(refused.stderr, /fsck\.holdfast --repair/)
    const repair = await runProgram('fsck.holdfast', ['--repair', mount.region])
    t.equal(repair.status, 1, repair.stdout + repair.stderr)
    const next = await mount.mountAgain()
    t.equal(await ok(next, 'cat file'), 'precious\n')
    await next.unmount()
  }
})

t.test('a region file truncated underneath: EIO, not a dead daemon', { skip }, async (t) => {
  const mount = await mountRegion()
  await ok(mount, 'head -c 8M /dev/urandom > file; sync file')
  truncateSync(mount.region, Math.floor(statSync(mount.region).size / 8))
  const read = await mount.client('echo 3 > /proc/sys/vm/drop_caches; cat file > /dev/null')
  t.match(read.stderr, /Input\/output error/)
  const status = await runJson<Status>('holdfast', ['status', mount.mountpoint])
  t.ok(status.failures.length > 0 || status.state === 'shutdown', 'and a report')
  await runProgram('holdfast', ['umount', mount.mountpoint])
})

t.test('everyday programs work and verify', { skip }, async (t) => {
  const mount = await mountRegion({ size: '512M' })
  const source = process.cwd()
  await ok(mount, `mkdir src && tar -C ${source} -cf - src test docs | tar -C src -xf -`)
  await ok(mount, `diff -r ${source}/test src/test`)
  await ok(mount, `rsync -aHAX ${source}/docs/ synced/ && diff -r ${source}/docs synced`)
  await ok(
    mount,
    `git init -q repo && cd repo && git config user.email a@b && git config user.name n &&
     cp -r ../src/src . && git add -A && git commit -qm one && git gc -q && git fsck --strict &&
     cd .. && git clone -q repo clone && diff -r repo/src clone/src`,
  )
  await ok(
    mount,
    `mkdir make && cd make && for f in a b c d e f; do echo "int $f(void){return 1;}" > $f.c; done &&
     printf 'all: a.o b.o c.o d.o e.o f.o\\n%%.o: %%.c\\n\\tcc -c -o $@ $<\\n' > Makefile &&
     make -s -j4 && test -s f.o`,
  )
  const sqlite = await ok(
    mount,
    `python3 -c '
import sqlite3
d = sqlite3.connect("t.db")
d.execute("pragma journal_mode=wal"); d.execute("pragma mmap_size=67108864")
d.execute("create table t(a)")
for i in range(50):
    d.executemany("insert into t values (randomblob(500))", [()] * 50); d.commit()
print(d.execute("pragma integrity_check").fetchone()[0], d.execute("select count(*) from t").fetchone()[0])
'`,
  )
  t.equal(sqlite, 'ok 2500\n')
  await mount.unmount()
  const check = await runProgram('fsck.holdfast', ['-n', '-f', mount.region])
  t.equal(check.status, 0, check.stdout)
})

/** How often the threads of a process have been given a processor. */
function wakeUps(pid: number): number {
  return readdirSync(`/proc/${pid}/task`)
    .map((thread) => readFileSync(`/proc/${pid}/task/${thread}/status`, 'utf8'))
    .flatMap((text) => [...text.matchAll(/^(?:non)?voluntary_ctxt_switches:\s*(\d+)$/gm)])
    .reduce((sum, [, count]) => sum + Number(count), 0)
}

t.test('a daemon that nobody asks anything sleeps', { skip }, async (t) => {
  const mount = await mountRegion()
  await ok(mount, 'mkdir d; for i in $(seq 100); do echo $i > d/$i; done; cat d/* > /dev/null')
  // The commit interval, the checkpoint and the garbage collector have their turn first.
  let slept = false
  for (let tries = 0; tries < 8 && !slept; tries++) {
    const before = wakeUps(mount.pid)
    await sleep(4000)
    slept = wakeUps(mount.pid) === before
  }
  t.ok(slept, 'not one thread has run in four seconds')
  await mount.unmount()
})
