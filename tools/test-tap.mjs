/** Reads tap's TAP stream: counts assertions, prints a line for each file and every failure. */

const RESULT = /^( *)(not ok|ok) \d+(?: - )?(.*)$/
/** Expected to fail: no failure. */
const PENDING = new RegExp(` # ${'TO'}DO`, 'i')
const SUBTEST = /^( *)# Subtest: (.*)$/

export class TapCounter {
  /** Indentation of the subtests that are open, outermost first, with their names. */
  #open = []
  /** Indentation → failures inside a subtest whose own result line is still to come. */
  #inside = new Map()
  #diagnostic = undefined
  #file = { pass: 0, fail: 0, skip: 0 }

  constructor(counts, print) {
    this.counts = counts
    this.print = print
  }

  line(line) {
    if (this.#diagnostic !== undefined) {
      if (this.#collect(line)) return
    }
    const subtest = SUBTEST.exec(line)
    if (subtest) {
      this.#open.push({ indent: subtest[1].length, name: subtest[2] })
      this.#inside.set(subtest[1].length, 0)
      return
    }
    const result = RESULT.exec(line)
    if (result) this.#result(result[1].length, result[2] === 'ok', result[3])
  }

  /** The stream is over, perhaps in the middle of a file. */
  end() {
    const [file] = this.#open
    if (file) this.print(`FAILED ${file.name}: did not come to its end\n`)
    if (file) this.counts.fail += 1
  }

  #result(indent, ok, text) {
    const failed = !ok && !PENDING.test(text)
    const subtest = this.#open.at(-1)?.indent === indent
    if (subtest) {
      const within = this.#inside.get(indent)
      this.#inside.delete(indent)
      if (failed && within === 0) this.#fail(indent, text)
      if (indent === 0) this.#endOfFile(text)
      this.#open.pop()
      return
    }
    if (failed) this.#fail(indent, text)
    else if (/ # SKIP/i.test(text)) this.#skipped(text)
    else this.#count(PENDING.test(text) ? 'skip' : 'pass')
  }

  #count(kind) {
    this.counts[kind] += 1
    this.#file[kind] += 1
  }

  #fail(indent, text) {
    this.#count('fail')
    for (const key of this.#inside.keys()) {
      if (key < indent) this.#inside.set(key, this.#inside.get(key) + 1)
    }
    const path = this.#open.filter((entry) => entry.indent < indent).map((entry) => entry.name)
    this.print(`FAILED ${[...path, text].join(' > ')}\n`)
    this.#diagnostic = { indent, lines: 0 }
  }

  #skipped(text) {
    this.#count('skip')
    const [name, reason] = text.split(/ # SKIP ?/i)
    this.print(`skip   ${this.#open.map((entry) => entry.name).join(' > ')} > ${name}: ${reason}\n`)
  }

  #endOfFile(text) {
    const { pass, fail, skip } = this.#file
    const time = / # time=([\d.]+)(m?s)/.exec(text)
    const spent = time ? (Number(time[1]) / (time[2] === 'ms' ? 1000 : 1)).toFixed(1) : '?'
    const name = this.#open[0]?.name ?? text.replace(/ # time=.*/, '')
    const also = (fail > 0 ? `, ${fail} failed` : '') + (skip > 0 ? `, ${skip} skipped` : '')
    this.print(`${fail > 0 ? 'FAILED' : 'ok    '} ${name} (${pass} passed${also}, ${spent} s)\n`)
    this.#file = { pass: 0, fail: 0, skip: 0 }
  }

  /** Prints the YAML block that follows a failure; false when the line is not part of it. */
  #collect(line) {
    const { indent, lines } = this.#diagnostic
    const text = line.slice(indent + 2)
    if (lines === 0 && text !== '---') {
      this.#diagnostic = undefined
      return false
    }
    this.#diagnostic.lines += 1
    if (text === '...') this.#diagnostic = undefined
    else if (text !== '---') this.print(`       ${text}\n`)
    return true
  }
}
