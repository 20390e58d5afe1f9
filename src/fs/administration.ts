/**
 * What a mounted filesystem answers to its operator (control socket, command line). Offsets and
 * lengths are bytes of the region unless they say `file`. All of it is JSON as it stands.
 */

export interface FailureReport {
  time: string
  offset: number
  length: number
  kind: 'data' | 'metadata' | 'free'
  inodes: number[]
  action: 'handles killed' | 'shutdown' | 'quarantined' | 'none'
  handlesKilled: number
}

export interface Status {
  uuid: string
  label: string
  region: string
  regionSize: number
  blockSize: number
  state: 'mounted' | 'unmounted' | 'shutdown'
  mountpoint: string | null
  transport: string | null
  readOnly: boolean
  frozen: boolean
  holder: { pid: number; host: string; since: string } | null
  blocks: { total: number; used: number; free: number; poisoned: number }
  inodes: number
  handles: { open: number; killed: number }
  journal: { used: number; size: number; sequence: number }
  failures: FailureReport[]
  shutdown?: { reason: string; offset: number }
}

export interface FileExtent {
  fileOffset: number
  regionOffset: number
  length: number
  flags: string[]
}

export interface FileMap {
  inode: number
  size: number
  extents: FileExtent[]
}

export interface RmapRow {
  regionOffset: number
  length: number
  owner: number | 'superblock' | 'journal' | 'checkpoint' | 'free' | 'poison'
  /** Path from the root of the filesystem, bytes decoded as UTF-8; absent for unlinked files. */
  path?: string
  fileOffset?: number
}

export interface InjectRequest {
  target:
    | { kind: 'file'; inode: number; fileOffset: number }
    | { kind: 'offset'; offset: number }
    | { kind: 'metadata'; structure: 'superblock' | 'journal' | 'checkpoint' }
    | { kind: 'free' }
  length: number
  method: 'soft' | 'sigbus' | 'hwpoison'
}

export interface InjectResult {
  kind: 'data' | 'metadata' | 'free'
  offset: number
  length: number
  inodes: number[]
  handlesKilled: number
  shutdown: boolean
}

export interface ScrubRequest {
  /** Bytes a second at most. */
  rate?: number
  /** Begins at the start, not where the last one was stopped. */
  restart?: boolean
}

export interface ScrubStatus {
  state: 'idle' | 'running' | 'stopped' | 'done'
  /** Region offset: what is allocated below it has been read. */
  position: number
  /** Bytes read since the scrub began, and bytes that are in use now. */
  checked: number
  total: number
  /** Bytes of bad memory that nobody had known. */
  found: number
}

export type FilesystemEvent =
  | ({ event: 'failure' } & FailureReport)
  | {
      event: 'kill'
      time: string
      inode: number
      path: string | null
      handles: number
      /** Where the file was hit, bytes of the file; absent: all of it. */
      ranges?: { fileOffset: number; length: number }[]
    }
  | { event: 'shutdown'; time: string; reason: string; offset: number }
  | ({ event: 'scrub'; time: string } & ScrubStatus)
  | { event: 'checkpoint'; time: string; sequence: number; bytes: number; milliseconds: number }
  | { event: 'freeze' | 'thaw' | 'poison cleared' | 'unmount'; time: string }

export interface Administration {
  /** Everything but mountpoint, transport and holder, which the daemon fills in. */
  status(): Omit<Status, 'mountpoint' | 'transport' | 'holder' | 'region'>
  getmap(inode: number): FileMap
  /** At most `limit` rows from `offset` on; continue at the end of the last row. */
  rmap(offset: number, length: number, limit: number): RmapRow[]
  inject(request: InjectRequest): InjectResult
  /** Resolves when what was killed so far can be seen by nobody, mappings included. */
  revoked(): Promise<void>
  /** Returns the bytes given back. */
  clearPoison(range: { offset: number; length: number } | 'all'): number
  /** Blocks every changing operation until thaw; what is there is durable when it resolves. */
  freeze(): Promise<void>
  thaw(): void
  shutdown(reason: string): void
  startScrub(request: ScrubRequest): ScrubStatus
  stopScrub(): ScrubStatus
  scrubStatus(): ScrubStatus
  checkpoint(): Promise<{ sequence: number; bytes: number; milliseconds: number }>
  /** Returns the function that ends the subscription. */
  subscribe(listener: (event: FilesystemEvent) => void): () => void
}
