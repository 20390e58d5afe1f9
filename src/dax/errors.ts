/** A claim, a device or a region that cannot be had; the message is a sentence for a person. */
import { getSystemErrorName } from 'node:util'

export class DaxError extends Error {
  /** Positive errno. */
  readonly errno: number
  /** Its name, 'EBUSY'. */
  readonly code: string

  constructor(errno: number, sentence: string, options?: ErrorOptions) {
    super(sentence, options)
    this.name = 'DaxError'
    this.errno = errno
    const name = getSystemErrorName(-errno)
    // One number, two names; the kernel's DAX code uses the other one.
    this.code = name === 'ENOTSUP' ? 'EOPNOTSUPP' : name
  }
}
