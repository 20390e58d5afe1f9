/** The commands of the README: npm start (until Ctrl-C) and the tour. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { cannotMount, ROOT, runClient, scratch, sleep } from './support/mounts.ts'

const skip = cannotMount()
const QUICKSTART = join(ROOT, 'tools/quickstart.mjs')

t.test('the tour: every claim checked', { skip }, async (t) => {
  const command = [process.execPath, QUICKSTART, '--demo', join(ROOT, 'docs')]
  const tour = await runClient(command, { timeoutMs: 90_000 })
  t.equal(tour.status, 0, tour.stderr)
  t.match(tour.stdout, /All \d+ checks passed/)
})

t.test('npm start serves until Ctrl-C, then the region is clean', { skip }, async (t) => {
  const directory = scratch()
  const mountpoint = join(directory, 'mnt')
  const where = ['--region', join(directory, 'region'), '--mountpoint', mountpoint, '--size', '64M']
  const child = spawn(process.execPath, [QUICKSTART, ...where], { stdio: 'ignore' })
  const mounted = () => readFileSync('/proc/self/mountinfo', 'utf8').includes(` ${mountpoint} `)
  for (let tries = 0; !mounted() && tries < 200; tries++) await sleep(100)
  t.ok(mounted(), 'it is mounted')
  await sleep(500)
  child.kill('SIGINT')
  const [code] = await once(child, 'exit')
  t.equal(code, 0)
  t.notOk(mounted(), 'and unmounted')
  const fsck = join(ROOT, 'tools/fsck.holdfast.mjs')
  const check = await runClient([process.execPath, fsck, '-n', join(directory, 'region')])
  t.equal(check.status, 0, check.stdout)
})
