/** What kernels and their modules are packed with, known by its first bytes. */
import { gunzipSync } from 'node:zlib'
import { output } from './commands.ts'

/** The contents of a file whose name ends in .xz, .zst or .gz; others as they are. */
export function decompressFile(name: string, bytes: Buffer): Buffer {
  if (name.endsWith('.xz')) return output(['xz', '-dc'], bytes)
  if (name.endsWith('.zst')) return output(['zstd', '-qdc'], bytes)
  return name.endsWith('.gz') ? gunzipSync(bytes) : bytes
}

/** The same by the data itself; undefined when it is of another kind. */
export function decompressData(bytes: Buffer): Buffer | undefined {
  const magic = bytes.subarray(0, 4).toString('hex')
  if (magic === 'fd377a58') return output(['xz', '-dc'], bytes)
  if (magic === '28b52ffd') return output(['zstd', '-qdc'], bytes)
  return magic.startsWith('1f8b') ? gunzipSync(bytes) : undefined
}
