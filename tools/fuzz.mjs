/** `npm run test:fuzz -- --minutes N --seed S`: see test/fuzz/main.ts. */
import { spawn } from 'node:child_process'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { setupOrExit } from './setup.mjs'

const ROOT = dirname(dirname(fileURLToPath(import.meta.url)))

await setupOrExit('test')
const args = ['--import=tsx', join(ROOT, 'test/fuzz/main.ts'), ...process.argv.slice(2)]
const child = spawn(process.execPath, args, { cwd: ROOT, stdio: 'inherit' })
child.once('exit', (code) => process.exit(code ?? 1))
