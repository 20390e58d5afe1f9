/**
 * What lies in a region already: the signatures other people's data announces itself with. blkid
 * knows far more of them, but it need not be installed and cannot read a device-dax node.
 */
import { spawnSync } from 'node:child_process'

interface Signature {
  readonly name: string
  /** Region offset, bytes. */
  readonly offset: number
  readonly bytes: Uint8Array
}

const text = (name: string, offset: number, characters: string): Signature => ({
  name,
  offset,
  bytes: Buffer.from(characters, 'latin1'),
})

const hex = (name: string, offset: number, digits: string): Signature => ({
  name,
  offset,
  bytes: Buffer.from(digits, 'hex'),
})

const SIGNATURES: readonly Signature[] = [
  hex('a famfs filesystem', 0, 'ff82b28700000000'),
  hex('an ext2, ext3 or ext4 filesystem', 0x438, '53ef'),
  text('an XFS filesystem', 0, 'XFSB'),
  text('a Btrfs filesystem', 0x10040, '_BHRfS_M'),
  hex('an F2FS filesystem', 0x400, '1020f5f2'),
  hex('an EROFS filesystem', 0x400, 'e2e1f5e0'),
  hex('a bcachefs filesystem', 0x1018, 'c68573f64e1a45ca8265f57f48ba6d81'),
  text('a JFS filesystem', 0x8000, 'JFS1'),
  text('a ReiserFS filesystem', 0x10034, 'ReIsEr'),
  text('an ISO 9660 filesystem', 0x8001, 'CD001'),
  text('a SquashFS filesystem', 0, 'hsqs'),
  text('an NTFS filesystem', 3, 'NTFS    '),
  text('an exFAT filesystem', 3, 'EXFAT   '),
  text('swap space', 4086, 'SWAPSPACE2'),
  text('swap space', 4086, 'SWAP-SPACE'),
  text('a LUKS volume', 0, 'LUKS\xba\xbe'),
  ...[0, 512, 1024, 1536].map((offset) => text('an LVM physical volume', offset, 'LABELONE')),
  hex('a RAID member', 0, 'fc4e2ba9'),
  hex('a RAID member', 4096, 'fc4e2ba9'),
  text('a GUID partition table', 512, 'EFI PART'),
  hex('a partition table or a FAT filesystem', 510, '55aa'),
]

/** Reads `length` bytes at `offset` of the region. */
export type ReadAt = (offset: number, length: number) => Uint8Array

/** The name of what the signatures above recognise, or undefined. */
export function findSignature(read: ReadAt, size: number): string | undefined {
  for (const { name, offset, bytes } of SIGNATURES) {
    if (offset + bytes.length > size) continue
    if (Buffer.compare(read(offset, bytes.length), bytes) === 0) return name
  }
  return undefined
}

/** What blkid(8) calls the contents of the file, or undefined: nothing known, or no blkid. */
export function askBlkid(path: string): string | undefined {
  const found = spawnSync(
    'blkid',
    ['-p', '-o', 'value', '-s', 'TYPE', '-s', 'PTTYPE', '--', path],
    {
      encoding: 'utf8',
      env: { ...process.env, PATH: `${process.env.PATH ?? ''}:/usr/sbin:/sbin`, LC_ALL: 'C' },
      stdio: ['ignore', 'pipe', 'ignore'],
      timeout: 10_000,
    },
  )
  if (found.error !== undefined) return undefined
  const names = found.stdout.split('\n').filter((line) => line !== '')
  if (names.length > 0) return `${names.join(' and ')} (as blkid says)`
  // 8 is blkid's "ambivalent": several formats answer at once, so there certainly is something.
  return found.status === 8 ? 'several filesystems at once (as blkid says)' : undefined
}
