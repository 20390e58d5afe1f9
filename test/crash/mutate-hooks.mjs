/**
 * Module hooks that break one source file while it is loaded. Registered before tsx, so that tsx
 * compiles what comes from here.
 */
import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

let mutant

export function initialize(data) {
  mutant = data
}

export async function load(url, context, nextLoad) {
  const plain = url.replace(/[?#].*/, '')
  if (!plain.endsWith(`/${mutant.file}`)) return nextLoad(url, context)
  let source = readFileSync(fileURLToPath(plain), 'utf8')
  for (const [from, to] of mutant.replacements) {
    const parts = source.split(from)
    // A mutant that changes nothing would prove nothing.
    if (parts.length !== 2) {
      throw new Error(`${mutant.file} has ${parts.length - 1} times, not once: ${from}`)
    }
    source = parts.join(to)
  }
  process._rawDebug(`mutated ${mutant.file}`)
  return { format: 'module', source, shortCircuit: true }
}
