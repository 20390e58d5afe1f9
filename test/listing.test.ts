/**
 * A directory that changes while it is listed: what was there all the time is shown once, and the
 * listing ends.
 */
import t from 'tap'
import { RENAME_EXCHANGE } from '../src/fs/operations.ts'
import { scratchFilesystem } from './support/core.ts'
import { cannotMount, lacks, mountRegion, runClient } from './support/mounts.ts'

const COUNT = 1000
const AT_ONCE = 7
const caller = { uid: 0, gid: 0, pid: 1, umask: 0 }
const name = (text: string) => Buffer.from(text)

/** Lists it, a few entries at a time, and changes it after each few; gives up at twice as many. */
function listed(change: (fs: ReturnType<typeof made>, seen: string) => void): string[] {
  const fs = made()
  const handle = fs.opendir(1)
  const all: string[] = []
  for (let cookie = 0; all.length < 2 * COUNT; ) {
    const some: string[] = []
    fs.readdir(handle, cookie, (entry) => {
      if (some.length === AT_ONCE) return false
      some.push(Buffer.from(entry.name).toString())
      cookie = entry.cookie
      return true
    })
    if (some.length === 0) break
    all.push(...some)
    for (const seen of some) if (seen.startsWith('f')) change(fs, seen)
  }
  fs.release(handle)
  return all.filter((one) => one.startsWith('f'))
}

function made() {
  const { fs } = scratchFilesystem(32 * 2 ** 20, 'cacheline')
  for (let i = 0; i < COUNT; i++) fs.mknod(1, name(`f${i}`), 0o100644, 0, caller)
  return fs
}

const EACH_ONCE = Array.from({ length: COUNT }, (_, i) => `f${i}`)

t.test('entries that are renamed, and get their names back', async (t) => {
  const found = listed((fs, seen) => {
    fs.rename(1, name(seen), 1, name('elsewhere'), 0)
    fs.rename(1, name('elsewhere'), 1, name(seen), 0)
  })
  t.same(found, EACH_ONCE)
})

t.test('entries that change places', async (t) => {
  const found = listed((fs, seen) => fs.rename(1, name(seen), 1, name('f999'), RENAME_EXCHANGE))
  t.same(found, EACH_ONCE)
})

t.test('entries that are made', async (t) => {
  let made = 0
  const found = listed((fs) => fs.forget(fs.mkdir(1, name(`f-${made++}`), 0o755, caller).ino, 1))
  t.same(found, EACH_ONCE)
})

t.test('a listing that begins again shows what was made', async (t) => {
  const fs = made()
  const handle = fs.opendir(1)
  const count = () => {
    let entries = 0
    fs.readdir(handle, 0, () => ++entries > 0)
    return entries
  }
  t.equal(count(), COUNT + 2)
  fs.mkdir(1, name('one more'), 0o755, caller)
  t.equal(count(), COUNT + 3)
})

const CLIENT = `
import os, sys
where = sys.argv[1] + "/d"
os.mkdir(where)
for i in range(2000):
    open(f"{where}/f{i}", "w").close()
seen = []
with os.scandir(where) as entries:
    for entry in entries:
        seen.append(entry.name)
        os.rename(entry.path, where + "/elsewhere")
        os.rename(where + "/elsewhere", entry.path)
        open(f"{where}/new{len(seen)}", "w").close()
        if len(seen) > 8000:
            break
old = len({name for name in seen if name.startswith("f")})
print(len(seen), old, len(os.listdir(where)))
`

const skip = cannotMount() || lacks('python3')
for (const cache of ['keep', 'none']) {
  t.test(`the same on a mount (cache=${cache})`, { skip }, async (t) => {
    const mount = await mountRegion({ on: 'memory', options: [`cache=${cache}`] })
    const { status, stdout, stderr } = await runClient(['python3', '-c', CLIENT, mount.mountpoint])
    t.equal(status, 0, stderr)
    const [seen, old, after] = stdout.trim().split(' ').map(Number)
    t.equal(old, 2000, 'each that was there')
    t.ok(seen! < 4000, `${seen} in all: it ends`)
    t.equal(after, 2000 + seen!, 'the next listing shows what was made')
    await mount.unmount()
  })
}
