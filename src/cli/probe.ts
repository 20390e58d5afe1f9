/**
 * Asks a mount for its root, in a child process with a time limit: a daemon that hangs would take
 * whoever asks along, and the daemon itself must never ask.
 */
import { execFile } from 'node:child_process'

export type Answer = 'alive' | 'dead' | 'silent' | 'missing'

/**
 * 'dead': the daemon is gone (ENOTCONN, ECONNABORTED); 'silent': no answer in time; 'missing': no
 * such path.
 */
export function probeMount(path: string, milliseconds: number): Promise<Answer> {
  return new Promise((resolve) => {
    const options = { env: { ...process.env, LC_ALL: 'C' } }
    const limit = setTimeout(() => {
      // It may be beyond any signal for as long as the daemon does not answer.
      child.kill('SIGKILL')
      child.unref()
      child.stdout?.destroy()
      child.stderr?.destroy()
      resolve('silent')
    }, milliseconds)
    // statfs: the root's attributes may be cached by the kernel and outlive their daemon.
    const child = execFile(
      'stat',
      ['--file-system', '--format=%i', '--', path],
      options,
      (error, _stdout, stderr) => {
        clearTimeout(limit)
        if (error === null) resolve('alive')
        else if (/not connected|connection (?:abort|refused)/i.test(stderr)) resolve('dead')
        else if (/No such file/.test(stderr)) resolve('missing')
        // EACCES: root may not look at a user's mount, but somebody answered.
        else resolve('alive')
      },
    )
  })
}
