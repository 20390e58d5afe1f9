/**
 * Module hooks that change source files while they are loaded. Registered before tsx, so that tsx
 * compiles what comes from here.
 */
import { readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'

let edits

export function initialize(data) {
  edits = data
}

export async function load(url, context, nextLoad) {
  const plain = url.replace(/[?#].*/, '')
  const edit = edits.find(({ file }) => plain.endsWith(`/${file}`))
  if (edit === undefined) return nextLoad(url, context)
  let source = readFileSync(fileURLToPath(plain), 'utf8')
  for (const [from, to] of edit.replacements) {
    const parts = source.split(from)
    // An edit that changes nothing would prove nothing.
    if (parts.length !== 2) {
      throw new Error(`${edit.file} has ${parts.length - 1} times, not once: ${from}`)
    }
    source = parts.join(to)
  }
  process._rawDebug(`changed ${edit.file}`)
  return { format: 'module', source, shortCircuit: true }
}
