/**
 * Stores into mapped memory never tear a word: somebody who looks at it while parts of it are
 * stored, again and again, sees the old parts or the new ones. So would a power failure.
 */
import { closeSync, openSync, rmSync, writeFileSync } from 'node:fs'
import { cpus } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { GUARD_OK, MAP_FILE, native } from '../src/native/binding.ts'
import { lacks, run, scratch } from './support/mounts.ts'

const PAGE = 4096
const WORD = 8
const SECONDS = 0.4
const directory = scratch('memory')

function mapFile(name: string, durable: boolean) {
  const file = join(directory, name)
  writeFileSync(file, Buffer.alloc(PAGE))
  const fd = openSync(file, 'r+')
  const { id } = native.map(fd, 0, PAGE, MAP_FILE, durable)
  t.teardown(() => {
    native.unmap(id)
    closeSync(fd)
  })
  return { file, id }
}

t.teardown(() => rmSync(directory, { recursive: true }))

t.test('any range, at any place in its words', async (t) => {
  const { id } = mapFile('ranges', false)
  const model = Buffer.alloc(PAGE, 0x55)
  native.copyIn(id, 0, model, 0, PAGE, false)
  for (let offset = 0; offset < 2 * WORD; offset++) {
    for (let length = 0; length < 5 * WORD; length++) {
      const bytes = Buffer.alloc(length, 1 + ((offset * 40 + length) % 250))
      const zeros = length % 3 === 0
      const done = zeros
        ? native.zero(id, 100 + offset, length, false)
        : native.copyIn(id, 100 + offset, bytes, 0, length, false)
      if (done !== GUARD_OK) t.fail(`${length} bytes at ${offset} failed at ${done}`)
      model.set(zeros ? Buffer.alloc(length) : bytes, 100 + offset)
      const found = Buffer.alloc(PAGE)
      native.copyOut(id, 0, found, 0, PAGE)
      if (!found.equals(model)) t.fail(`${length} bytes at ${offset} are not there alone`)
    }
  }
  t.pass('all are as written, and nothing around them changed')
})

/** The word is the first of a cache line, where the processor cuts a store that crosses into it. */
const CASES = [
  { offset: 3, length: 100, word: 64 },
  { offset: 65, length: 6, word: 64 },
  { offset: 3, length: 64, word: 64 },
]

const LOOKER = fileURLToPath(new URL('clients/look.c', import.meta.url))
const alone = cpus().length < 2 && 'one processor: nobody looks while another stores'
const skip = lacks('cc') || alone

t.test('nobody sees a word half stored', { skip }, async (t) => {
  const look = join(directory, 'look')
  const compiled = await run(['cc', '-O2', '-o', look, LOOKER])
  t.equal(compiled.status, 0, compiled.stderr)
  for (const { offset, length, word } of CASES) {
    const { file, id } = mapFile(`word-${offset}-${length}`, false)
    const values = [0x11, 0xee].map((byte) => Buffer.alloc(length, byte))
    const expected = values.map((value) => {
      native.copyIn(id, offset, value, 0, length, false)
      const whole = Buffer.alloc(WORD)
      native.copyOut(id, word, whole, 0, WORD)
      return whole
        .readBigUInt64LE()
        .toString(16)
        .padStart(2 * WORD, '0')
    })
    let seen: string[] | undefined
    const looking = run([look, file, `${word}`, `${SECONDS}`]).then(({ stdout }) => {
      seen = stdout.trim().split('\n')
    })
    for (let stores = 0; seen === undefined; stores++) {
      native.copyIn(id, offset, values[stores & 1]!, 0, length, false)
      if (stores % 5000 === 0) await new Promise(setImmediate)
    }
    await looking
    const torn = seen?.filter((value) => !expected.includes(value))
    t.same(torn, [], `${length} bytes stored at ${offset}, word ${word} looked at`)
  }
})
