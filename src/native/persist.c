/*
 * Durability by cache line, for mappings where write-back is enough. A line that is written back
 * and fenced is in the power-fail domain; streaming stores skip the cache and need the fence only.
 */
#include "holdfast.h"

#include <string.h>

#define LINE ((size_t)64)
/* Below this, one pass through the cache beats aligning to whole lines. */
#define STREAM_MIN ((size_t)256)

#if defined(__x86_64__)
#include <cpuid.h>
#include <immintrin.h>

typedef void flush_lines(char *from, const char *to);

static void flush_clflush(char *line, const char *to) {
  for (; line < to; line += LINE) _mm_clflush(line);
}

__attribute__((target("clflushopt"))) static void flush_clflushopt(char *line, const char *to) {
  for (; line < to; line += LINE) _mm_clflushopt(line);
}

__attribute__((target("clwb"))) static void flush_clwb(char *line, const char *to) {
  for (; line < to; line += LINE) _mm_clwb(line);
}

static flush_lines *choose_flush(void) {
  unsigned a, b = 0, c, d;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return flush_clflush;
  if (b & (1u << 24)) return flush_clwb;
  return b & (1u << 23) ? flush_clflushopt : flush_clflush;
}

static void flush(char *start, size_t length) {
  static flush_lines *volatile chosen;
  flush_lines *lines = chosen;
  if (lines == NULL) chosen = lines = choose_flush();
  lines(start - (uintptr_t)start % LINE, start + length);
}

static void fence(void) { _mm_sfence(); }

/* Whole lines, the target aligned; source NULL stands for zeros. */
static void stream_lines(char *target, const char *source, size_t length) {
  __m128i a = _mm_setzero_si128(), b = a, c = a, d = a;
  for (size_t at = 0; at < length; at += LINE) {
    if (source != NULL) {
      a = _mm_loadu_si128((const __m128i *)(source + at));
      b = _mm_loadu_si128((const __m128i *)(source + at + 16));
      c = _mm_loadu_si128((const __m128i *)(source + at + 32));
      d = _mm_loadu_si128((const __m128i *)(source + at + 48));
    }
    _mm_stream_si128((__m128i *)(target + at), a);
    _mm_stream_si128((__m128i *)(target + at + 16), b);
    _mm_stream_si128((__m128i *)(target + at + 32), c);
    _mm_stream_si128((__m128i *)(target + at + 48), d);
  }
}

bool persist_available(void) { return true; }

#else

/* No write-back instruction is known here, so map() makes no mapping synchronous. */
static void flush(char *start, size_t length) { (void)start, (void)length; }
static void fence(void) { atomic_thread_fence(memory_order_seq_cst); }

static void stream_lines(char *target, const char *source, size_t length) {
  store_words(target, source, length);
}

bool persist_available(void) { return false; }

#endif

/* Through the cache, then written back. */
static void store(char *target, const char *source, size_t length) {
  if (length == 0) return;
  store_words(target, source, length);
  flush(target, length);
}

static void persist(char *target, const char *source, size_t length) {
  if (length < STREAM_MIN) {
    store(target, source, length);
  } else {
    size_t head = (LINE - (uintptr_t)target % LINE) % LINE;
    size_t lines = (length - head) / LINE * LINE, tail = head + lines;
    store(target, source, head);
    stream_lines(target + head, source == NULL ? NULL : source + head, lines);
    store(target + tail, source == NULL ? NULL : source + tail, length - tail);
  }
  fence();
}

void persist_copy(char *target, const char *source, size_t length) {
  persist(target, source, length);
}

void persist_zero(char *target, size_t length) { persist(target, NULL, length); }

void persist_range(char *start, size_t length) {
  if (length > 0) flush(start, length);
  fence();
}
