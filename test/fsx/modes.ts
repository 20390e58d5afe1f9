/** The ways to mount that files are exercised through, and what each cannot do. */

export type TransportName = 'kernel' | 'fuse-native'

export interface Mode {
  readonly name: string
  /** Mount options. */
  readonly options: readonly string[]
  /** Operations of the client that are left out: docs/TRANSPORTS.md says why. */
  readonly without: readonly string[]
}

const FALLOCATE = ['allocate', 'keep', 'punch', 'zero', 'zero-keep']
const MAPPINGS = ['map-read', 'map-write', 'map-beyond', 'unmap']

export const MODES: Record<TransportName, readonly Mode[]> = {
  kernel: [
    { name: 'keep', options: ['cache=keep'], without: [] },
    { name: 'none', options: ['cache=none'], without: [] },
    { name: 'writeback', options: ['writeback'], without: [] },
  ],
  'fuse-native': [
    { name: 'keep', options: ['cache=keep'], without: FALLOCATE },
    { name: 'none', options: ['cache=none'], without: [...FALLOCATE, ...MAPPINGS] },
  ],
}
