/** Loaded with --import before tsx: changes the sources that HOLDFAST_EDITS lists. */
import { register } from 'node:module'

const { HOLDFAST_EDITS } = process.env
if (HOLDFAST_EDITS !== undefined) {
  register('./mutate-hooks.mjs', import.meta.url, { data: JSON.parse(HOLDFAST_EDITS) })
}
