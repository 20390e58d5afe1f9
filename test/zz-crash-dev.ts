import { explore } from './crash/explorer.ts'
import { generate } from './crash/operations.ts'
const [mode, from, count] = [process.argv[2] as 'page', Number(process.argv[3]), Number(process.argv[4])]
let images = 0
const t0 = performance.now()
for (let seed = from; seed < from + count; seed++) {
  const outcome = await explore(generate(seed, mode))
  images += outcome.images
  console.log(seed, outcome.images, outcome.failure ?? 'ok')
  if (outcome.failure) { console.log(outcome.trace.join('\n')); break }
}
const s = (performance.now() - t0) / 1000
console.log(images, 'images', (images / s).toFixed(0), '/s')
process.exit(0)
