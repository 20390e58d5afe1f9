/**
 * Limits so small that generated sequences meet them: operations that are several records, images
 * written in several slices. Nothing else is changed, and every promise must hold as before.
 */
import { spawn } from 'node:child_process'
import { join } from 'node:path'
import type { Edit } from './mutation.ts'

const ONE_REMOVAL = 'const REMOVALS_MAX = 1'

export const NARROW: readonly Edit[] = [
  {
    file: 'src/fs/file-blocks.ts',
    replacements: [
      ['const REMOVALS_MAX = 512', ONE_REMOVAL],
      ['const EXTENTS_MAX = 512', 'const EXTENTS_MAX = 1'],
    ],
  },
  {
    file: 'src/fs/orphans.ts',
    replacements: [
      ['const BATCH = 64', 'const BATCH = 2'],
      ['const PARTS = 16', 'const PARTS = 1'],
      ['const NAMES = 512', 'const NAMES = 1'],
    ],
  },
  {
    file: 'src/fs/file-space.ts',
    replacements: [['const COPY_PIECE = 1024 * 1024', 'const COPY_PIECE = 4096']],
  },
  {
    // A slot is too small at once, its list is full, and what is free does not lie behind it: it
    // has to move.
    file: 'src/fs/image-slots.ts',
    replacements: [
      ['if (longer.length > MAX_SLOT_EXTENTS)', 'if (longer.length > 1)'],
      ['slots[slot].length < MAX_SLOT_EXTENTS)', 'slots[slot].length < 1)'],
      ['const IMAGE_MARGIN = 1024 * 1024', 'const IMAGE_MARGIN = 3 * 1024 * 1024'],
    ],
  },
  {
    file: 'src/journal/checkpoint.ts',
    replacements: [['const SLICE = 1024 * 1024', 'const SLICE = 12 * 1024']],
  },
]

/** This process runs with them. */
export const isNarrow = process.env.HOLDFAST_EDITS === JSON.stringify(NARROW)

/** ... or a mutant of them: a punch is a record for each extent. */
export const FREES_ONE_BY_ONE = process.env.HOLDFAST_EDITS?.includes(ONE_REMOVAL) ?? false

/** The same command in a process whose sources have these limits. Returns its exit code. */
export function rerunNarrow(args: readonly string[]): Promise<number> {
  const root = join(import.meta.dirname, '../..')
  const loader = ['--import', join(import.meta.dirname, 'mutate.mjs')]
  const program = [...loader, join(root, 'tools/long-run.mjs'), 'crash', ...args]
  const running = spawn(process.execPath, program, {
    cwd: root,
    env: { ...process.env, HOLDFAST_EDITS: JSON.stringify(NARROW) },
    stdio: 'inherit',
  })
  // A signal from the terminal reaches both; the child says its figure, and ends.
  for (const signal of ['SIGINT', 'SIGTERM'] as const)
    process.on(signal, () => running.kill(signal))
  return new Promise((resolve, reject) => {
    running.on('error', reject)
    running.on('close', (code) => resolve(code ?? 1))
  })
}
