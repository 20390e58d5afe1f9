/**
 * Downloads Debian packages of any suite without touching the system's apt: an apt of our own
 * beside it, with the mirror and the keys that the system has already.
 */
import { mkdirSync, readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { output } from './commands.ts'
import { NoGuestError } from './errors.ts'

const KEYRING = '/usr/share/keyrings/debian-archive-keyring.gpg'

export class Apt {
  readonly #options: string[]
  readonly #suite: string

  constructor(suite: string, directory: string) {
    const state = join(directory, 'state')
    const cache = join(directory, 'cache')
    for (const part of [`${state}/lists/partial`, `${cache}/archives/partial`]) {
      mkdirSync(part, { recursive: true })
    }
    const sources = join(directory, 'sources.list')
    const status = join(directory, 'status')
    writeFileSync(sources, `deb [signed-by=${KEYRING}] ${mirror()} ${suite} main\n`)
    writeFileSync(status, '')
    const settings = {
      'APT::Sandbox::User': 'root',
      'Dir::Etc::sourcelist': sources,
      'Dir::Etc::sourceparts': '/dev/null',
      'Dir::Etc::preferences': '/dev/null',
      'Dir::Etc::preferencesparts': '/dev/null',
      'Dir::State': state,
      'Dir::State::status': status,
      'Dir::Cache': cache,
    }
    this.#options = Object.entries(settings).flatMap(([name, value]) => ['-o', `${name}=${value}`])
    this.#suite = suite
  }

  update(): void {
    output(['apt-get', '-qq', ...this.#options, 'update'])
  }

  /** Packages that `name` depends on and whose names match. */
  dependencies(name: string, pattern: RegExp): string[] {
    const text = output(['apt-cache', ...this.#options, 'depends', name]).toString()
    const found = [...text.matchAll(/^ *Depends: (\S+)$/gm)].map(([, dependency]) => dependency!)
    return found.filter((dependency) => pattern.test(dependency))
  }

  /** Downloads the packages into `directory`; returns the paths of the files. */
  download(names: readonly string[], directory: string): string[] {
    output(['apt-get', '-qq', ...this.#options, 'download', ...names], undefined, directory)
    const files = readdirSync(directory).filter((name) => name.endsWith('.deb'))
    if (files.length < names.length) {
      throw new NoGuestError(`${this.#suite}: not all of ${names.join(', ')} could be downloaded`)
    }
    return files.map((name) => join(directory, name))
  }
}

/** The Debian archive that the system's own apt uses. */
function mirror(): string {
  const format = ['--format', '$(ORIGIN)|$(LABEL)|$(SITE)']
  const lines = output(['apt-get', 'indextargets', ...format, 'Created-By: Packages']).toString()
  const site = /^Debian\|Debian\|(\S+)$/m.exec(lines)?.[1]
  if (site === undefined) {
    throw new NoGuestError('apt has no Debian archive to take a kernel from')
  }
  return site
}
