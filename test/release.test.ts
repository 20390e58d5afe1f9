/** The end of a mount: the holder is told of every failure until the region is released. */
import { existsSync, mkdirSync, openSync } from 'node:fs'
import { createConnection, type Socket } from 'node:net'
import { constants } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { Daemon } from '../src/cli/daemon.ts'
import { LineLogger } from '../src/cli/logger.ts'
import { defaultOptions } from '../src/cli/options.ts'
import { makePlan } from '../src/cli/plan.ts'
import { ControlClient } from '../src/control/client.ts'
import { isHeld, socketPath } from '../src/dax/claim.ts'
import { type DaxDevice, openDevice } from '../src/dax/device.ts'
import { Filesystem } from '../src/fs/filesystem.ts'
import { mountDevice } from './support/core.ts'
import { cannotMount, runProgram, scratch } from './support/mounts.ts'

const { ENXIO } = constants.errno
const BLOCK = 4096
const FREE = 32 * 2 ** 20
const skip = cannotMount()

interface Mounted {
  daemon: Daemon
  device: DaxDevice
  region: string
}

/** A daemon in this process, and the device it holds. */
async function start(): Promise<Mounted> {
  const directory = scratch()
  const [region, mountpoint] = [join(directory, 'region'), join(directory, 'mnt')]
  mkdirSync(mountpoint)
  await runProgram('mkfs.holdfast', ['--size', '64M', region])
  let held: DaxDevice | undefined
  const { mount } = Filesystem
  Filesystem.mount = (device, options) => {
    held = device
    return mount.call(Filesystem, device, options)
  }
  try {
    const logger = new LineLogger(openSync('/dev/null', 'w'), 'dated')
    const daemon = await Daemon.start(makePlan(region, mountpoint, defaultOptions()), logger)
    return { daemon, device: held!, region }
  } finally {
    Filesystem.mount = mount
  }
}

interface Answer {
  held: boolean
  answer: number
}

/** Reports one more block every few milliseconds, until it is told to stop. */
function reportOften(device: DaxDevice): { answers: Answer[]; stop: () => void } {
  const answers: Answer[] = []
  const report = () => {
    const held = device.holder !== undefined
    const offset = FREE + answers.length * 2 * BLOCK
    answers.push({ held, answer: device.memoryFailure(offset, BLOCK, 0) })
  }
  report()
  const timer = setInterval(report, 5)
  return { answers, stop: () => clearInterval(timer) }
}

/** A client that asks for more than the socket holds and reads nothing: it is hung up on late. */
async function lazyClient(path: string, other: ControlClient): Promise<Socket> {
  const socket = createConnection(path).pause()
  const requests = Array.from({ length: 2000 }, (_, id) => `{"id":${id},"method":"status"}\n`)
  await new Promise<void>((resolve) => socket.write(requests.join(''), () => resolve()))
  // What is asked later is answered later.
  for (let times = 0; times < 3; times++) await other.call('status', {})
  return socket
}

t.test('every failure before the release is on record, none is told after', { skip }, async (t) => {
  const { daemon, device, region } = await start()
  const path = socketPath(device.key!)
  const client = await ControlClient.connect(path)
  const lazy = await lazyClient(path, client)
  const heard: string[] = []
  await client.watch(({ event }) => heard.push(event))
  await daemon.transport.unmount(false)
  await daemon.transport.closed
  const { answers, stop } = reportOften(device)
  await daemon.finish()
  stop()
  lazy.destroy()
  await client.closed
  const before = answers.filter(({ held }) => held)
  t.ok(before.length > 0)
  t.ok(before.length < answers.length, 'the last clients are hung up on after the release')
  t.same(new Set(before.map(({ answer }) => answer)), new Set([0]), 'nothing is forgotten')
  const after = answers.slice(before.length)
  t.same(new Set(after.map(({ answer }) => answer)), new Set([-ENXIO]))
  t.ok(heard.includes('unmount'), 'watchers hear of it before they are hung up on')
  t.equal(heard.filter((event) => event === 'failure').length, before.length)
  const again = openDevice(region)
  const next = mountDevice(again)
  t.equal(next.administration.status().blocks.poisoned, before.length)
  await next.unmount()
  again.close()
})

t.test('the name of the socket is gone before the region is free', { skip }, async (t) => {
  const { daemon, device, region } = await start()
  const path = socketPath(device.key!)
  const claim = device.claim!
  const release = claim.release.bind(claim)
  const there: boolean[] = []
  claim.release = () => {
    there.push(existsSync(path))
    release()
  }
  t.equal(existsSync(path), true)
  await daemon.transport.unmount(false)
  await daemon.transport.closed
  await daemon.finish()
  t.equal(there[0], false, 'or it would be the next mount that loses its socket')
  t.equal(isHeld(region), false)
})
