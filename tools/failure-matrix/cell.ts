/** Makes one cell happen on a real mount, and says what came of it. */
import type { ControlClient } from '../../src/control/client.ts'
import type { InjectRequest } from '../../src/fs/administration.ts'
import type { PythonClient } from '../demo/python-client.ts'
import { runProgram, sleep } from '../quickstart/programs.ts'
import { Actor, FILE_SIZE, HEALTHY, observer } from './actors.ts'
import { type Cell, type Outcome, onVictim } from './cells.ts'
import { ScratchMount } from './scratch.ts'

const BLOCK = 4096

/** A mount on which cells happen, one after the other. */
export class Stage {
  readonly mount: ScratchMount
  readonly #observer: PythonClient
  /** Cells so far: names of files, and places in unused memory, are not used twice. */
  #cells = 0

  private constructor(mount: ScratchMount, client: PythonClient) {
    this.mount = mount
    this.#observer = client
  }

  static async open(directory: string, size: string, region?: string): Promise<Stage> {
    const mount = await ScratchMount.make(directory, size, region)
    const client = observer(mount.mountpoint)
    const ready = await client.ready
    if (!ready?.ok) throw new Error(`the observer cannot work: ${ready?.error}`)
    const stage = new Stage(mount, client)
    // Records behind the first block of the journal: that one is not written to any more.
    for (let i = 0; i < 40; i++) await stage.#make(`before-${i}`, false)
    return stage
  }

  async play(cell: Cell): Promise<Outcome> {
    const number = this.#cells++
    const victim = `victim-${number}`
    const work = onVictim(cell) ? victim : `work-${number}`
    const unwritten = cell.block === 'unwritten extent'
    const inode = await this.#make(victim, unwritten)
    if (work !== victim) await this.#make(work, false)
    const offset = unwritten ? FILE_SIZE + FILE_SIZE / 2 : FILE_SIZE / 2
    const control = await this.mount.control()
    const target = this.#target(cell, inode, offset, number)
    const actor = await this.#actor(cell, work, offset)
    try {
      const { range, operation } = await this.#strike(cell, control, target, actor)
      const hit = hasFile(cell) ? await this.#look(victim, offset) : 'no file'
      const handle = await this.#handle(actor)
      const reopened = await this.#look(work, HEALTHY)
      const bystander = await this.#ask('bystander()')
      const { state, failures } = await this.mount.status()
      const report = failures.findLast(
        (one) => one.offset < range.offset + BLOCK && range.offset < one.offset + one.length,
      )
      const said = report === undefined ? 'none' : `${report.kind}: ${report.action}`
      return { operation, handle, reopened, hit, bystander, state, report: said, next: '' }
    } finally {
      await actor.end()
    }
  }

  /** A shutdown that no injection waits for may still be revoking what the kernel has cached. */
  async #handle(actor: Actor): Promise<string> {
    const { state } = await this.mount.status()
    for (let patience = 100; ; patience--) {
      const found = await actor.handle()
      if (found !== 'ok' || state !== 'shutdown' || patience === 0) return found
      await sleep(20)
    }
  }

  #actor({ operation }: Cell, name: string, offset: number): Promise<Actor> {
    const path = `${this.mount.mountpoint}/${name}`
    const doing = operation === 'checkpoint' || operation === 'freeze' ? 'read' : operation
    const at = Math.min(offset, name.startsWith('victim') ? offset : FILE_SIZE / 2)
    return Actor.start(path, doing, at)
  }

  /** The failure, with the operation going on around it. */
  async #strike(
    { operation, method }: Cell,
    control: ControlClient,
    target: InjectRequest['target'],
    actor: Actor,
  ): Promise<{ range: { offset: number }; operation: string }> {
    if (operation === 'freeze') await control.call('freeze', {})
    // Sent together: a slot that is superseded now must not be current when the failure comes.
    const injected = control.call('inject', { target, length: BLOCK, method })
    const checkpointed = operation === 'checkpoint' ? await checkpoints(control) : undefined
    const range = await injected
    const ended = operation === 'none' ? 'ok' : await actor.finish()
    if (operation === 'freeze') await control.call('thaw', {})
    return { range, operation: ended === 'ok' ? (checkpointed ?? ended) : ended }
  }

  #target(cell: Cell, inode: number, fileOffset: number, number: number): InjectRequest['target'] {
    const { geometry, checkpoint, slots } = this.mount.superblock()
    switch (cell.block) {
      case 'data of an open file':
      case 'data of a closed file':
      case 'unwritten extent':
        return { kind: 'file', inode, fileOffset }
      case 'free space':
        return { kind: 'free' }
      case 'superblock, primary':
        return { kind: 'metadata', structure: 'superblock' }
      case 'superblock, backup':
        return { kind: 'offset', offset: geometry.backup }
      case 'journal, active':
        return { kind: 'metadata', structure: 'journal' }
      case 'journal, unused': {
        const { offset, length } = geometry.journal[number % 2]!
        return { kind: 'offset', offset: offset + length - BLOCK * (1 + number) }
      }
      case 'checkpoint, current':
        return { kind: 'metadata', structure: 'checkpoint' }
      case 'checkpoint, superseded': {
        const [first] = slots[checkpoint.slot === 0 ? 1 : 0]
        return { kind: 'offset', offset: first!.block * BLOCK }
      }
    }
  }

  /** Unmounts, and says what the next mount needs; the bystander's bytes must all be there. */
  async close(): Promise<string> {
    await this.#observer.end()
    await this.mount.unmount()
    const mounted = await this.mount.tryMount()
    if (mounted.status !== 0) {
      if (!mounted.stderr.includes('fsck.holdfast --repair')) return `refused: ${mounted.stderr}`
      const repair = await runProgram('fsck.holdfast', ['--repair', this.mount.region])
      if (repair.status !== 1) return `fsck.holdfast --repair: exit ${repair.status}`
      await this.mount.mount()
    }
    const again = observer(this.mount.mountpoint)
    const ready = await again.ready
    const whole = await again.evaluate('bystander()')
    await again.end()
    await this.mount.unmount()
    if (!ready?.ok || whole?.value !== 'ok') return 'the bystander has lost data'
    return mounted.status === 0 ? 'mounts' : 'repair'
  }

  async #make(name: string, unwritten: boolean): Promise<number> {
    const python = `make('${name}', ${unwritten ? 'True' : 'False'})`
    const answer = await this.#observer.evaluate<number>(python)
    if (!answer?.ok) throw new Error(`cannot make ${name}: ${answer?.error}`)
    return answer.value ?? 0
  }

  #look(name: string, offset: number): Promise<string> {
    return this.#ask(`look('${name}', ${offset})`)
  }

  async #ask(python: string): Promise<string> {
    const answer = await this.#observer.evaluate<string>(python)
    return String(answer?.value ?? answer?.error ?? 'the observer died')
  }
}

function hasFile({ block }: Cell): boolean {
  return block.startsWith('data') || block === 'unwritten extent'
}

/** Two: the second one goes where the image was when the failure came. */
async function checkpoints(control: ControlClient): Promise<string> {
  try {
    await control.call('checkpoint', {})
    await control.call('checkpoint', {})
    return 'ok'
  } catch (error) {
    return (error as { errno?: number }).errno === 5 ? 'EIO' : String((error as Error).message)
  }
}
