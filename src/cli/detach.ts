/** Takes a mount away: umount2(2) when we may, fusermount3 otherwise. */
import { execFile } from 'node:child_process'
import { unmountPatiently } from '../fuse/unmount.ts'
import { native } from '../native/binding.ts'
import { CliError, codeOf, sentenceOf } from './errors.ts'

const MNT_DETACH = 2
const UMOUNT_NOFOLLOW = 8

/** Rejects with an error whose code is EBUSY when the mount is in use. */
export function detach(mountpoint: string, lazy: boolean): Promise<void> {
  return unmountPatiently(() => detachNow(mountpoint, lazy))
}

async function detachNow(mountpoint: string, lazy: boolean): Promise<void> {
  try {
    native.umount(mountpoint, UMOUNT_NOFOLLOW | (lazy ? MNT_DETACH : 0))
  } catch (error) {
    if (codeOf(error) !== 'EPERM') throw error
    await runFusermount(mountpoint, lazy)
  }
}

function runFusermount(mountpoint: string, lazy: boolean): Promise<void> {
  const args = ['-u', ...(lazy ? ['-z'] : []), '--', mountpoint]
  const options = { env: { ...process.env, LC_ALL: 'C' } }
  return new Promise((resolve, reject) => {
    execFile('fusermount3', args, options, (error, _stdout, stderr) => {
      if (error === null) resolve()
      else if (codeOf(error) === 'ENOENT') {
        reject(new CliError('fusermount3 is missing: install fuse3, or unmount as root'))
      } else {
        const reason = stderr.trim() || sentenceOf(error)
        const failure: NodeJS.ErrnoException = new Error(reason, { cause: error })
        if (/busy/i.test(reason)) failure.code = 'EBUSY'
        reject(failure)
      }
    })
  })
}
