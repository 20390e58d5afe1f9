/**
 * A region that does not say what the format requires. The sentence names the structure and where
 * it lies.
 */
export class MediaError extends Error {
  readonly structure: string
  /** Region offset of the offending byte, bytes. */
  readonly offset: number

  constructor(structure: string, offset: number, sentence: string) {
    super(`${structure} at region offset ${offset}: ${sentence}`)
    this.name = 'MediaError'
    this.structure = structure
    this.offset = offset
  }
}

/** The region uses a feature this version does not know: an older copy must not be used instead. */
export class FeatureError extends MediaError {
  constructor(structure: string, offset: number, sentence: string) {
    super(structure, offset, sentence)
    this.name = 'FeatureError'
  }
}
