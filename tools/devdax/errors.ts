/** The guest cannot be had here (no network, no package, no such kernel): a sentence, no stack. */
export class NoGuestError extends Error {}

/** The guest was there and did not do what it should: it hung, or died. */
export class GuestError extends Error {}

/** It was still at work when its time was over. */
export class LimitError extends GuestError {}
