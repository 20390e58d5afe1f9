/** `npm run test:NAME [-- OPTION…]`: the long runs. Each has --help. */
import { setupOrExit } from './setup.mjs'

const RUNS = {
  crash: '../test/crash/main.ts',
  fsx: '../test/fsx/main.ts',
  fuzz: '../test/fuzz/main.ts',
  kill: '../test/kill/main.ts',
  model: '../test/oracle/main.ts',
  soak: '../test/soak/main.ts',
}

const [name, ...args] = process.argv.slice(2)
const place = RUNS[name]
if (place === undefined) {
  process.stderr.write(`usage: node tools/long-run.mjs ${Object.keys(RUNS).join('|')} [OPTION…]\n`)
  process.exit(2)
}
await setupOrExit('test')
const { register } = await import('tsx/esm/api')
register()
const { main } = await import(place)
try {
  process.exit(await main(args))
} catch (error) {
  if (!error.code?.startsWith('ERR_PARSE_ARGS')) throw error
  process.stderr.write(`${name}: ${error.message} (--help explains)\n`)
  process.exit(2)
}
