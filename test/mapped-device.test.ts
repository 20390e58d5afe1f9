/** Mapped devices: linear and striped, their labels, their holders and their failures. */
import { copyFileSync, readFileSync, truncateSync, writeFileSync } from 'node:fs'
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
import {
  fsDaxGet,
  fsPutDax,
  type Holder,
  killDax,
  MF_ACTION_REQUIRED,
  MF_MEM_PRE_REMOVE,
} from '../src/dax/holder.ts'
import { SimulatedMemory } from '../src/dax/simulated-memory.ts'
import { MediaError } from '../src/media/errors.ts'
import { mountDevice } from './support/core.ts'
import { scratch } from './support/mounts.ts'
import { codeOf, M, makeTargets } from './support/regions.ts'

const EUCLEAN = 117
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
    const device = openDevice(path)
    const { targets, position } = loadLabel(device.memory)
    device.close()
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
  refused([plain, `${plain}x`], 'ENOENT', /does not exist/)
  const copy = join(scratch('memory'), 'copy')
  copyFileSync(b, copy)
  refused([a, b, copy], 'ENODEV', new RegExp(`${uuids[2]}\\) is missing`))
  truncateSync(c, 0)
  refused([a, b, c], 'EINVAL', /too small/)
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

t.test('a filesystem over two files: losing one kills the handles, then shuts down', async (t) => {
  for (const kind of ['linear', 'striped'] as const) {
    const device = openPaths(t, makeTargets(kind, [36 * M, 36 * M]))
    const formatting: Holder = { purpose: 'mkfs' }
    fsDaxGet(device, formatting)
    format(device.memory, { label: '', uid: 0, gid: 0, now: 0 })
    fsPutDax(device, formatting)
    const fs = mountDevice(device)
    const order: string[] = []
    fs.administration.subscribe((event) => order.push(event.event))
    const file = fs.create(1, Buffer.from('f'), 0o644, 2, { uid: 0, gid: 0, pid: 1, umask: 0 })
    killDax(device.below!.targets[1]!)
    t.throws(() => fs.write(file, 0, Buffer.from('x'), 0, 1, WRITE), /EIO|5/)
    t.same(
      order.filter((event) => event === 'kill' || event === 'shutdown'),
      ['kill', 'shutdown'],
    )
    fs.unmount()
  }
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
