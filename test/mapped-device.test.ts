/** Mapped devices: linear and striped, their labels, their holders and their failures. */
import { copyFileSync, readdirSync, readFileSync, truncateSync, writeFileSync } from 'node:fs'
import { constants } from 'node:os'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { format } from '../mkfs/format.ts'
import { makeSet } from '../mkfs/mapped.ts'
import {
  decodeLabel,
  encodeLabel,
  loadLabel,
  type SetLabel,
  type TargetLabel,
} from '../src/bus/label.ts'
import type { SetKind } from '../src/bus/label-layout.ts'
import { makeMappedDevice } from '../src/bus/mapped-device.ts'
import { openByName } from '../src/bus/open.ts'
import { fromTarget, mappedSize, toTargets } from '../src/bus/translate.ts'
import { isHeld, whoHolds } from '../src/dax/claim.ts'
import { type DaxDevice, openDevice, openSimulated } from '../src/dax/device.ts'
import type { DaxError } from '../src/dax/errors.ts'
import {
  fsDaxGet,
  fsPutDax,
  type Holder,
  killDax,
  MF_ACTION_REQUIRED,
  MF_MEM_PRE_REMOVE,
  notifyFailure,
} from '../src/dax/holder.ts'
import { SimulatedMemory } from '../src/dax/simulated-memory.ts'
import type { FileExtent } from '../src/fs/administration.ts'
import { Filesystem } from '../src/fs/filesystem.ts'
import type { Handle } from '../src/fs/handles.ts'
import { MediaError } from '../src/media/errors.ts'
import { mountDevice, scratchFilesystem, silent } from './support/core.ts'
import { scratch } from './support/mounts.ts'
import { codeOf, M, makeTargets } from './support/regions.ts'

const { EIO, ENXIO } = constants.errno
const EUCLEAN = 117
const REMEDY =
  'name every target in its place, by the path where it is now, and make nothing new there, ' +
  'for that has none of its data'
const WRITE = { cached: false, killPrivileges: false, append: false }

function setOf(kind: SetKind, lengths: readonly number[], chunk = 2 * M): SetLabel {
  const targets = lengths.map((length, at) => ({ uuid: uuidOf(at), length }))
  return { set: uuidOf(99), kind, chunk: kind === 'striped' ? chunk : 0, targets }
}

function uuidOf(number: number): string {
  return `00000000-0000-4000-8000-${String(number).padStart(12, '0')}`
}

function openPaths(t: Test, paths: readonly string[]): DaxDevice {
  const device = openByName(paths.join(','))
  t.teardown(() => device.close())
  return device
}

function labelIn(path: string): TargetLabel {
  const device = openDevice(path, { readOnly: true })
  try {
    return loadLabel(device.memory)
  } finally {
    device.close()
  }
}

type Told = [offset: number, length: number, flags: number]

/** Claims the device and writes down what its holder is told. */
function listen(device: DaxDevice, answer = 0): { holder: Holder; told: Told[] } {
  const holder: Holder = { purpose: 'mount', mountpoint: '/mnt/set' }
  const told: Told[] = []
  fsDaxGet(device, holder, {
    notifyFailure(_dev, offset, length, flags) {
      told.push([offset, length, flags])
      return answer
    },
  })
  return { holder, told }
}

t.test('translation: every byte is in one place, and the way back leads to it', async (t) => {
  const sets = [
    setOf('linear', [4 * M, 2 * M, 6 * M]),
    setOf('striped', [4 * M, 4 * M, 4 * M]),
    setOf('striped', [8 * M, 8 * M], 4 * M),
  ]
  for (const set of sets) {
    const size = mappedSize(set)
    const step = 64 * 1024
    const seen = new Set<string>()
    for (let at = 0; at < size; at += step) {
      const [place, ...more] = toTargets(set, at, step)
      if (place === undefined || more.length > 0) throw new Error('a step is in one target')
      seen.add(`${place.target}:${place.offset}`)
      t.same(fromTarget(set, place), [{ offset: at, length: step }])
    }
    t.equal(seen.size, size / step, 'no two bytes in one place')
    for (const [offset, length] of [
      [0, size],
      [M, size - 2 * M],
      [3 * M, 5 * M],
    ] as const) {
      const parts = toTargets(set, offset, length)
      t.equal(
        parts.reduce((sum, part) => sum + part.length, 0),
        length,
      )
      const back = parts.flatMap((part) => fromTarget(set, part)).map((range) => range.offset)
      t.same(
        back,
        [...back].sort((a, b) => a - b),
        'in its own order',
      )
      t.equal(back[0], offset)
    }
  }
  t.same(toTargets(setOf('striped', [4 * M, 4 * M]), M, 4 * M), [
    { target: 0, offset: M, length: M },
    { target: 1, offset: 0, length: 2 * M },
    { target: 0, offset: 2 * M, length: M },
  ])
  t.same(fromTarget(setOf('linear', [4 * M, 2 * M]), { target: 1, offset: M, length: 9 * M }), [
    { offset: 5 * M, length: M },
  ])
})

t.test('labels: written twice, checked before they are believed', async (t) => {
  const [path] = makeTargets('striped', [64 * M, 64 * M, 65 * M], 4 * M)
  const device = openDevice(path!)
  const label = loadLabel(device.memory)
  device.close()
  t.match(label, { kind: 'striped', chunk: 4 * M, position: 0, start: 2 * M })
  t.same(
    label.targets.map(({ length }) => length),
    [60 * M, 60 * M, 60 * M],
    'the smallest counts',
  )
  const whole = encodeLabel(label)
  t.same(decodeLabel(whole, 0), label)
  for (let at = 0; at < whole.length; at += 17) {
    const bytes = Uint8Array.from(whole)
    bytes[at]! ^= 1 + (at % 255)
    t.throws(() => decodeLabel(bytes, 0), MediaError, `byte ${at}`)
  }
  const broken: Partial<TargetLabel>[] = [
    { position: 3 },
    { chunk: M },
    { kind: 'linear' },
    { start: 4096 },
    { targets: label.targets.slice(0, 1) },
    { targets: [...label.targets.slice(0, 2), { uuid: uuidOf(1), length: 56 * M }] },
  ]
  for (const change of broken) {
    const bytes = encodeLabel({ ...label, ...change })
    t.throws(() => decodeLabel(bytes, 0), MediaError, JSON.stringify(change))
  }
})

t.test('linear over mixed sizes: the shares end to end, in the files themselves', async (t) => {
  const paths = makeTargets('linear', [36 * M, 64 * M, 40 * M + 4096])
  const device = openPaths(t, paths)
  t.equal(device.size, (32 + 60 + 36) * M)
  const text = Buffer.from('over the seam')
  device.memory.write(32 * M - 5, text, 0, text.length)
  device.memory.write(device.size - 3, Buffer.from('end'), 0, 3)
  device.memory.flush(0, device.size)
  t.equal(readFileSync(paths[0]!).toString('latin1', 34 * M - 5, 34 * M), 'over ')
  t.equal(readFileSync(paths[1]!).toString('latin1', 2 * M, 2 * M + 8), 'the seam')
  t.equal(readFileSync(paths[2]!).toString('latin1', 38 * M - 3, 38 * M), 'end')
})

t.test('striped: chunk by chunk in turn', async (t) => {
  const paths = makeTargets('striped', [36 * M, 36 * M])
  const device = openPaths(t, paths)
  for (let chunk = 0; chunk < 6; chunk++) {
    device.memory.write(chunk * 2 * M, Buffer.from(`chunk ${chunk}`), 0, 7)
  }
  const files = paths.map((path) => readFileSync(path))
  const found = [0, 1, 2, 3, 4, 5].map((chunk) => {
    const at = 2 * M + Math.floor(chunk / 2) * 2 * M
    return files[chunk % 2]!.toString('latin1', at, at + 7)
  })
  t.same(
    found,
    [0, 1, 2, 3, 4, 5].map((chunk) => `chunk ${chunk}`),
  )
})

t.test('mounting names the target that is missing, strange, swapped or named twice', async (t) => {
  const [a, b, c] = makeTargets('linear', [36 * M, 36 * M, 36 * M]) as [string, string, string]
  const [other] = makeTargets('linear', [36 * M, 36 * M]) as [string]
  const uuids = [a, b, c].map((path) => {
    const { targets, position } = labelIn(path)
    return targets[position]!.uuid
  })
  const plain = join(scratch('memory'), 'plain')
  writeFileSync(plain, Buffer.alloc(36 * M))
  const refused = (names: string[], code: string, message: RegExp) =>
    t.throws(() => openByName(names.join(',')), { code, message })
  refused(
    [a],
    'EINVAL',
    new RegExp(`is target 0 of 3 of .*target 1 is ${uuids[1]}, 2 is ${uuids[2]}`),
  )
  refused([a, c], 'ENODEV', new RegExp(`target 1 \\(uuid ${uuids[1]}\\) is missing`))
  refused([a, other, c], 'ENODEV', /target 1 .*is missing; .*is target 0 of another mapped device/)
  refused(
    [a, b, plain],
    'ENODEV',
    new RegExp(`target 2 .*${uuids[2]}.*missing; .*plain is no target`),
  )
  refused(
    [a, c, b],
    'EINVAL',
    new RegExp(`${uuids[2]}\\) is target 2, not 1.*order, ${a},${b},${c}`),
  )
  refused([a, b, b], 'EINVAL', /is named twice/)
  const copy = join(scratch('memory'), 'copy')
  copyFileSync(b, copy)
  refused([a, b, copy], 'ENODEV', new RegExp(`${uuids[2]}\\) is missing`))
})

t.test('a target that cannot be opened is named by its number and uuid', async (t) => {
  const [a, b, c] = makeTargets('linear', [36 * M, 36 * M, 36 * M]) as [string, string, string]
  const { set, targets } = labelIn(a)
  const missing = (at: number) => `target ${at} (uuid ${targets[at]!.uuid}) is missing`
  const directory = scratch('memory')
  const [gone, plain] = ['gone', 'plain'].map((name) => join(directory, name)) as [string, string]
  writeFileSync(plain, Buffer.alloc(36 * M))
  const refused = (names: string[], code: string, problems: string) => {
    const before = readdirSync('/proc/self/fd').length
    try {
      openByName(names.join(',')).close()
      t.fail(`${names.join(',')} was opened`)
    } catch (error) {
      const { code: found, message } = error as DaxError
      t.equal(found, code)
      t.equal(message, `mapped device ${set}: ${problems}: ${REMEDY}`)
    }
    t.equal(readdirSync('/proc/self/fd').length, before, 'what was opened is closed again')
  }

  const notThere = `${gone} does not exist`
  refused([a, gone, c], 'ENOENT', `${missing(1)}, ${notThere}`)
  refused([gone, b, c], 'ENOENT', `${missing(0)}, ${notThere}`)
  refused([gone, gone, c], 'ENOENT', `${missing(0)}, ${notThere}; ${missing(1)}, ${notThere}`)
  refused([a, gone], 'ENOENT', `${missing(1)}, ${notThere}; ${missing(2)}`)
  const device = '/dev/dax7.0'
  refused([a, b, device], 'ENODEV', `${missing(2)}, ${device} is gone, or never was`)
  refused([a, directory, c], 'EISDIR', `${missing(1)}, ${directory} is a directory`)
  refused([a, b, c, gone], 'ENOENT', `${notThere} (named as target 3)`)
  // Not in its place: which target the name stands for, nobody can say.
  refused([b, c, gone], 'ENOENT', `${missing(0)}; ${notThere} (named as target 2)`)
  const [other] = makeTargets('linear', [36 * M, 36 * M]) as [string]
  const { set: theirs, targets: foreign } = labelIn(other)
  const where = `${other} (uuid ${foreign[0]!.uuid}) is target 0 of another mapped device, ${theirs}`
  refused([a, gone, other], 'ENOENT', `${missing(1)}, ${notThere}; ${missing(2)}; ${where}`)
  const magic = 'target label at region offset 0: it is not there (another magic)'
  const strange = `${missing(2)}; ${plain} is no target: ${magic}`
  refused([a, gone, plain], 'ENOENT', `${missing(1)}, ${notThere}; ${strange}`)
  for (const size of [4096, 0]) {
    truncateSync(c, size)
    const small = `; ${c} is no target: 4096 bytes have no place for a label`
    refused([a, b, c], 'ENODEV', missing(2) + (size > 0 ? small : `, ${c} is too small`))
  }
})

t.test('without a label nothing is known but that there is no memory', async (t) => {
  const directory = scratch('memory')
  const [gone, empty, plain] = ['gone', 'empty', 'plain'].map((name) => join(directory, name))
  writeFileSync(empty!, '')
  writeFileSync(plain!, Buffer.alloc(36 * M))
  const alone = `${gone} does not exist: make a region first, for example truncate -s 1G ${gone}`
  for (const names of [
    [plain, gone],
    [gone, plain],
    [gone, empty],
    [gone, gone],
  ]) {
    t.throws(() => openByName(names.join(',')), { code: 'ENOENT', message: alone })
  }
  t.throws(() => openByName(`${empty},${gone}`), { code: 'EINVAL', message: /is too small/ })
})

t.test('one copy of a label is enough', async (t) => {
  const paths = makeTargets('linear', [36 * M, 36 * M])
  const bytes = readFileSync(paths[1]!)
  bytes.fill(0xff, 0, 4096)
  writeFileSync(paths[1]!, bytes)
  openPaths(t, paths)
  bytes.fill(0xff, 34 * M, 34 * M + 4096)
  writeFileSync(paths[1]!, bytes)
  t.throws(() => openByName(paths.join(',')), { code: 'ENODEV', message: /target 1 .* is missing/ })
})

t.test('a claim takes every target or none', async (t) => {
  const paths = makeTargets('striped', [36 * M, 36 * M])
  const device = openPaths(t, paths)
  const name = paths.join(',')
  const stranger = openDevice(paths[1]!)
  t.teardown(() => stranger.close())
  const fsck: Holder = { purpose: 'fsck' }
  fsDaxGet(stranger, fsck)
  const holder: Holder = { purpose: 'mount', mountpoint: '/mnt/set' }
  t.throws(() => fsDaxGet(device, holder), { code: 'EBUSY', message: /target1 is in use: fsck/ })
  t.equal(isHeld(paths[0]!), false, 'the first target was given back')
  t.equal(whoHolds(name), undefined)
  fsPutDax(stranger, fsck)
  fsDaxGet(device, holder)
  t.equal(
    codeOf(() => fsDaxGet(stranger, fsck)),
    'EBUSY',
  )
  for (const path of paths) t.match(whoHolds(path), { mountpoint: '/mnt/set', through: device.key })
  t.match(whoHolds(name), { mountpoint: '/mnt/set', path: name, through: undefined })
  fsPutDax(device, holder)
  t.equal(whoHolds(name), undefined)
  fsDaxGet(stranger, fsck)
})

t.test('a failure on a target is translated and told exactly once', async (t) => {
  const paths = makeTargets('striped', [36 * M, 36 * M])
  const device = openPaths(t, paths)
  const { told } = listen(device, -EUCLEAN)
  const [first, second] = device.below!.targets as [DaxDevice, DaxDevice]
  t.equal(second.memoryFailure(2 * M + 4096, 4096), -EUCLEAN, "the holder's answer")
  t.same(told.splice(0), [[2 * M + 4096, 4096, MF_ACTION_REQUIRED]])
  t.equal(first.memoryFailure(3 * M, 2 * M), -EUCLEAN)
  t.same(told.splice(0), [
    [M, M, MF_ACTION_REQUIRED],
    [4 * M, M, MF_ACTION_REQUIRED],
  ])
  t.same(device.badRanges.list(), [
    { offset: M, length: M },
    { offset: 2 * M + 4096, length: 4096 },
    { offset: 4 * M, length: M },
  ])
  t.throws(() => device.memory.probe(0, 2 * M), { name: 'MemoryFailure', offset: M, known: true })
})

t.test('a failure told of the mapped device goes down and comes back once', async (t) => {
  const paths = makeTargets('linear', [36 * M, 36 * M])
  const device = openPaths(t, paths)
  const { told, holder } = listen(device)
  const [first, second] = device.below!.targets as [DaxDevice, DaxDevice]
  device.memoryFailure(32 * M - 4096, 8192, 0)
  t.same(told.splice(0), [
    [32 * M - 4096, 4096, 0],
    [32 * M, 4096, 0],
  ])
  t.same(first.badRanges.list(), [{ offset: 34 * M - 4096, length: 4096 }])
  t.same(second.badRanges.list(), [{ offset: 2 * M, length: 4096 }])
  device.markHealed(32 * M, 4096)
  t.same(second.badRanges.list(), [])
  t.same(device.badRanges.list(), [{ offset: 32 * M - 4096, length: 4096 }])
  fsPutDax(device, holder)
  device.memoryFailure(0, 4096)
  t.same(told, [], 'nothing after the release')
  t.ok(device.badRanges.overlaps(0, 4096), 'remembered all the same')
})

t.test('a failure in a label concerns nobody above', async (t) => {
  const device = openPaths(t, makeTargets('linear', [36 * M, 36 * M]))
  const { told } = listen(device)
  const [first] = device.below!.targets as [DaxDevice]
  t.equal(first.memoryFailure(0, 4096), 0)
  t.equal(first.memoryFailure(34 * M, 4096), 0)
  t.same(told, [])
  first.memoryFailure(2 * M - 4096, 8192)
  t.same(told, [[0, 4096, MF_ACTION_REQUIRED]], 'of a range across the border the part that counts')
})

t.test('what a target knows to be bad is bad from the start', async (t) => {
  const set = setOf('striped', [4 * M, 4 * M])
  const labels = [0, 1].map((position) => {
    return { ...set, sequence: 1, position, start: 2 * M, secondCopy: 8 * M }
  })
  const targets = labels.map((_, at) => openSimulated(new SimulatedMemory(10 * M), `t${at}`))
  targets[1]!.badRanges.add(4 * M, 4096)
  const memory = new SimulatedMemory(8 * M)
  const device = makeMappedDevice({ path: 'x', key: 'file-0-0-set', targets, labels, memory })
  t.same(device.badRanges.list(), [{ offset: 6 * M, length: 4096 }])
})

t.test(
  'killDax of a target: MF_MEM_PRE_REMOVE over its translated ranges, once, still alive',
  async (t) => {
    const linear = openPaths(t, makeTargets('linear', [36 * M, 36 * M, 36 * M]))
    const { told } = listen(linear)
    killDax(linear.below!.targets[1]!)
    t.same(told.splice(0), [[32 * M, 32 * M, MF_MEM_PRE_REMOVE]])
    t.equal(linear.badRanges.empty, true, 'it is still readable')
    killDax(linear.below!.targets[1]!)
    t.same(told, [], 'it has gone already')

    const striped = openPaths(t, makeTargets('striped', [36 * M, 36 * M]))
    const stripes = listen(striped)
    killDax(striped.below!.targets[1]!)
    t.same(stripes.told, [[2 * M, striped.size - 2 * M, MF_MEM_PRE_REMOVE]])
    killDax(striped)
    t.same(stripes.told[1], [0, striped.size, MF_MEM_PRE_REMOVE], 'the mapped device itself')
  },
)

t.test('stacked on a stack: a failure comes up through both', async (t) => {
  const shares = { sequence: 1, start: 2 * M }
  const build = (name: string, targets: DaxDevice[], kind: SetKind, length: number) => {
    const set = setOf(
      kind,
      targets.map(() => length),
    )
    const labels = targets.map((target, position) => {
      return { ...set, ...shares, position, secondCopy: target.size - 2 * M }
    })
    const memory = new SimulatedMemory(length * targets.length)
    return makeMappedDevice({ path: name, key: `file-0-${name}-set`, targets, labels, memory })
  }
  const bottom = [0, 1].map((at) => openSimulated(new SimulatedMemory(20 * M), `b${at}`))
  const middle = build('1', bottom, 'striped', 16 * M)
  const side = openSimulated(new SimulatedMemory(32 * M), 'side')
  const top = build('2', [side, middle], 'linear', 28 * M)
  const { told } = listen(top)
  // Byte 2M+2M of bottom 1 is byte 6M of the middle (chunk 3), and 28M + 6M - 2M of the top.
  bottom[1]!.memoryFailure(4 * M, 4096)
  t.same(told.splice(0), [[32 * M, 4096, MF_ACTION_REQUIRED]])
  killDax(bottom[0]!)
  t.same(told, [[28 * M, 28 * M, MF_MEM_PRE_REMOVE]])
})

interface File {
  readonly ino: number
  readonly path: string
  readonly handle: Handle
  readonly extents: readonly FileExtent[]
}

function makeFile(fs: Filesystem, name: string, bytes: number): File {
  const caller = { uid: 0, gid: 0, pid: 1, umask: 0 }
  const handle = fs.create(1, Buffer.from(name), 0o644, 2, caller)
  fs.write(handle, 0, Buffer.alloc(bytes, 1), 0, bytes, WRITE)
  const { extents } = fs.administration.getmap(handle.ino)
  return { ino: handle.ino, path: `/${name}`, handle, extents }
}

/** Which bytes of the file lie in [from, to) of the region. */
function bytesIn({ extents }: File, from: number, to: number) {
  return extents.flatMap(({ regionOffset, fileOffset, length }) => {
    const start = Math.max(from, regionOffset)
    const end = Math.min(to, regionOffset + length)
    if (start >= end) return []
    return [{ fileOffset: fileOffset + start - regionOffset, length: end - start }]
  })
}

/** A filesystem over two targets of 32 MiB: a file in each, and one over the seam of a linear one. */
function fillTwo(t: Test, kind: SetKind) {
  const paths = makeTargets(kind, [36 * M, 36 * M])
  const device = openPaths(t, paths)
  const formatting: Holder = { purpose: 'mkfs' }
  fsDaxGet(device, formatting)
  format(device.memory, { label: '', uid: 0, gid: 0, now: 0 })
  fsPutDax(device, formatting)
  const fs = mountDevice(device)
  const empty = makeFile(fs, 'empty', 0)
  const first = makeFile(fs, 'first', 64 * 1024)
  const seam = makeFile(fs, 'seam', 30 * M)
  const second = makeFile(fs, 'second', 64 * 1024)
  const closed = makeFile(fs, 'closed', 64 * 1024)
  fs.release(closed.handle)
  return { paths, device, fs, empty, first, seam, second, closed }
}

/** What is told from here on, without the times. */
function eventsOf(fs: Filesystem): object[] {
  const events: object[] = []
  fs.administration.subscribe((event) => {
    const { time: _time, ...rest } = event
    events.push(rest)
  })
  return events
}

/** What is to be told when [from, to) goes away, or all of it, under these files. */
function expectedEvents(files: readonly File[], [from, to]: readonly number[], whole = false) {
  const kills = files.map((file) => {
    const where = whole ? {} : { ranges: bytesIn(file, from!, to!) }
    return { event: 'kill', inode: file.ino, path: file.path, handles: 1, ...where }
  })
  const range = { offset: from!, length: to! - from! }
  const inodes = files.map(({ ino }) => ino)
  const counts = { inodes, handlesKilled: inodes.length }
  return [
    ...kills,
    { event: 'failure', ...range, kind: 'metadata', action: 'shutdown', ...counts },
    { event: 'shutdown', reason: 'the device is being removed', offset: from! },
  ]
}

const ALL = 64 * M

t.test('losing a target kills what lies in it, then the filesystem shuts down', async (t) => {
  const losses = [
    ['linear', 0, [0, 32 * M], ['first', 'seam']],
    ['linear', 1, [32 * M, ALL], ['seam', 'second']],
    // Of stripes: all between the first byte and the last.
    ['striped', 0, [0, ALL - 2 * M], ['first', 'seam', 'second']],
    ['striped', 1, [2 * M, ALL], ['first', 'seam', 'second']],
  ] as const
  for (const [kind, at, range, names] of losses) {
    const made = fillTwo(t, kind)
    const { fs, device, first, seam, second } = made
    t.same([bytesIn(first, 32 * M, ALL), bytesIn(second, 0, 32 * M)], [[], []], 'one in each')
    t.ok(bytesIn(seam, 0, 32 * M).length > 0 && bytesIn(seam, 32 * M, ALL).length > 0, 'and both')
    const events = eventsOf(fs)
    killDax(device.below!.targets[at]!)
    const hit = names.map((name) => made[name])
    t.same(events.splice(0), expectedEvents(hit, range), `${kind}, target ${at}`)
    const alive = [first, seam, second].filter((file) => !hit.includes(file))
    t.same(
      [first, seam, second].filter(({ handle }) => !handle.dead),
      alive,
    )
    t.throws(() => fs.write(first.handle, 0, Buffer.from('x'), 0, 1, WRITE), /EIO/)

    const [from, to] = range
    t.equal(notifyFailure(device, from, to - from, MF_MEM_PRE_REMOVE), -EIO, 'told again')
    killDax(device.below!.targets[1 - at]!)
    t.same(events, [], 'the same removal is one, and another changes nothing')
    t.equal(fs.administration.status().failures.length, 1)
    fs.unmount()
  }
})

t.test('losing the whole device kills every handle, wherever its file lies', async (t) => {
  const { fs, device, empty, first, seam, second } = fillTwo(t, 'linear')
  const events = eventsOf(fs)
  killDax(device)
  t.same(events, expectedEvents([empty, first, seam, second], [0, ALL], true))
  fs.unmount()
})

t.test('losing a target under a read-only mount writes nothing', async (t) => {
  const { fs, device, paths, first, second } = fillTwo(t, 'linear')
  await fs.unmount()
  device.close()
  const before = paths.map((path) => readFileSync(path))
  const again = openByName(paths.join(','), { readOnly: true })
  t.teardown(() => again.close())
  fsDaxGet(again, { purpose: 'mount' })
  const options = {
    readOnly: true,
    commitSeconds: 1,
    onFailure: 'handles',
    logger: silent,
  } as const
  const readOnly = Filesystem.mount(again, options)
  for (const { ino } of [first, second]) readOnly.open(ino, 0, false)
  const events = eventsOf(readOnly)
  killDax(again.below!.targets[1]!)
  t.same(events, expectedEvents([second], [32 * M, ALL]))
  await readOnly.unmount()
  const after = paths.map((path) => readFileSync(path))
  t.ok(before.every((bytes, at) => bytes.equals(after[at]!)))
})

t.test('xfs_dax_translate_range: ENXIO outside of the filesystem, cut at its end', async (t) => {
  const { fs, device } = scratchFilesystem(ALL + M, 'cacheline')
  t.equal(device.memoryFailure(ALL, 4096), -ENXIO, 'in the device, behind the last whole unit')
  t.equal(notifyFailure(device, ALL, M, MF_MEM_PRE_REMOVE), -ENXIO)
  t.match(fs.administration.status(), { state: 'mounted' })
  t.same(fs.administration.status().failures, [])
  const data = makeFile(fs, 'file', 4096)
  const events = eventsOf(fs)
  const start = data.extents[0]!.regionOffset
  t.equal(notifyFailure(device, start, device.size - start, MF_MEM_PRE_REMOVE), 0)
  t.same(events, expectedEvents([data], [start, ALL]))
  await fs.unmount()
})

t.test(
  'chunks that the kernel has no mappings for are refused before anything is written',
  async (t) => {
    const limit = Number(readFileSync('/proc/sys/vm/max_map_count', 'utf8'))
    if (limit > 1 << 20) return t.pass(`the limit here is ${limit}`)
    const directory = scratch('memory')
    const paths = ['a', 'b'].map((name) => {
      const path = join(directory, name)
      writeFileSync(path, '')
      truncateSync(path, (limit + 2) * M)
      return path
    })
    const options = { kind: 'striped', size: undefined, force: false } as const
    t.throws(() => makeSet(paths, { ...options, chunk: 2 * M }), {
      code: 'ENOMEM',
      message: /larger --chunk, or sysctl vm.max_map_count/,
    })
  },
)

t.test('sequential bandwidth over two stripes is not below one device', async (t) => {
  const one = join(scratch('memory'), 'one')
  writeFileSync(one, '')
  truncateSync(one, 256 * M)
  const devices = [one, makeTargets('striped', [130 * M, 130 * M]).join(',')].map((name) =>
    openByName(name),
  )
  t.teardown(() => {
    for (const device of devices) device.close()
  })
  const buffer = new Uint8Array(M)
  const best = [0, 0]
  // In turn, and the best of each: the machine has other work.
  for (let round = 0; round < 6; round++) {
    devices.forEach(({ memory }, at) => {
      const start = performance.now()
      for (let offset = 16 * M; offset < 240 * M; offset += M) {
        memory.write(offset, buffer, 0, M)
        memory.read(offset, buffer, 0, M)
      }
      best[at] = Math.max(best[at]!, (2 * 224 * M) / (performance.now() - start) / 1e6)
    })
  }
  t.comment(`one ${best[0]!.toFixed(2)} GB/s, two stripes ${best[1]!.toFixed(2)} GB/s`)
  t.ok(best[1]! > best[0]! * 0.85, `${best[1]} against ${best[0]} GB/s`)
})
