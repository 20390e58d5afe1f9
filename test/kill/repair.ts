/** A round in which fsck.holdfast --repair is killed, over and over, and then runs to its end. */
import { closeSync, fstatSync, fsyncSync, openSync, writeSync } from 'node:fs'
import { BLOCK_SIZE } from '../../src/media/geometry.ts'
import { Random } from '../crash/random.ts'
import { runProgram, sleep } from '../support/mounts.ts'
import { type RoundPlan, soon } from './plan.ts'
import type { RoundResult, Rounds } from './round.ts'

const STRUCTURES = ['journal', 'superblock', 'checkpoint'] as const
const KILLS = 3
/** From the start of fsck to its end, and from its first store. */
const REPAIR_MS = 800
const CHANGE_MS = 20
/** What is spoiled of a superblock, and where: its fields are in the beginning. */
const LINE = 64
const SPOILED = 256

export async function killRepairs(rounds: Rounds, plan: RoundPlan): Promise<RoundResult> {
  const { host } = rounds
  const random = new Random(plan.seed)
  const mount = await host.mount(host.region, plan.mode)
  const { clients, problems, names, removal } = await rounds.start(mount, plan)
  await clients.begun()
  await sleep(plan.loadMs)
  problems.push(...(await clients.stop()))
  await removal
  // A shutdown ends everything: what only the kernel has until then is told first.
  const synced = await mount.client('sync -f .; find . -type f -print0 | xargs -0 -r sync')
  if (synced.status !== 0) problems.push(`sync: ${synced.stderr}`)
  const structure = random.pick(STRUCTURES)
  const hit = ['inject', mount.mountpoint, '--metadata', structure]
  const injected = await runProgram('holdfast', hit)
  if (injected.status !== 0) problems.push(`inject: ${injected.stderr}`)
  await mount.unmount()
  // A copy that fsck has to make anew from the other one, of which it may have only this one.
  if (structure !== 'superblock') spoilSuperblock(host.region, random)
  let kills = 0
  for (let tries = KILLS; tries > 0; tries--) {
    // One that was not killed in time leaves nothing to repair.
    const watch = random.chance(0.8)
    const delayMs = watch ? soon(random, CHANGE_MS) : random.below(REPAIR_MS)
    const blow = { end: plan.end, region: host.region, seed: random.next(), delayMs, watch }
    const args = ['--repair', host.region]
    const { killed, struck, status, output } = await host.strikeProgram('fsck.holdfast', args, blow)
    if (killed) kills++
    else if (!struck && status !== 0 && status !== 1) problems.push(`fsck --repair: ${output}`)
    if (struck) await host.after(plan.end)
  }
  const repaired = await runProgram('fsck.holdfast', ['--repair', host.region])
  if (repaired.status !== 0 && repaired.status !== 1) {
    problems.push(`the last fsck --repair: exit ${repaired.status}: ${repaired.stdout}`)
  }
  problems.push(...(await rounds.fsck(['-n', '-f'], false)))
  const all = { promise: 'all', logs: clients.logs, names } as const
  const result = await rounds.finish(plan, all, problems)
  return { ...result, kills: result.kills + kills }
}

function spoilSuperblock(region: string, random: Random): void {
  const fd = openSync(region, 'r+')
  const start = random.chance(0.5) ? 0 : fstatSync(fd).size - BLOCK_SIZE
  writeSync(fd, Buffer.alloc(LINE, 0x5a), 0, LINE, start + random.below(SPOILED / LINE) * LINE)
  fsyncSync(fd)
  closeSync(fd)
}
