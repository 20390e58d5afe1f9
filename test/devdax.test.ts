/** The harness around guests with real device-dax, as far as it can be had without a guest. */
import t from 'tap'
import { readOptions } from '../tools/devdax/options.ts'
import { type Boot, parseCheck, summary } from '../tools/devdax/results.ts'
import { guestScript } from '../tools/devdax/script.ts'
import { ROOT, run } from './support/mounts.ts'

t.test('what the guest prints is counted', (t) => {
  t.same(parseCheck('ok    2 MiB: mkfs and fsck (7342 ms)'), {
    outcome: 'ok',
    name: '2 MiB: mkfs and fsck',
  })
  t.same(parseCheck('FAILED 2 MiB: mkfs')?.outcome, 'FAILED')
  t.same(parseCheck('okay, this is no check'), undefined)
  const checks = ['ok    a (1 ms)', 'ok    b (2 ms)', 'FAILED c', 'skipped d: why']
  const boot: Boot = { suite: 'sid', release: '7', align: 4096, seconds: 1, checks: [] }
  for (const line of checks) boot.checks.push(parseCheck(line)!)
  t.equal(summary([boot]), '2 passed, 1 failed, 1 skipped')
  t.equal(summary([{ ...boot, checks: boot.checks.slice(0, 2) }]), '2 passed, 0 failed')
  t.end()
})

t.test('options: what cannot be is told', (t) => {
  const all = readOptions([])
  t.same(
    [all.kernels, all.alignments],
    [
      ['bookworm', 'trixie-backports'],
      [2 << 20, 4096],
    ],
  )
  const quick = readOptions(['--quick', '--optional', 'claim', 'modes'])
  t.same(
    [quick.kernels, quick.alignments, quick.suites],
    [['trixie-backports'], [2 << 20], ['claim', 'modes']],
  )
  for (const wrong of [['--align', '3K'], ['--kernel', 'buzz'], ['--limit', '0'], ['--no-such']]) {
    t.throws(() => readOptions(wrong), wrong.join(' '))
  }
  t.end()
})

t.test('the guest is told a command that its shell takes literally', async (t) => {
  const script = guestScript('--eval', ["console.log(\"it's\", '$HOME')"])
  const { stdout, status, stderr } = await run(['sh', '-c', script])
  t.equal(status, 0, stderr)
  t.equal(stdout, "it's $HOME\n")
})

for (const tool of ['tools/devdax.mjs', 'tools/mce-tour.mjs']) {
  t.test(`${tool} --help teaches, and installs nothing`, async (t) => {
    const { status, stdout } = await run([process.execPath, `${ROOT}/${tool}`, '--help'])
    t.equal(status, 0)
    t.match(stdout, /^usage: .*\n[\s\S]*--kernel[\s\S]*--json/)
  })
}
