/*
 * Stores by whole aligned words. A store of the processor that begins between words may be cut in
 * two at the end of a cache line, in the middle of a word: others then see a word half stored, and
 * so does what is left after a power failure.
 */
#include "holdfast.h"

#include <string.h>

/* Bytes [from, from + length) of one word; the others stay as they are. */
static void store_part(char *word, size_t from, const char *source, size_t length) {
  uint64_t value = __atomic_load_n((uint64_t *)word, __ATOMIC_RELAXED);
  if (source != NULL) memcpy((char *)&value + from, source, length);
  else memset((char *)&value + from, 0, length);
  __atomic_store_n((uint64_t *)word, value, __ATOMIC_RELAXED);
}

void store_words(char *target, const char *source, size_t length) {
  size_t into = (uintptr_t)target % WORD;
  size_t head = into == 0 ? 0 : WORD - into < length ? WORD - into : length;
  size_t whole = (length - head) / WORD * WORD, tail = length - head - whole;
  if (head > 0) store_part(target - into, into, source, head);
  target += head;
  if (source != NULL) source += head;
  /* From an aligned start libc stores words, and vectors that end with one. */
  if (source != NULL) memcpy(target, source, whole);
  else memset(target, 0, whole);
  if (tail > 0) store_part(target + whole, 0, source == NULL ? NULL : source + whole, tail);
}
