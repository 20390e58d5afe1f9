/**
 * Limits so small that generated sequences meet them: operations that are several records, images
 * written in several slices. Nothing else is changed, and every promise must hold as before.
 */
import type { Edit } from './mutation.ts'

export const NARROW: readonly Edit[] = [
  {
    file: 'src/fs/file-blocks.ts',
    replacements: [['const REMOVALS_MAX = 512', 'const REMOVALS_MAX = 1']],
  },
  {
    file: 'src/fs/file-space.ts',
    replacements: [
      ['const COPY_PIECE = 1024 * 1024', 'const COPY_PIECE = 4096'],
      ['const PREALLOCATE_BLOCKS = 64 * 1024', 'const PREALLOCATE_BLOCKS = 2'],
    ],
  },
  {
    file: 'src/journal/checkpoint.ts',
    replacements: [['const SLICE = 1024 * 1024', 'const SLICE = 12 * 1024']],
  },
]
