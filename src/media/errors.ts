/**
 * A region that does not say what the format requires. The sentence names the structure and where
 * it lies.
 */
export class MediaError extends Error {
  readonly structure: string
  /** Region offset of the offending byte, bytes. */
  readonly offset: number
  /** The message without the place. */
  readonly sentence: string

  constructor(structure: string, offset: number, sentence: string) {
    super(`${structure} at region offset ${offset}: ${sentence}`)
    this.name = 'MediaError'
    this.structure = structure
    this.offset = offset
    this.sentence = sentence
  }

  /** The same, for an offset that was counted from `start` and not from the region's. */
  moved(start: number): MediaError {
    return start === 0 ? this : new MediaError(this.structure, start + this.offset, this.sentence)
  }

  /** The same, with what helps: `; run …`. Once only. */
  advising(remedy: string): MediaError {
    if (this.sentence.includes('fsck.holdfast')) return this
    return new MediaError(this.structure, this.offset, `${this.sentence}; ${remedy}`)
  }
}

/** The region uses a feature this version does not know: an older copy must not be used instead. */
export class FeatureError extends MediaError {
  constructor(structure: string, offset: number, sentence: string) {
    super(structure, offset, sentence)
    this.name = 'FeatureError'
  }

  /** Nothing is damaged: a repair would not help. */
  override advising(): MediaError {
    return this
  }
}
