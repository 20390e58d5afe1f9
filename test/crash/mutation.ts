/** Runs changed sources, each set of changes in a process of its own; tells which mutants were found out. */
import { spawn } from 'node:child_process'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { type Mode, oneSequence, type SequenceName } from './campaign.ts'
import { explore } from './explorer.ts'
import { MUTANTS, type Mutant } from './mutants.ts'
import { NARROW } from './narrow.ts'
import type { FlavourName } from './operations.ts'

const HERE = dirname(fileURLToPath(import.meta.url))
/** A mutant that lives through so many images has survived. */
const IMAGES_MAX = 20_000
const SECONDS_MAX = 500
const SEED = 1

/** A change of a source file: texts in it that occur exactly once, and what stands there instead. */
export interface Edit {
  readonly file: string
  readonly replacements: readonly (readonly [string, string])[]
}

export interface Verdict {
  readonly mutant: Mutant
  /** How it was found out; undefined when it survived. */
  readonly killedBy: string | undefined
  readonly images: number
}

export interface KillOptions {
  /** Names; all when undefined. */
  readonly wanted: readonly string[] | undefined
  readonly print: (line: string) => void
}

/** Returns the exit code: 0 when every mutant was found out. */
export async function killAll({ wanted, print }: KillOptions): Promise<number> {
  const mutants = MUTANTS.filter(({ name }) => wanted?.includes(name) ?? true)
  if (mutants.length === 0) {
    print(`no mutant of that name; there are ${MUTANTS.map(({ name }) => name).join(' ')}`)
    return 2
  }
  let killed = 0
  for (const mutant of mutants) {
    const verdict = await tryMutant(mutant)
    if (verdict.killedBy !== undefined) killed++
    print(tell(verdict))
  }
  print(`${killed} of ${mutants.length} mutants found out`)
  return killed === mutants.length ? 0 : 1
}

export function tell({ mutant, killedBy, images }: Verdict): string {
  const { name, what, mode } = mutant
  const end = killedBy === undefined ? 'SURVIVED' : 'found out'
  const why = killedBy === undefined ? '' : `\n    ${killedBy.slice(0, 160)}`
  return `${end} after ${images} images: ${name} (${mode}): ${what}${why}`
}

export async function tryMutant(mutant: Mutant): Promise<Verdict> {
  const { mode, flavour } = mutant
  const limits = { mode, flavour, seed: SEED, images: IMAGES_MAX, seconds: SECONDS_MAX }
  const text = await child(changesOf(mutant), { campaign: limits })
  const { failure, images, sequence } = resultOf(text, `mutant ${mutant.name}`)
  if (sequence !== undefined) {
    // Unbroken, holdfast must come through the same: else nothing was found out about the mutant.
    const control = await unbroken(mutant, { seed: sequence, mode, flavour })
    if (control !== undefined) {
      throw new Error(`sequence ${sequence} fails without a mutant, too: ${control}`)
    }
  }
  return { mutant, killedBy: failure, images }
}

/** How a sequence fails by itself, under the limits of the mutant. */
async function unbroken({ narrow }: Mutant, sequence: SequenceName): Promise<string | undefined> {
  if (narrow === undefined) return (await explore(oneSequence(sequence))).failure
  const text = await child({ edits: NARROW }, { sequence })
  return text.includes('all as promised') ? undefined : text
}

export async function runInMutant(name: string, sequence: SequenceName): Promise<number> {
  const mutant = MUTANTS.find((one) => one.name === name)
  if (mutant === undefined) throw new Error(`there is no mutant ${name}`)
  const text = await child(changesOf(mutant), { sequence })
  process.stdout.write(text)
  return text.includes('all as promised') ? 0 : 1
}

/** A campaign with limits so small that its sequences meet them. Nothing may be wrong. */
export async function exploreNarrow(limits: CampaignLimits): Promise<Result> {
  return resultOf(await child({ edits: NARROW }, { campaign: limits }), 'narrow limits')
}

function resultOf(text: string, what: string): Result {
  const last = text.trim().split('\n').at(-1) ?? ''
  try {
    return JSON.parse(last) as Result
  } catch {
    throw new Error(`${what} did not run:\n${text}`)
  }
}

interface Changes {
  readonly edits: readonly Edit[]
  readonly unfenced?: Mutant['unfenced']
}

function changesOf({ file, replacements = [], narrow, unfenced }: Mutant): Changes {
  const own = file === undefined ? [] : [{ file, replacements }]
  const edits = narrow === undefined ? own : merged([...NARROW, ...own])
  return unfenced === undefined ? { edits } : { edits, unfenced }
}

/** One edit for each file. */
function merged(edits: readonly Edit[]): Edit[] {
  return [...new Set(edits.map(({ file }) => file))].map((file) => ({
    file,
    replacements: edits.filter((edit) => edit.file === file).flatMap((edit) => edit.replacements),
  }))
}

/** What a child is to do. */
export type Task = { readonly sequence: SequenceName } | { readonly campaign: CampaignLimits }

export interface CampaignLimits {
  readonly mode: Mode
  readonly flavour?: FlavourName | undefined
  readonly seed: number
  readonly images: number
  readonly seconds: number
  /** So many images are made even when it takes longer. */
  readonly least?: number
}

/** What a campaign in a child came to. */
export interface Result {
  readonly images: number
  readonly failure?: string
  /** Seed of the sequence that failed. */
  readonly sequence?: number
}

/** What the child prints. Its sources are changed on their way in: see mutate-hooks.mjs. */
function child({ edits, unfenced }: Changes, task: Task): Promise<string> {
  const env: NodeJS.ProcessEnv = { ...process.env, NODE_OPTIONS: '' }
  if (edits.length > 0) env.HOLDFAST_EDITS = JSON.stringify(edits)
  if (unfenced !== undefined) env.HOLDFAST_UNFENCED = unfenced
  const loaders = ['--import', join(HERE, 'mutate.mjs'), '--import', 'tsx']
  const program = [...loaders, join(HERE, 'mutant-child.ts'), JSON.stringify(task)]
  const running = spawn(process.execPath, program, {
    cwd: join(HERE, '../..'),
    env,
    stdio: ['ignore', 'pipe', 'pipe'],
    timeout: (SECONDS_MAX + 60) * 1000,
    killSignal: 'SIGKILL',
  })
  const output: Buffer[] = []
  running.stdout.on('data', (chunk: Buffer) => output.push(chunk))
  running.stderr.on('data', (chunk: Buffer) => output.push(chunk))
  return new Promise((resolve, reject) => {
    running.on('error', reject)
    running.on('close', () => resolve(Buffer.concat(output).toString()))
  })
}
