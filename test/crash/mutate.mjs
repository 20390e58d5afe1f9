/** Loaded with --import before tsx: breaks the source that HOLDFAST_MUTANT describes. */
import { register } from 'node:module'

const { HOLDFAST_MUTANT } = process.env
if (HOLDFAST_MUTANT !== undefined) {
  register('./mutate-hooks.mjs', import.meta.url, { data: JSON.parse(HOLDFAST_MUTANT) })
}
